//! `docs/operations/data-keys.md` against the code: every act has a section, whose line works and whose lists are complete.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test may stop where it stands")]

mod maintained;

use std::collections::BTreeSet;

use maintained::Lab;
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/operations/data-keys.md");
const ACT: &str = include_str!("../src/maintain/act.rs");
const REFUSAL: &str = include_str!("../src/maintain/refusal.rs");
const LINE: &str = "aws lambda invoke --function-name portcullis-ENV-data-key-";
const LINES_REST: &str = ":live --cli-binary-format raw-in-base64-out --payload '";

struct Section {
    operation: &'static str,
    payload: Value,
    fields: BTreeSet<&'static str>,
    outcomes: BTreeSet<&'static str>,
    errors: BTreeSet<&'static str>,
}

fn named(text: &'static str) -> BTreeSet<&'static str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn sections() -> Vec<Section> {
    PAGE.split("\n## `")
        .skip(1)
        .map(|text| {
            let (operation, text) = text.split_once('`').unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(LINE))
                .unwrap_or_else(|| panic!("{operation} has no line"));
            let (deployment, line) = line.split_once(LINES_REST).unwrap();
            assert_eq!(deployment, if operation == "shred" { "shred" } else { "maintain" }, "{operation}");
            let payload = serde_json::from_str(line.strip_suffix("' /dev/stdout").unwrap()).unwrap();
            let fields = text.lines().filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0)).collect();
            let (_, rest) = text.split_once("\nOutcomes: ").unwrap_or_else(|| panic!("{operation} names no outcomes"));
            let (outcomes, errors) =
                rest.split_once(" Errors: ").unwrap_or_else(|| panic!("{operation} names no errors"));
            Section { operation, payload, fields, outcomes: named(outcomes), errors: named(errors) }
        })
        .collect()
}

/// The texts between `before` and the next quotation mark.
fn quoted<'a>(source: &'a str, before: &str) -> BTreeSet<&'a str> {
    source.split(before).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

#[test]
fn the_page_has_every_act_field_and_error_and_no_other() {
    let code = ACT.split("#[cfg(test)]").next().unwrap();
    let names = code.split_once("NAMES: &[&str] = &[").unwrap().1.split_once(']').unwrap().0;
    let acts: BTreeSet<&str> = names.split('"').skip(1).step_by(2).chain(["shred"]).collect();
    let sections = sections();
    assert_eq!(acts, sections.iter().map(|section| section.operation).collect());

    let common = PAGE.split_once("Errors of every act: ").unwrap().1.split_once(". A refusal").unwrap().0;
    let told: BTreeSet<&str> =
        sections.iter().flat_map(|section| section.errors.clone()).chain(named(common)).collect();
    assert_eq!(told, quoted(REFUSAL, " => \""));

    let mut read = BTreeSet::new();
    for call in
        ["fields.text(\"", "fields.optional_text(\"", "fields.bool(\"", "fields.int(\"", "fields.optional_texts(\""]
    {
        read.extend(quoted(code, call));
    }
    let told: BTreeSet<&str> =
        sections.iter().flat_map(|section| section.fields.clone()).chain(["operation", "operator"]).collect();
    assert_eq!(told, read);
}

#[tokio::test]
async fn every_line_of_the_page_works() {
    let table = "CREATE TABLE public.users (id bigint PRIMARY KEY, ssn text);
        INSERT INTO public.users VALUES (1, 'v');
        GRANT rds_iam TO portcullis;";
    let lab = Lab::with_target(table).await;
    // What the page has the target's owner do, but for the role, which the tests' own set-up made.
    let sql = PAGE.split_once("```sql\n").unwrap().1.split_once("```").unwrap().0;
    let sql: Vec<&str> =
        sql.lines().filter(|line| !line.starts_with("CREATE ROLE") && !line.contains("rds_iam")).collect();
    lab.shop(&sql.join("\n")).await;
    lab.key("acme", "column:users/email").await;
    lab.key("acme", "subject:s-1").await;
    for section in sections() {
        assert_eq!(section.payload["operation"], section.operation);
        let answer = lab.act(section.payload.clone()).await.unwrap();
        let outcome = answer["outcome"].as_str().unwrap_or_else(|| panic!("{}: {answer}", section.operation));
        assert!(section.outcomes.contains(outcome), "{}: {outcome}", section.operation);
    }
}
