//! Every way to weaken a statement that is one edit long.

use serde_json::{Value, json};

use crate::world::Matrix;

/// Which direction a mutant goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// The statement, or one of its actions or resources, is gone.
    Less,
    /// It covers more.
    More,
}

/// A statement changed in one place; `None` is one that is gone.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub direction: Direction,
    /// What was done, in the words of the score.
    pub name: String,
    pub statement: Option<Value>,
}

/// All mutants of a statement of an identity policy.
pub fn of_identity(matrix: &Matrix, statement: &Value) -> Vec<Mutant> {
    if statement["Effect"] == "Deny" {
        return of_denial(statement);
    }
    let mut mutants = less(statement);
    let mut more =
        |name: String, change: &dyn Fn(&mut Value)| mutants.push(changed(statement, Direction::More, name, change));
    let (actions, resources) = (texts(&statement["Action"]), texts(&statement["Resource"]));
    for service in services(&actions) {
        let siblings = matrix.actions.get(&service).unwrap_or_else(|| panic!("no actions of {service} are tried"));
        // An action that knows no resource is not allowed by a statement that names one.
        let reached = |sibling: &&String| !matrix.nowhere.contains(*sibling) || resources == ["*"];
        for sibling in siblings.iter().filter(|sibling| !actions.contains(sibling)).filter(reached) {
            more(format!("also {sibling}"), &|one| one["Action"] = with(&actions, sibling));
        }
        more(format!("also {service}:*"), &|one| one["Action"] = with(&actions, &format!("{service}:*")));
    }
    for action in &actions {
        if let Some(wide) = first_word(action) {
            more(format!("also {wide}"), &|one| one["Action"] = with(&actions, &wide));
        }
    }
    more("any action".to_owned(), &|one| one["Action"] = json!("*"));
    if resources != ["*"] {
        more("any resource".to_owned(), &|one| one["Resource"] = json!("*"));
    }
    for resource in &resources {
        for wide in wider(resource) {
            more(format!("also on {wide}"), &|one| one["Resource"] = with(&resources, &wide));
        }
    }
    mutants.extend(looser(statement));
    mutants
}

/// A denial that denies less lets more pass: all of it gone, one action or resource of it, or what it spares spared more.
fn of_denial(statement: &Value) -> Vec<Mutant> {
    let mut mutants = less(statement);
    let block = statement["Condition"].as_object().cloned().unwrap_or_default();
    for (operator, keys) in &block {
        for (key, value) in keys.as_object().into_iter().flatten() {
            match operator.as_str() {
                "StringNotEquals" => {
                    let values = with(&texts(value), "other");
                    mutants.push(changed(statement, Direction::More, format!("{key} may also be another"), &|one| {
                        one["Condition"][operator][key] = values.clone();
                    }));
                    mutants.push(changed(statement, Direction::More, format!("{key} may be missing"), &|one| {
                        one["Condition"]["Null"][key] = json!("false");
                    }));
                }
                "Null" => {}
                other => panic!("no mutant is known for a denial with {other}"),
            }
        }
    }
    mutants.iter_mut().for_each(|mutant| mutant.direction = Direction::More);
    mutants
}

/// All mutants of a statement of a trust policy.
pub fn of_trust(matrix: &Matrix, statement: &Value, account: &str) -> Vec<Mutant> {
    let mut mutants = less(statement);
    let mut more =
        |name: String, change: &dyn Fn(&mut Value)| mutants.push(changed(statement, Direction::More, name, change));
    let actions = texts(&statement["Action"]);
    for sibling in matrix.actions["sts"].iter().filter(|sibling| !actions.contains(sibling)) {
        more(format!("also {sibling}"), &|one| one["Action"] = with(&actions, sibling));
    }
    more("any action".to_owned(), &|one| one["Action"] = json!("sts:*"));
    let root = format!("arn:aws:iam::{account}:root");
    let principals = statement["Principal"].as_object().cloned().unwrap_or_default();
    for (name, kind, value) in [
        ("also the account", "AWS", root.as_str()),
        ("also another account", "AWS", "arn:aws:iam::444455556666:root"),
        ("also another service", "Service", "ec2.amazonaws.com"),
    ] {
        let mut known = texts(principals.get(kind).unwrap_or(&Value::Null));
        known.push(value.to_owned());
        // One kind of principal a statement: the second judge reads no more.
        match principals.contains_key(kind) {
            true => more(name.to_owned(), &|one| one["Principal"] = json!({ kind: known })),
            false => more(name.replace("also", "instead"), &|one| one["Principal"] = json!({ kind: known })),
        }
    }
    more("anybody".to_owned(), &|one| one["Principal"] = json!("*"));
    mutants.extend(looser(statement));
    mutants
}

fn less(statement: &Value) -> Vec<Mutant> {
    let mut mutants = vec![Mutant { direction: Direction::Less, name: "gone".to_owned(), statement: None }];
    for element in ["Action", "Resource"] {
        let all = texts(&statement[element]);
        for gone in all.iter().filter(|_| all.len() > 1) {
            let rest: Vec<&String> = all.iter().filter(|one| *one != gone).collect();
            let name = format!("without {gone}");
            mutants.push(changed(statement, Direction::Less, name, &|one| one[element] = json!(rest)));
        }
    }
    mutants
}

