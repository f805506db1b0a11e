//! Least privilege, shown: what every role may do and must not, judged twice over the project's own templates, and every
//! statement weakened in every way that is one edit long. No stack runs here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "a test may fail loudly"
)]

mod judge;
mod mutants;
mod page;
mod policies;
mod score;
mod world;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::Value;

use self::judge::{Court, Own, Second};
use self::policies::{DEPLOYMENTS, Policies, names};
use self::world::{Call, Cell, Kind, Matrix};

/// Everybody's policies in one deployment.
struct Case {
    deployment: &'static [&'static str],
    policies: Policies,
    own: Court<Own>,
    second: Court<Second>,
}

/// The checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn matrix() -> Matrix {
    Matrix::read(include_str!("../../matrix.txt"), &names())
}

fn calls() -> (Vec<Call>, BTreeMap<String, Value>) {
    world::calls(include_str!("../../calls.txt"), &names())
}

/// All deployments; after the first one, whom the parameters of the others do not touch is left out by `Case::about`.
fn cases() -> Vec<Case> {
    let (_, sessions) = calls();
    let open = |deployment: &&'static [&'static str]| {
        let policies = Policies::of(deployment);
        let (own, second) = (Court::new(&policies, &sessions), Court::new(&policies, &sessions));
        Case { deployment, policies, own, second }
    };
    DEPLOYMENTS.iter().map(open).collect()
}

impl Case {
    /// Whether somebody's policies are not the same as in the first deployment.
    fn about(&self, first: &Case, who: &str) -> bool {
        let role = who.split(':').next().unwrap_or_default();
        let other = |one: &BTreeMap<String, Value>, two: &BTreeMap<String, Value>| {
            one.iter().any(|(name, policy)| two.get(name).is_some_and(|known| known != policy))
        };
        let (ours, theirs) = (&self.policies, &first.policies);
        self.deployment == first.deployment
            || ours.role(role) != theirs.role(role)
            || other(&ours.resources, &theirs.resources)
            || other(&ours.endpoints, &theirs.endpoints)
    }

    /// The cells of somebody that this deployment decides. Of those who are none of ours only what a row asks is known.
    fn cells(&self, matrix: &Matrix, who: &str) -> Vec<Cell> {
        match who {
            "stranger" | "foreigner" => matrix.around(self.deployment, who),
            service if service.contains('.') => {
                matrix.cells(self.deployment, who).into_iter().filter(|cell| cell.service() == "sts").collect()
            }
            _ => matrix.cells(self.deployment, who),
        }
    }
}

/// A call as it would be in the cloud: the local stack has no networks.
fn in_our_network(matrix: &Matrix, seen: &Cell, who: &str) -> Cell {
    let context = Rc::new(matrix.known(who, &seen.resource, &seen.context).into());
    Cell { who: who.into(), context, ..seen.clone() }
}

#[test]
fn every_cell_of_the_matrix_is_decided_as_the_matrix_says_by_both_judges() {
    let (matrix, cases) = (matrix(), cases());
    let (mut wrong, mut decided) = (Vec::new(), 0);
    for case in &cases {
        for who in matrix.everybody().iter().filter(|who| case.about(&cases[0], who)) {
            for cell in case.cells(&matrix, who) {
                decided += 1;
                let said = matrix.says(case.deployment, &cell);
                let (own, second) = (case.own.allows(&matrix, &cell), case.second.allows(&matrix, &cell));
                if own != said || second != said {
                    let Cell { who, action, resource, context } = &cell;
                    let known = context.iter().filter(|(key, _)| !key.starts_with("aws:Principal"));
                    let known: Vec<String> = known.map(|(key, values)| format!("{key}={}", values.join(","))).collect();
                    let told = format!("{who} {action} {resource} {}", known.join(" "));
                    wrong.push(format!("{:?} {told}: matrix {said}, judges {own} {second}", case.deployment));
                }
            }
        }
    }
    let shown: Vec<_> = wrong.iter().take(25).collect();
    assert!(wrong.is_empty(), "{} of {decided}: {shown:#?}", wrong.len());
    assert!(decided > 50_000, "the matrix has shrunk: {decided} cells");
}

#[test]
fn every_row_that_forbids_is_forbidden_by_the_rows_that_allow() {
    let matrix = matrix();
    for deployment in DEPLOYMENTS {
        for row in matrix.rows_for(deployment).filter(|row| row.kind == Kind::Not) {
            for cell in row.who.iter().flat_map(|who| matrix.own(row, who)) {
                assert!(
                    !matrix.says(deployment, &cell),
                    "line {} ({}): another row allows {cell:?}",
                    row.line,
                    row.comment
                );
            }
        }
    }
}

#[test]
fn what_the_functions_called_is_in_the_matrix_and_the_matrix_holds_nothing_that_nobody_calls() {
    let (matrix, (calls, _)) = (matrix(), calls());
    for call in &calls {
        let deployment: Vec<&str> = call.deployment.iter().map(String::as_str).collect();
        let cell = in_our_network(&matrix, &call.cell, &call.cell.who);
        assert_eq!(matrix.says(&deployment, &cell), call.allowed, "{deployment:?} {cell:?}");
    }
    let mut unseen = Vec::new();
    for row in matrix.rows.iter().filter(|row| row.kind == Kind::May) {
        for (who, action) in row.who.iter().flat_map(|who| row.actions.iter().map(move |action| (who, action))) {
            let seen = calls.iter().any(|call| {
                // A session's calls are its role's.
                let cell = in_our_network(&matrix, &call.cell, who);
                let same = *call.cell.who == **who || call.cell.who.split(':').next() == Some(who);
                same && *cell.action == **action && row.is_about(&cell) && call.allowed
            });
            // What differs by algorithm alone is seen with one.
            let other_algorithm = row.only.iter().any(|one| ["es256", "eddsa"].contains(&one.as_str()));
            if !seen && !other_algorithm {
                unseen.push(format!("line {}: {who} {action}", row.line));
            }
        }
    }
    assert!(unseen.is_empty(), "the matrix allows what nobody was seen to do: {unseen:#?}");
}

#[test]
fn every_statement_is_needed_and_none_can_be_widened_unseen() {
    let (matrix, mut cases) = (matrix(), cases());
    let scores = score::play(&matrix, &mut cases);
    let survivors: Vec<_> = scores.iter().flat_map(|score| &score.survivors).collect();
    assert!(survivors.is_empty(), "{} mutants live: {survivors:#?}", survivors.len());
    let unneeded: Vec<_> =
        matrix.same.iter().filter(|same| !scores.iter().any(|score| score.same.contains(&same.reason))).collect();
    assert!(unneeded.is_empty(), "these mutants are caught or do not exist: {unneeded:#?}");
    page::holds("score", &page::score(&matrix, &scores));
}

#[test]
fn the_page_shows_the_matrix() {
    page::holds("matrix", &page::capabilities(&matrix()));
}
