//! The operations of the API, without HTTP, signatures or a clock of their own.

use std::{
    collections::BTreeSet,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    name::{self, Reference},
    sealing::{self, ThroughKms},
    store::{Parameter, Shelf, Version},
};
use crate::{
    account::Account,
    aws_json::{Input, Refusal},
    policy::Context,
};

/// Asks whether the caller may do `action` on the resource; the error is the answer the caller gets.
pub(super) type Authorize<'a> = &'a dyn Fn(&str, &str, &Context) -> Result<(), Refusal>;

/// The surroundings of one operation.
pub(super) struct Call<'a> {
    pub(super) account: &'a Account,
    pub(super) shelf: &'a RwLock<Shelf>,
    /// The caller's ARN.
    pub(super) caller: &'a str,
    /// Milliseconds since 1970.
    pub(super) now: u64,
    pub(super) authorize: Authorize<'a>,
    pub(super) kms: ThroughKms<'a>,
}

type Operation = fn(&Call<'_>, &Input<'_>) -> Result<Value, Refusal>;

/// Every operation: name, members it takes, what it does. Whatever is not here does not exist.
const OPERATIONS: &[(&str, &[&str], Operation)] = &[
    ("DeleteParameter", &["Name"], delete),
    ("GetParameter", &["Name", "WithDecryption"], one),
    ("GetParameterHistory", &["Name", "WithDecryption", "MaxResults", "NextToken"], history),
    ("GetParameters", &["Names", "WithDecryption"], several),
    ("GetParametersByPath", &["Path", "Recursive", "WithDecryption", "MaxResults", "NextToken"], by_path),
    ("LabelParameterVersion", &["Name", "ParameterVersion", "Labels"], label),
    ("PutParameter", &["Name", "Description", "Value", "Type", "KeyId", "Overwrite", "Tier", "DataType"], put),
];

const SECURE: &str = "SecureString";
const DEFAULT_KEY: &str = "alias/aws/ssm";
const STANDARD_LIMIT: usize = 4096;
const ADVANCED_LIMIT: usize = 8192;
const MOST_NAMES: usize = 10;

/// Whether an operation of this name exists here.
pub(super) fn knows(operation: &str) -> bool {
    OPERATIONS.iter().any(|(name, ..)| *name == operation)
}

/// Runs one operation of the API.
pub(super) fn run(call: &Call<'_>, operation: &str, input: &Value) -> Result<Value, Refusal> {
    let found = OPERATIONS.iter().find(|(name, ..)| *name == operation);
    let (_, members, run) = found.ok_or_else(Refusal::unknown_operation)?;
    run(call, &Input::parse(input, members)?)
}

impl Call<'_> {
    fn read(&self) -> RwLockReadGuard<'_, Shelf> {
        self.shelf.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Shelf> {
        self.shelf.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn arn(&self, name: &str) -> String {
        name::arn(self.account, name)
    }

    fn admit(&self, action: &str, name: &str) -> Result<(), Refusal> {
        (self.authorize)(action, &self.arn(name), &Context::new())
    }

    fn reference(&self, input: &Input<'_>, member: &str) -> Result<Reference, Refusal> {
        Reference::parse(self.account, input.required_text(member, 1, name::LONGEST)?)
    }

    fn value(&self, arn: &str, version: &Version, decrypt: bool) -> Result<String, Refusal> {
        match decrypt && version.kind == SECURE {
            true => sealing::open(self.kms, arn, &version.value, version.advanced),
            false => Ok(version.value.clone()),
        }
    }

    fn shown(&self, name: &str, version: &Version, selector: Option<&str>, decrypt: bool) -> Result<Value, Refusal> {
        let arn = self.arn(name);
        let value = self.value(&arn, version, decrypt)?;
        let mut shown = json!({
            "Name": name, "Type": version.kind, "Value": value, "Version": version.number,
            "LastModifiedDate": seconds(version.modified), "ARN": arn, "DataType": "text",
        });
        if let (Some(selector), Some(members)) = (selector, shown.as_object_mut()) {
            members.insert("Selector".to_owned(), json!(format!(":{selector}")));
        }
        Ok(shown)
    }
}

