//! Plays every mutant of every statement of every role against the matrix.

use std::collections::BTreeMap;

use local::policy::Policy;
use serde_json::{Value, json};

use crate::Case;
use crate::judge::{Judge, Own, Says};
use crate::mutants::{self, Direction, Mutant};
use crate::policies::ACCOUNT;
use crate::world::{Cell, Context, Matrix};

/// What became of the mutants of a role.
#[derive(Clone, Debug, Default)]
pub struct Score {
    pub role: String,
    pub statements: usize,
    /// Caught and all, by direction.
    pub played: BTreeMap<Direction, (usize, usize)>,
    /// The reasons of those that mean the same.
    pub same: Vec<String>,
    pub survivors: Vec<String>,
}

/// Which of a role's documents a statement is in.
#[derive(Clone, Copy)]
enum Place {
    Identity(usize),
    Trust,
}

/// One score a role.
pub fn play(matrix: &Matrix, cases: &mut [Case]) -> Vec<Score> {
    let mut scores: BTreeMap<String, Score> = BTreeMap::new();
    let mut known: Vec<(String, Value)> = Vec::new();
    for case in cases {
        // Cells with what the matrix says of them, as they are needed.
        let mut cells: BTreeMap<String, Vec<(Cell, bool)>> = BTreeMap::new();
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
                        cells.entry(who.clone()).or_insert_with(|| {
                            let all = case.cells(matrix, who).into_iter();
                            all.map(|cell| (cell.clone(), matrix.says(case.deployment, &cell))).collect()
                        });
                    }
                    let target = format!("role/{name}");
                    let tried: Vec<&(Cell, bool)> = subjects
                        .iter()
                        .flat_map(|who| &cells[who])
                        .filter(|(cell, _)| matches!(place, Place::Identity(_)) || *cell.resource == *target)
                        .collect();
                    for mutant in all {
                        let count = score.played.entry(mutant.direction).or_default();
                        let (mut identity, mut trust) = (role.identity.clone(), role.trust.clone());
                        let document = match place {
                            Place::Identity(policy) => &mut identity[policy],
                            Place::Trust => &mut trust,
                        };
                        if !replace(document, index, mutant.statement.clone()) {
                            *document = silent(place);
                        }
                        case.own.swap(&role.name, &identity, &trust);
                        let tells = Tells::of(place, &statement, &mutant);
                        let caught = tried
                            .iter()
                            .filter(|(cell, said)| tells.by(matrix, cell, *said))
                            .find(|(cell, said)| case.own.allows(matrix, cell) != *said);
                        if let Some((cell, said)) = caught {
                            *count = (count.0 + 1, count.1 + 1);
                            case.second.swap(&role.name, &identity, &trust);
                            let agrees = case.second.allows(matrix, cell) != *said;
                            assert!(agrees, "{name} {sid}: {}: the second judge sees no harm in {cell:?}", mutant.name);
                        } else if let Some(same) = matrix.same.iter().find(|same| {
                            same.role == name && same.sid == sid && same.mutation == mutant.name
                        }) {
                            score.same.push(same.reason.clone());
                        } else {
                            count.1 += 1;
                            score.survivors.push(format!("{:?} {name} {sid} {}", case.deployment, mutant.name));
                        }
                    }
                    case.own.swap(&role.name, &role.identity, &role.trust);
                    case.second.swap(&role.name, &role.identity, &role.trust);
                }
            }
        }
    }
    scores.into_values().collect()
}

/// Which cells can tell a mutant: what was possible when something is gone, what was not when something came.
enum Tells {
    Possible,
    Impossible,
    /// Impossible, and covered by this statement if its conditions let it.
    Covered(Policy),
    All,
}

impl Tells {
    fn of(place: Place, original: &Value, mutant: &Mutant) -> Self {
        match (original["Effect"] == "Allow", mutant.direction, place, &mutant.statement) {
            (true, Direction::Less, ..) => Self::Possible,
            (true, Direction::More, Place::Identity(_), Some(statement)) => {
                let mut statement = statement.clone();
                statement.as_object_mut().unwrap().remove("Condition");
                Self::Covered(Own::identity(&json!({"Version": "2012-10-17", "Statement": [statement]})))
            }
            (true, Direction::More, ..) => Self::Impossible,
            (false, ..) => Self::All,
        }
    }

    fn by(&self, matrix: &Matrix, cell: &Cell, said: bool) -> bool {
        match self {
            Self::Possible => said,
            Self::Impossible => !said,
            Self::Covered(policy) => {
                let arn = &matrix.resources[&*cell.resource].arn;
                !said && Own::says(policy, &cell.action, arn, &Context::new()) != Says::Nothing
            }
            Self::All => true,
        }
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
        Place::Trust => json!({"Effect": "Allow", "Principal": {"Service": "none.amazonaws.com"}, "Action": "sts:AssumeRole"}),
    };
    json!({"Version": "2012-10-17", "Statement": [statement]})
}
