//! `docs/deploy/least-privilege.md`: its tables are made here and compared.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use crate::mutants::Direction;
use crate::root;
use crate::score::Score;
use crate::world::{Kind, Matrix};

const PAGE: &str = "docs/deploy/least-privilege.md";
/// Column, and how the ids of its resources begin.
const COLUMNS: &[(&str, &[&str])] = &[
    ("trust bucket", &["trust"]),
    ("files", &["objects"]),
    ("key of fields", &["key/data"]),
    ("key of files", &["key/bucket"]),
    ("signing keys", &["key/signing", "key/new", "key/untagged", "key/parameters", "any-key", "parameter"]),
    ("database", &["proxy", "instance"]),
    ("becomes", &["role"]),
];

/// Asserts that the part of the page called `name` is `wanted`; otherwise the whole page as it should be is written aside.
pub fn holds(name: &str, wanted: &str) {
    let text = std::fs::read_to_string(root().join(PAGE)).unwrap_or_default();
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end of {name} -->"));
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{PAGE} has no {begin}"));
    let (found, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{PAGE} has no {end}"));
    if found != wanted {
        let aside = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.md"));
        std::fs::write(&aside, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
        panic!("{PAGE}, {name}: not what the policies say; as it should be: {}", aside.display());
    }
}

/// Role × what it may do.
pub fn capabilities(matrix: &Matrix) -> String {
    let mut cells: BTreeMap<(String, &str), BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let mut roles = Vec::new();
    for row in matrix.rows.iter().filter(|row| row.kind != Kind::Not) {
        for who in row.who.iter().filter(|who| !who.contains([':', '.'])) {
            for resource in row.resources_of(who) {
                let Some((column, _)) =
                    COLUMNS.iter().find(|(_, starts)| starts.iter().any(|start| resource.starts_with(start)))
                else {
                    continue;
                };
                if !roles.contains(who) {
                    roles.push(who.clone());
                }
                let mut on = format!("`{resource}`");
                let marks: Vec<&str> = row
                    .conditions
                    .iter()
                    .filter_map(|one| {
                        one.key.strip_prefix("kms:EncryptionContext:purpose").map(|_| one.example.as_str())
                    })
                    .collect();
                if let [purpose] = marks.as_slice() {
                    on = (*purpose).to_owned();
                }
                let actions = row.actions.iter().map(|action| action.rsplit(':').next().unwrap_or_default().to_owned());
                let cell = cells.entry((who.clone(), *column)).or_default();
                for action in actions {
                    cell.entry(action).or_default().insert(on.clone());
                }
            }
        }
    }
    let mut page =
        format!("| role | {} |\n|---|", COLUMNS.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" | "));
    page.push_str(&"---|".repeat(COLUMNS.len()));
    page.push('\n');
    for role in roles {
        let row: Vec<String> = COLUMNS
            .iter()
            .map(|(column, _)| {
                let Some(cell) = cells.get(&(role.clone(), *column)) else { return "–".to_owned() };
                let told = |(action, on): (&String, &BTreeSet<String>)| {
                    format!("{action} {}", on.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
                };
                cell.iter().map(told).collect::<Vec<_>>().join("; ")
            })
            .collect();
        writeln!(page, "| {role} | {} |", row.join(" | ")).unwrap();
    }
    page
}

/// Role × how its mutants fared.
pub fn score(matrix: &Matrix, scores: &[Score]) -> String {
    let mut page = "| role | statements | less: caught | more: caught | of these held anyway | mean the same |\n|---|---|---|---|---|---|\n".to_owned();
    let (mut statements, mut less, mut more, mut held, mut same) = (0, (0, 0), (0, 0), 0, 0);
    for score in scores {
        let of = |direction| score.played.get(&direction).copied().unwrap_or_default();
        let (fewer, wider) = (of(Direction::Less), of(Direction::More));
        statements += score.statements;
        less = (less.0 + fewer.0, less.1 + fewer.1);
        more = (more.0 + wider.0, more.1 + wider.1);
        same += score.same.len();
        held += score.held;
        let (role, count, equal) = (&score.role, score.statements, score.same.len());
        writeln!(
            page,
            "| {role} | {count} | {} / {} | {} / {} | {} | {equal} |",
            fewer.0, fewer.1, wider.0, wider.1, score.held
        )
        .unwrap();
    }
    writeln!(page, "| **all** | {statements} | {} / {} | {} / {} | {held} | {same} |", less.0, less.1, more.0, more.1)
        .unwrap();
    if !matrix.same.is_empty() {
        page.push_str("\nThe mutants that mean the same:\n\n");
        for same in &matrix.same {
            writeln!(page, "- `{}` {}, {}: {}", same.role, same.sid, same.mutation, same.reason).unwrap();
        }
    }
    page
}