fn put(call: &Call<'_>, input: &Input<'_>) -> Result<Value, Refusal> {
    let name = input.required_text("Name", 1, name::LONGEST)?;
    let value = secret_text(input, "Value")?;
    let kind = input.choice("Type", &["String", "StringList", SECURE])?;
    let tier = input.choice("Tier", &["Standard", "Advanced", "Intelligent-Tiering"])?;
    let key = input.text("KeyId", 1, 256)?;
    let description = input.text("Description", 0, 1024)?.map(str::to_owned);
    let overwrite = input.flag("Overwrite")?;
    if input.text("DataType", 0, 128)?.is_some_and(|kind| kind != "text") {
        return Err(Refusal::invalid("This data type is not implemented by this stand-in."));
    }
    name::check(call.account, name)?;
    let arn = call.arn(name);
    (call.authorize)("ssm:PutParameter", &arn, &Context::new().with("ssm:Overwrite", overwrite.to_string()))?;

    // Held over the call to KMS, so that of two writers at once one meets the other's parameter.
    let mut shelf = call.write();
    let newest = shelf.get(name).and_then(Parameter::newest);
    if newest.is_some() && !overwrite {
        let message = "The parameter already exists. To overwrite this value, set the overwrite option in the request to \
                       true.";
        return Err(Refusal::new("ParameterAlreadyExists", message));
    }
    let kind = match (kind, newest) {
        (Some(kind), Some(newest)) if newest.kind != kind => {
            let message = format!("The parameter type cannot be changed from {} to {kind}.", newest.kind);
            return Err(Refusal::new("HierarchyTypeMismatchException", message));
        }
        (None, None) => return Err(Refusal::invalid("A parameter type is required when you create a parameter.")),
        (Some(kind), _) => kind,
        (None, Some(newest)) => newest.kind.as_str(),
    };
    let advanced = tier_of(tier, newest, &value)?;
    let key = match (kind == SECURE, key) {
        (true, key) => Some(key.unwrap_or(DEFAULT_KEY)),
        (false, None) => None,
        (false, Some(_)) => {
            return Err(Refusal::invalid(format!("KeyId is not valid for a parameter of type {kind}.")));
        }
    };
    let stored = match key {
        Some(key) => sealing::seal(call.kms, key, &arn, &value, advanced)?,
        None => value,
    };
    let version = Version {
        number: newest.map_or(1, |newest| newest.number + 1),
        kind: kind.to_owned(),
        advanced,
        value: stored,
        key: key.map(str::to_owned),
        description,
        modified: call.now,
        by: call.caller.to_owned(),
        labels: BTreeSet::new(),
    };
    let answer = json!({ "Version": version.number, "Tier": tier_name(advanced) });
    shelf.entry(name.to_owned()).or_default().add(version)?;
    Ok(answer)
}

/// Whether the new version is an advanced one; there is no way back from that tier.
fn tier_of(tier: Option<&str>, newest: Option<&Version>, value: &str) -> Result<bool, Refusal> {
    let was_advanced = newest.is_some_and(|newest| newest.advanced);
    let advanced = match tier {
        Some("Advanced") => true,
        Some("Intelligent-Tiering") => was_advanced || value.len() > STANDARD_LIMIT,
        Some(_) if was_advanced => {
            return Err(Refusal::invalid(
                "This parameter uses the advanced-parameter tier. You can't downgrade a parameter from the \
                 advanced-parameter tier to the standard-parameter tier.",
            ));
        }
        Some(_) => false,
        None => was_advanced,
    };
    let (limit, hint) = match advanced {
        true => (ADVANCED_LIMIT, ""),
        false => (
            STANDARD_LIMIT,
            " To create a larger parameter value, upgrade the parameter to use the advanced-parameter tier.",
        ),
    };
    if value.len() > limit {
        let tier = tier_name(advanced);
        let message = format!("{tier} tier parameters support a maximum parameter value of {limit} characters.{hint}");
        return Err(Refusal::invalid(message));
    }
    Ok(advanced)
}

fn one(call: &Call<'_>, input: &Input<'_>) -> Result<Value, Refusal> {
    let wanted = call.reference(input, "Name")?;
    let decrypt = input.flag("WithDecryption")?;
    call.admit("ssm:GetParameter", &wanted.name)?;
    let version = find(&call.read(), &wanted)?;
    Ok(json!({ "Parameter": call.shown(&wanted.name, &version, wanted.selector.as_deref(), decrypt)? }))
}

