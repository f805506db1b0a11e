//! Plays every mutant of every statement of every role against the matrix.

use std::collections::BTreeMap;
use std::rc::Rc;

use local::policy::Policy;
use serde_json::{Value, json};

use crate::Case;
use crate::judge::{Court, Judge, Own, Place, Says};
use crate::mutants::{self, Direction, Mutant};
use crate::policies::ACCOUNT;
use crate::world::{Cell, Known, Matrix};

/// What became of the mutants of a role.
#[derive(Clone, Debug, Default)]
pub struct Score {
    pub role: String,
    pub statements: usize,
    /// Caught and all, by direction.
    pub played: BTreeMap<Direction, (usize, usize)>,
    /// How many of those that give more, in the call that told, would still be stopped by a policy of something else.
    pub held: usize,
    /// The reasons of those that mean the same.
    pub same: Vec<String>,
    pub survivors: Vec<String>,
}

/// One score a role.
pub fn play(matrix: &Matrix, cases: &mut [Case]) -> Vec<Score> {
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    let mut known: Vec<(String, Value)> = Vec::new();
    for case in cases {
        // Cells with what the matrix says of them, as they are needed.
        let mut cells: BTreeMap<String, Vec<Group>> = BTreeMap::new();
        for role in case.policies.roles.clone() {
            let name = role.name.clone();
            let score = scores.entry(name.clone()).or_default();
            score.role.clone_from(&name);
            let places = role.identity.iter().enumerate().map(|(index, document)| (Place::Identity(index), document));
            for (place, document) in places.chain([(Place::Trust, &role.trust)]) {
                for (index, statement) in statements(document).into_iter().enumerate() {
                    // The same statement in another deployment is not another one.
                    if known.contains(&(name.clone(), statement.clone())) {
                        continue;
                    }
                    known.push((name.clone(), statement.clone()));
                    score.statements += 1;
                    let all = match place {
                        Place::Identity(_) => mutants::of_identity(matrix, &statement),
                        Place::Trust => mutants::of_trust(matrix, &statement, ACCOUNT),
                    };
                    let sid = statement["Sid"].as_str().unwrap_or("Trust").to_owned();
                    let subjects: Vec<String> = match place {
                        Place::Identity(_) => vec![name.clone()],
                        Place::Trust => matrix.everybody().into_iter().collect(),
                    };
                    for who in &subjects {
                        cells.entry(who.clone()).or_insert_with(|| groups(matrix, case, who));
                    }
                    let target = format!("role/{name}");
                    let tried: Vec<&Group> = subjects
                        .iter()
                        .flat_map(|who| &cells[who])
                        .filter(|group| matches!(place, Place::Identity(_)) || *group.resource == *target)
                        .collect();
                    for mutant in all {
                        let count = score.played.entry(mutant.direction).or_default();
                        let mut mutated = document.clone();
                        if !replace(&mut mutated, index, mutant.statement.clone()) {
                            mutated = silent(place);
                        }
                        let tells = Tells::by(place, &statement, &mutant);
                        let own = match place {
                            Place::Identity(_) => Court::role_allows,
                            Place::Trust => Court::trust_allows,
                        };
                        let (caught, held) = case.own.with(&name, place, &mutated, |court| {
                            let mut suspects = tried.iter().flat_map(|group| tells.of(matrix, group));
                            let caught = suspects.find(|(cell, said)| own(court, matrix, cell) != *said);
                            (caught, caught.is_some_and(|(cell, said)| court.allows(matrix, cell) == said))
                        });
                        if let Some((cell, said)) = caught {
                            *count = (count.0 + 1, count.1 + 1);
                            score.held += usize::from(held && mutant.direction == Direction::More);
                            let second = match place {
                                Place::Identity(_) => Court::role_allows,
                                Place::Trust => Court::trust_allows,
                            };
                            let agrees =
                                case.second.with(&name, place, &mutated, |court| second(court, matrix, cell) != said);
                            assert!(agrees, "{name} {sid}: {}: the second judge sees no harm in {cell:?}", mutant.name);
                        } else if let Some(same) = matrix.same.iter().find(|same| {
                            let is = |pattern: &str, name: &str| pattern == "*" || pattern == name;
                            is(&same.role, &name) && is(&same.sid, &sid) && same.mutation == mutant.name
                        }) {
                            score.same.push(same.reason.clone());
                        } else {
                            count.1 += 1;
                            score.survivors.push(format!("{:?} {name} {sid} {}", case.deployment, mutant.name));
                        }
                    }
                }
            }
        }
    }
    scores.into_values().collect()
}

