//! Which invariants catch a mutant.

use std::{collections::BTreeMap, fmt};

use invariants::{INVARIANTS, Repository};
use template::{Graph, Opened};

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
    let mut untouched: BTreeMap<&str, Opened> = BTreeMap::new();
    for one in mutants {
        untouched
            .entry(one.deployment)
            .or_insert_with(|| documents.open(&profiles[one.deployment], &super::place()).unwrap());
    }
    super::in_parallel(mutants, |mutant| {
        let by = |graph: &Graph, repository: &Repository| -> Vec<u8> {
            INVARIANTS.iter().filter(|one| !one.check(graph, repository).is_empty()).map(|one| one.number).collect()
        };
        let caught_by = match &mutant.edit {
            Edit::Templates(edit) => {
                let mut documents = documents.clone();
                edit(&mut documents);
                let before = &untouched[mutant.deployment];
                match documents.graph_after(before, &profiles[mutant.deployment], &super::place()) {
                    Ok(graph) => by(&graph, &repository),
                    Err(faults) => panic!("{}: the reader refuses it:\n{}", mutant.name, faults.join("\n")),
                }
            }
            Edit::Graph(edit) => {
                let mut graph = untouched[mutant.deployment].graph.clone();
                edit(&mut graph);
                by(&graph, &repository)
            }
            Edit::Repository(edit) => {
                let mut repository = repository.clone();
                edit(&mut repository);
                by(&untouched[mutant.deployment].graph, &repository)
            }
        };
        Judged { invariant: mutant.invariant, name: mutant.name, caught_by }
    })
}

/// The checked-in list.
pub(crate) fn list(judged: &[Judged]) -> String {
    let mut text = String::from(
        "# Invariant, what was changed, which invariants caught it. Made and compared by tests/mutants.rs.\n\n",
    );
    let mut sorted: Vec<&Judged> = judged.iter().collect();
    sorted.sort_by_key(|one| one.invariant);
    for one in sorted {
        text.push_str(&format!("{one}\n"));
    }
    text
}

/// `docs/invariants.md`.
pub(crate) fn page(judged: &[Judged]) -> String {
    let mut text = String::from(
        "# Invariants of the deployment\n\n\
         Twenty-seven promises about what `infra/aws` and `infra/cloudflare` deploy, checked on the resolved templates in every\n\
         deployment that their parameters allow (`infra/invariants/tests/support/mod.rs` lists them), and on a deployed account by\n\
         `make verify-live` where a graph is enough. A mutant is one precise edit that breaks the promise: each must be caught by its\n\
         own invariant, and `infra/invariants/mutants.txt` says by which others too. This page is made by\n\
         `cargo run -p invariants --example page`, and a test compares it.\n\n\
         | | name | promise | asked of | mutants |\n|--:|---|---|---|---|\n",
    );
    for one in INVARIANTS {
        let own: Vec<&str> = judged.iter().filter(|it| it.invariant == one.number).map(|it| it.name).collect();
        let asked = if one.needs_only_the_graph() { "templates, live" } else { "templates and repository" };
        let row = [
            one.number.to_string(),
            format!("`{}`", one.name),
            one.promise.to_owned(),
            asked.to_owned(),
            own.join(" · "),
        ];
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text.push_str(&format!("\n{} mutants, all caught.\n", judged.len()));
    text
}

/// What `make invariants` shows.
pub(crate) fn table(judged: &[Judged], violations: &BTreeMap<u8, usize>, deployments: usize) -> String {
    let mut text = format!("{deployments} deployments, {} mutants\n\n      holds  mutants caught\n", judged.len());
    for one in INVARIANTS {
        let own: Vec<&Judged> = judged.iter().filter(|it| it.invariant == one.number).collect();
        let caught = own.iter().filter(|it| it.caught_by.contains(&it.invariant)).count();
        let broken = violations.get(&one.number).copied().unwrap_or_default();
        let holds = if broken == 0 { "yes".to_owned() } else { format!("{broken}x no") };
        text.push_str(&format!(
            "  {:2}  {holds:5}  {caught:2} of {:2}  {:26} {}\n",
            one.number,
            own.len(),
            one.name,
            one.promise
        ));
    }
    text
}