fn several(call: &Call<'_>, input: &Input<'_>) -> Result<Value, Refusal> {
    let names = input.texts("Names")?;
    let decrypt = input.flag("WithDecryption")?;
    if names.is_empty() {
        return Err(Refusal::constraint("Names", " '[]'", "have length greater than or equal to 1"));
    }
    if names.len() > MOST_NAMES {
        let shown = format!(" '[{}]'", names.join(", "));
        return Err(Refusal::constraint("Names", &shown, "have length less than or equal to 10"));
    }
    let (mut found, mut invalid) = (Vec::new(), Vec::new());
    for text in &names {
        let wanted = Reference::parse(call.account, text)?;
        call.admit("ssm:GetParameters", &wanted.name)?;
        let version = find(&call.read(), &wanted);
        match version {
            Ok(version) => found.push(call.shown(&wanted.name, &version, wanted.selector.as_deref(), decrypt)?),
            Err(_) => invalid.push(text),
        }
    }
    Ok(json!({ "Parameters": found, "InvalidParameters": invalid }))
}

fn by_path(call: &Call<'_>, input: &Input<'_>) -> Result<Value, Refusal> {
    let path = input.required_text("Path", 1, name::LONGEST)?;
    let (decrypt, recursive) = (input.flag("WithDecryption")?, input.flag("Recursive")?);
    let most = input.integer("MaxResults", 1, 10)?.unwrap_or(10);
    let formed = path.bytes().all(|byte| name::is_letter(byte) || byte == b'/') && !path.contains("//");
    if !path.starts_with('/') || !formed {
        return Err(Refusal::invalid(
            "The parameter doesn't meet the parameter name requirements. The parameter name must begin with a forward \
             slash \"/\".",
        ));
    }
    let parent = path.trim_end_matches('/');
    let context = Context::new().with("ssm:Recursive", recursive.to_string());
    (call.authorize)("ssm:GetParametersByPath", &call.arn(parent), &context)?;
    let below = format!("{parent}/");
    let inside = |name: &&String| {
        name.strip_prefix(&below).is_some_and(|rest| !rest.is_empty() && (recursive || !rest.contains('/')))
    };
    let names: Vec<String> = call.read().keys().filter(inside).cloned().collect();
    let (names, next) = page(input, &names, most)?;
    let mut found = Vec::new();
    for name in names {
        let version = call.read().get(name).and_then(Parameter::newest).cloned();
        if let Some(version) = version {
            found.push(call.shown(name, &version, None, decrypt)?);
        }
    }
    Ok(with_token(json!({ "Parameters": found }), next))
}

fn history(call: &Call<'_>, input: &Input<'_>) -> Result<Value, Refusal> {
    let wanted = call.reference(input, "Name")?;
    let decrypt = input.flag("WithDecryption")?;
    let most = input.integer("MaxResults", 1, 50)?.unwrap_or(50);
    if wanted.selector.is_some() {
        return Err(Refusal::invalid("The history of a parameter is asked for without a selector."));
    }
    call.admit("ssm:GetParameterHistory", &wanted.name)?;
    let versions: Vec<Version> =
        call.read().get(&wanted.name).map(|held| held.versions().cloned().collect()).ok_or_else(not_found)?;
    let numbers: Vec<String> = versions.iter().map(|version| format!("{:020}", version.number)).collect();
    let (numbers, next) = page(input, &numbers, most)?;
    let arn = call.arn(&wanted.name);
    let mut entries = Vec::new();
    for version in versions.iter().filter(|version| numbers.contains(&format!("{:020}", version.number))) {
        let mut entry = json!({
            "Name": wanted.name, "Type": version.kind, "Value": call.value(&arn, version, decrypt)?,
            "Version": version.number, "Labels": version.labels, "Tier": tier_name(version.advanced), "Policies": [],
            "LastModifiedDate": seconds(version.modified), "LastModifiedUser": version.by, "DataType": "text",
        });
        if let Some(members) = entry.as_object_mut() {
            members.extend(version.key.as_ref().map(|key| ("KeyId".to_owned(), json!(key))));
            members.extend(version.description.as_ref().map(|text| ("Description".to_owned(), json!(text))));
        }
        entries.push(entry);
    }
    Ok(with_token(json!({ "Parameters": entries }), next))
}