/// The cells of somebody that differ in their contexts only.
struct Group {
    action: Rc<str>,
    resource: Rc<str>,
    possible: Vec<Cell>,
    impossible: Vec<Cell>,
}

fn groups(matrix: &Matrix, case: &Case, who: &str) -> Vec<Group> {
    let mut groups: BTreeMap<(Rc<str>, Rc<str>), Group> = BTreeMap::new();
    for cell in case.cells(matrix, who) {
        let (action, resource) = (Rc::clone(&cell.action), Rc::clone(&cell.resource));
        let group = groups.entry((Rc::clone(&action), Rc::clone(&resource))).or_insert_with(|| Group {
            action,
            resource,
            possible: Vec::new(),
            impossible: Vec::new(),
        });
        match matrix.says(case.deployment, &cell) {
            true => group.possible.push(cell),
            // What the role's own policies let pass and something else stops tells nothing about the role.
            false if cell.service() == "sts" || !case.own.role_allows(matrix, &cell) => group.impossible.push(cell),
            false => {}
        }
    }
    groups.into_values().collect()
}

/// Which cells can tell a mutant: what was possible when something is gone, what was not when something came.
enum Tells {
    Possible,
    /// Impossible, and covered by this statement if its conditions let it.
    Covered(Policy),
    Impossible,
    /// Of these services.
    All(Vec<String>),
}

impl Tells {
    fn by(place: Place, original: &Value, mutant: &Mutant) -> Self {
        match (original["Effect"] == "Allow", mutant.direction, place, &mutant.statement) {
            (true, Direction::Less, ..) => Self::Possible,
            (true, Direction::More, Place::Identity(_), Some(statement)) => {
                let mut statement = statement.clone();
                statement.as_object_mut().unwrap().remove("Condition");
                Self::Covered(Own::identity(&json!({"Version": "2012-10-17", "Statement": [statement]})))
            }
            (true, Direction::More, ..) => Self::Impossible,
            (false, ..) => Self::All(mutants::services(&mutants::texts(&original["Action"]))),
        }
    }

    /// The cells of a group, with what the matrix says of them.
    fn of<'a>(&self, matrix: &Matrix, group: &'a Group) -> Vec<(&'a Cell, bool)> {
        let (possible, impossible) = match self {
            Self::Possible => (true, false),
            Self::Impossible => (false, true),
            Self::Covered(policy) => {
                let arn = &matrix.resources[&*group.resource].arn;
                (false, Own::says(policy, &group.action, arn, &Known::default()) != Says::Nothing)
            }
            Self::All(services) => {
                let about = services.iter().any(|service| group.action.split(':').next() == Some(service));
                (about, about)
            }
        };
        let cells = group.possible.iter().filter(|_| possible).map(|cell| (cell, true));
        cells.chain(group.impossible.iter().filter(|_| impossible).map(|cell| (cell, false))).collect()
    }
}

fn statements(document: &Value) -> Vec<Value> {
    match &document["Statement"] {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    }
}

/// Puts another statement in one's place; false when none is left.
fn replace(document: &mut Value, index: usize, statement: Option<Value>) -> bool {
    let mut all = statements(document);
    match statement {
        Some(statement) => all[index] = statement,
        None => drop(all.remove(index)),
    }
    let left = !all.is_empty();
    document["Statement"] = json!(all);
    left
}

/// A policy that says nothing about anything that is tried: an empty one is no policy.
fn silent(place: Place) -> Value {
    let statement = match place {
        Place::Identity(_) => json!({"Effect": "Allow", "Action": "none:None", "Resource": "*"}),
        Place::Trust => {
            json!({"Effect": "Allow", "Principal": {"Service": "none.amazonaws.com"}, "Action": "sts:AssumeRole"})
        }
    };
    json!({"Version": "2012-10-17", "Statement": [statement]})
}
