//! Keys of others whose messages may be imported: the permissions boundary lets no role use one without an alias of this deployment.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::aws::Aws;
use crate::preflight::{Finding, Verdict, finding, here};
use crate::settings::Settings;

/// What a key is called in the report.
const WHAT: &str = "import key";

/// The parts of a KMS key's ARN.
struct Key<'a> {
    arn: &'a str,
    region: &'a str,
    account: &'a str,
    id: &'a str,
}

impl<'a> Key<'a> {
    fn read(arn: &'a str) -> Option<Self> {
        let parts: Vec<&str> = arn.split(':').collect();
        let ["arn", _, "kms", region, account, resource] = parts.as_slice() else { return None };
        let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let id = resource.strip_prefix("key/").filter(|id| word(id))?;
        let numbered = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
        (numbered && word(region)).then_some(Self { arn, region, account, id })
    }
}

/// One line a key: those of `ImportKeys`, and of `ImportKeyArns`, which the role gets.
pub fn look(aws: &Aws<'_>, settings: &Settings, account: &str) -> Vec<Finding> {
    let (named, granted) = lists(settings);
    named.union(&granted).map(|arn| one(aws, settings, account, arn, (&named, &granted))).collect()
}

/// Whether anything is to be asked.
pub fn are_wanted(settings: &Settings) -> bool {
    let (named, granted) = lists(settings);
    !named.is_empty() || !granted.is_empty()
}

/// The ARNs in `ImportKeys`, `tenant=ARN` between commas, and those in `ImportKeyArns`.
fn lists(settings: &Settings) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let list = |name: &str| {
        settings.decided(name).unwrap_or_default().split(',').map(str::trim).filter(|entry| !entry.is_empty())
    };
    let named = list("ImportKeys").map(|entry| entry.split_once('=').map_or(entry, |(_, arn)| arn)).collect();
    (named, list("ImportKeyArns").collect())
}

fn one(
    aws: &Aws<'_>,
    settings: &Settings,
    account: &str,
    arn: &str,
    (named, granted): (&BTreeSet<&str>, &BTreeSet<&str>),
) -> Finding {
    let missing = |found: String, remedy: &str| finding(WHAT, Verdict::Missing, found, remedy);
    let Some(key) = Key::read(arn) else {
        return missing(
            format!("`{arn}` is no key's ARN"),
            "arn:aws:kms:REGION:ACCOUNT:key/ID; an alias may lead elsewhere tomorrow",
        );
    };
    if key.account != account || Some(key.region) != aws.region() {
        let found =
            format!("{arn} is of another account or region: its aliases cannot be asked for, and no role may use it");
        return missing(
            found,
            "a key of this account and region: the boundary and the endpoint of KMS let no other through",
        );
    }
    if !granted.contains(arn) {
        return missing(
            format!("{arn} is in ImportKeys and not in ImportKeyArns"),
            "the same ARN in ImportKeyArns, from which the role gets it",
        );
    }
    match aliased(aws, settings, &key) {
        finding if finding.verdict == Verdict::Here && !named.contains(arn) => Finding {
            verdict: Verdict::Note,
            found: format!("{arn} is in ImportKeyArns and no tenant's in ImportKeys"),
            remedy: "take it away, or say whose it is: ImportKeys=TENANT=ARN".to_owned(),
            ..finding
        },
        finding => finding,
    }
}

fn aliased(aws: &Aws<'_>, settings: &Settings, key: &Key<'_>) -> Finding {
    let ours = format!("alias/portcullis-{}-", settings.env());
    let create = format!(
        "aws kms create-alias --region {} --alias-name {ours}import-{} --target-key-id {}, then wait five minutes, which it may take to count",
        key.region, key.id, key.arn
    );
    match aws.ask(&["kms", "list-aliases", "--key-id", key.arn]) {
        Ok(answer) => {
            let listed = answer.get("Aliases").and_then(Value::as_array).into_iter().flatten();
            let of_key = |alias: &&Value| alias.get("TargetKeyId").and_then(Value::as_str) == Some(key.id);
            let names: Vec<&str> =
                listed.filter(of_key).filter_map(|alias| alias.get("AliasName").and_then(Value::as_str)).collect();
            match names.iter().find(|name| name.starts_with(&ours)) {
                Some(name) => here(WHAT, format!("{} by {name}", key.arn)),
                None => {
                    let others = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
                    let found =
                        format!("{} has no alias {ours}… ({others}): every message of it would be refused", key.arn);
                    finding(WHAT, Verdict::Missing, found, create)
                }
            }
        }
        // The deploy role is denied all of KMS, and a key that worked yesterday is no news of today's deployment.
        Err(error) if error.is_denied() => finding(
            WHAT,
            Verdict::Note,
            format!("{}: not asked: {error}", key.arn),
            format!("without an alias {ours}… it is shut: {create}"),
        ),
        Err(error) if error.is_absent() => finding(
            WHAT,
            Verdict::Missing,
            format!("no key {}", key.arn),
            "ImportKeys and ImportKeyArns without it, or its right ARN",
        ),
        Err(error) => finding(WHAT, Verdict::Missing, format!("{}: {error}", key.arn), "the right kms:ListAliases"),
    }
}