fn label(call: &Call<'_>, input: &Input<'_>) -> Result<Value, Refusal> {
    let wanted = call.reference(input, "Name")?;
    let labels = input.texts("Labels")?;
    let number = input.integer("ParameterVersion", 1, i64::MAX)?;
    if labels.is_empty() || labels.len() > 10 {
        let rule = "have length between 1 and 10";
        return Err(Refusal::constraint("Labels", &format!(" '[{}]'", labels.join(", ")), rule));
    }
    if let Some(label) = labels.iter().find(|label| label.is_empty() || label.chars().count() > 100) {
        let rule = "have length less than or equal to 100, and greater than or equal to 1";
        return Err(Refusal::constraint("Labels", &format!(" '[{label}]'"), rule));
    }
    call.admit("ssm:LabelParameterVersion", &wanted.name)?;
    let mut shelf = call.write();
    let parameter = shelf.get_mut(&wanted.name).ok_or_else(not_found)?;
    let newest = parameter.newest().map(|newest| newest.number).unwrap_or_default();
    let number = number.unwrap_or(newest);
    if parameter.select(Some(&number.to_string())).is_none() {
        return Err(version_not_found(&wanted.name, &number.to_string()));
    }
    let (good, bad): (Vec<&str>, Vec<&str>) = labels.iter().map(String::as_str).partition(|label| is_label(label));
    parameter.label(number, &good)?;
    Ok(json!({ "InvalidLabels": bad, "ParameterVersion": number }))
}

fn delete(call: &Call<'_>, input: &Input<'_>) -> Result<Value, Refusal> {
    let wanted = call.reference(input, "Name")?;
    if wanted.selector.is_some() {
        return Err(Refusal::invalid("A parameter is deleted with all its versions, without a selector."));
    }
    call.admit("ssm:DeleteParameter", &wanted.name)?;
    call.write().remove(&wanted.name).map(|_| json!({})).ok_or_else(not_found)
}

fn find(shelf: &Shelf, wanted: &Reference) -> Result<Version, Refusal> {
    let parameter = shelf.get(&wanted.name).ok_or_else(not_found)?;
    let selector = wanted.selector.as_deref();
    let missing = || version_not_found(&wanted.name, selector.unwrap_or_default());
    parameter.select(selector).cloned().ok_or_else(missing)
}

/// One page of a sorted list, and the token of the next one.
fn page<'a>(input: &Input<'_>, entries: &'a [String], most: i64) -> Result<(&'a [String], Option<String>), Refusal> {
    let invalid = || Refusal::new("InvalidNextToken", "The specified token isn't valid.");
    let start = match input.text("NextToken", 1, 4096)? {
        None => 0,
        Some(token) => {
            let last = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let last = last.and_then(|last| last.strip_prefix("after ").map(str::to_owned)).ok_or_else(invalid)?;
            entries.partition_point(|entry| *entry <= last)
        }
    };
    let rest = entries.get(start..).unwrap_or_default();
    let most = usize::try_from(most).unwrap_or_default();
    let shown = rest.get(..most.min(rest.len())).unwrap_or_default();
    let more = shown.last().filter(|_| rest.len() > shown.len());
    Ok((shown, more.map(|last| URL_SAFE_NO_PAD.encode(format!("after {last}")))))
}

fn with_token(mut answer: Value, next: Option<String>) -> Value {
    if let (Some(next), Some(members)) = (next, answer.as_object_mut()) {
        members.insert("NextToken".to_owned(), json!(next));
    }
    answer
}

/// A text that a refusal must not show.
fn secret_text(input: &Input<'_>, member: &str) -> Result<String, Refusal> {
    let text = input.hidden_text(member)?.ok_or_else(|| Refusal::missing(member))?;
    if text.is_empty() {
        return Err(Refusal::constraint(member, "", "have length greater than or equal to 1"));
    }
    Ok(text.to_owned())
}

fn is_label(label: &str) -> bool {
    let low = label.to_ascii_lowercase();
    let starts_well = !label.starts_with(|first: char| first.is_ascii_digit());
    starts_well && !low.starts_with("aws") && !low.starts_with("ssm") && label.bytes().all(name::is_letter)
}

fn not_found() -> Refusal {
    Refusal::silent("ParameterNotFound")
}

fn version_not_found(name: &str, selector: &str) -> Refusal {
    let message =
        format!("Systems Manager could not find version {selector} of {name}. Verify the version and try again.");
    Refusal::new("ParameterVersionNotFound", message)
}

fn tier_name(advanced: bool) -> &'static str {
    if advanced { "Advanced" } else { "Standard" }
}

fn seconds(millis: u64) -> f64 {
    std::time::Duration::from_millis(millis).as_secs_f64()
}