/// Each condition dropped, and its value made to fit more.
fn looser(statement: &Value) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    let block = statement["Condition"].as_object().cloned().unwrap_or_default();
    let mut more =
        |name: String, change: &dyn Fn(&mut Value)| mutants.push(changed(statement, Direction::More, name, change));
    for (operator, keys) in &block {
        for (key, value) in keys.as_object().into_iter().flatten() {
            // One key of one operator taken out, and perhaps another condition put in.
            let instead = |put: Option<(&str, Value)>| {
                let (operator, key) = (operator.clone(), key.clone());
                let put = put.map(|(name, value)| (name.to_owned(), value));
                move |one: &mut Value| {
                    let block = one["Condition"].as_object_mut().unwrap();
                    let keys = block[&operator].as_object_mut().unwrap();
                    keys.remove(&key);
                    if keys.is_empty() {
                        block.remove(&operator);
                    }
                    if let Some((name, value)) = &put {
                        block.entry(name).or_insert_with(|| json!({}))[&key] = value.clone();
                    }
                    if block.is_empty() {
                        one.as_object_mut().unwrap().remove("Condition");
                    }
                }
            };
            more(format!("{key} dropped ({operator})"), &instead(None));
            let values = texts(value);
            let single = !operator.contains(':') && operator != "Null" && !operator.ends_with("IfExists");
            if single && !operator.contains("Not") {
                more(format!("{key} if it exists"), &instead(Some((&format!("{operator}IfExists"), value.clone()))));
            }
            match operator.as_str() {
                "StringEquals" | "StringEqualsIfExists" => {
                    let exists = operator.trim_start_matches("StringEquals");
                    let like = format!("StringLike{exists}");
                    more(format!("{key} of any value"), &instead(Some((&like, json!("*")))));
                    let longer: Vec<String> = values.iter().map(|value| format!("{value}*")).collect();
                    more(format!("{key} with anything behind"), &instead(Some((&like, json!(longer)))));
                    more(format!("{key} of one more value"), &instead(Some((operator, with(&values, "other")))));
                }
                "StringLike" => {
                    for wide in values.iter().flat_map(|value| wider(value)) {
                        more(format!("{key} like {wide}"), &instead(Some((operator, json!(wide)))));
                    }
                }
                "NumericLessThanEquals" => {
                    let ten = values.iter().filter_map(|value| value.parse::<u64>().ok()).map(|most| most * 10).max();
                    more(format!("{key} ten times as much"), &instead(Some((operator, json!(ten)))));
                }
                "ForAllValues:StringEquals" => {
                    more(format!("{key} with one more member"), &instead(Some((operator, with(&values, "more")))));
                }
                "Bool" | "Null" | "StringNotEquals" | "ArnEquals" => {}
                other => panic!("no mutant is known for {other}"),
            }
        }
    }
    mutants
}

/// The same ARN a segment shorter, and in any region and account.
fn wider(arn: &str) -> Vec<String> {
    let mut all = Vec::new();
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    let [prefix, partition, service, region, account, path] = parts.as_slice() else { return all };
    let rebuilt =
        |region: &str, account: &str, path: &str| format!("{prefix}:{partition}:{service}:{region}:{account}:{path}");
    let mut path = (*path).to_owned();
    for place in ["region", "account"] {
        let (wide_region, wide_account) = if place == "region" { ("*", *account) } else { (*region, "*") };
        if (place == "region" && !region.is_empty()) || (place == "account" && !account.is_empty()) {
            all.push(rebuilt(wide_region, wide_account, &path));
        }
    }
    while let Some(at) = path.trim_end_matches('*').trim_end_matches(['/', ':']).rfind(['/', ':']) {
        path = format!("{}*", &path[..=at]);
        all.push(rebuilt(region, account, &path));
    }
    all
}

fn changed(statement: &Value, direction: Direction, name: String, change: &dyn Fn(&mut Value)) -> Mutant {
    let mut statement = statement.clone();
    change(&mut statement);
    Mutant { direction, name, statement: Some(statement) }
}

/// The services of actions.
pub fn services(actions: &[String]) -> Vec<String> {
    let mut all: Vec<String> = actions.iter().filter_map(|action| Some(action.split_once(':')?.0.to_owned())).collect();
    all.dedup();
    all
}

/// `s3:GetObject` → `s3:Get*`
fn first_word(action: &str) -> Option<String> {
    let (service, name) = action.split_once(':')?;
    let end = name.char_indices().skip(1).find(|(_, letter)| letter.is_ascii_uppercase())?.0;
    Some(format!("{service}:{}*", &name[..end]))
}

fn with(all: &[String], one: &str) -> Value {
    let mut all = all.to_vec();
    all.push(one.to_owned());
    json!(all)
}

/// A text or a list of texts, and numbers as text.
pub fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Number(number) => vec![number.to_string()],
        Value::Bool(flag) => vec![flag.to_string()],
        _ => Vec::new(),
    }
}
