//! Which invariants catch a mutant.

use std::{collections::BTreeMap, fmt};

use invariants::{INVARIANTS, Repository};
use template::Graph;

use super::edit::{Edit, Mutant};

pub(crate) struct Judged {
    pub(crate) invariant: u8,
    pub(crate) name: &'static str,
    pub(crate) caught_by: Vec<u8>,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by: Vec<String> = self.caught_by.iter().map(ToString::to_string).collect();
        write!(f, "{:2}  {:60}  {}", self.invariant, self.name, by.join(" "))
    }
}

/// Makes each mutant and asks all invariants.
pub(crate) fn judge(mutants: &[Mutant]) -> Vec<Judged> {
    let (documents, repository) = (super::documents(), super::repository());
    let profiles: BTreeMap<String, template::Profile> = super::deployments().into_iter().collect();
    let untouched: BTreeMap<&str, Graph> = mutants
        .iter()
        .filter(|one| !matches!(one.edit, Edit::Templates(_)))
        .map(|one| (one.deployment, super::graph(&documents, &profiles[one.deployment])))
        .collect();
    super::in_parallel(mutants, |mutant| {
        let by = |graph: &Graph, repository: &Repository| -> Vec<u8> {
            INVARIANTS.iter().filter(|one| !one.check(graph, repository).is_empty()).map(|one| one.number).collect()
        };
        let caught_by = match &mutant.edit {
            Edit::Templates(edit) => {
                let mut documents = documents.clone();
                edit(&mut documents);
                match documents.graph(&profiles[mutant.deployment], &super::place()) {
                    Ok(graph) => by(&graph, &repository),
                    Err(faults) => panic!("{}: the reader refuses it:\n{}", mutant.name, faults.join("\n")),
                }
            }
            Edit::Graph(edit) => {
                let mut graph = untouched[mutant.deployment].clone();
                edit(&mut graph);
                by(&graph, &repository)
            }
            Edit::Repository(edit) => {
                let mut repository = repository.clone();
                edit(&mut repository);
                by(&untouched[mutant.deployment], &repository)
            }
        };
        Judged { invariant: mutant.invariant, name: mutant.name, caught_by }
    })
}

/// The checked-in list.
pub(crate) fn list(judged: &[Judged]) -> String {
    let mut text = String::from("# Invariant, what was changed, which invariants caught it. Made and compared by tests/mutants.rs.\n\n");
    let mut sorted: Vec<&Judged> = judged.iter().collect();
    sorted.sort_by_key(|one| one.invariant);
    for one in sorted {
        text.push_str(&format!("{one}\n"));
    }
    text
}
