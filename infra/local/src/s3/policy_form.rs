//! The policy of an upload by form ("POST Policy"): what it says, and whether a form keeps to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::refusal::Refusal;

/// A form as it arrived.
pub(crate) struct Form<'a> {
    pub(crate) bucket: &'a str,
    /// By name in lower case, without the file.
    pub(crate) fields: &'a BTreeMap<String, String>,
    /// Bytes of the file.
    pub(crate) size: usize,
}

/// Fields that no condition need name.
const FREE: [&str; 3] = ["policy", "x-amz-signature", "file"];

/// Judges a form by its policy, whose signature was found good.
///
/// # Errors
/// `InvalidPolicyDocument` for what is no policy; `AccessDenied` for one that is over, for a condition that does not hold and
/// for a field that no condition names; `EntityTooSmall` and `EntityTooLarge`.
pub(crate) fn judge(policy: &str, form: &Form<'_>, now: SystemTime) -> Result<(), Refusal> {
    let document = STANDARD.decode(policy).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let document = document.ok_or_else(|| invalid("Invalid JSON."))?;
    let expiration = document.get("expiration").and_then(Value::as_str).ok_or_else(|| invalid("no expiration"))?;
    let expiration = OffsetDateTime::parse(expiration, &Rfc3339).map_err(|_| invalid("Invalid 'expiration' value"))?;
    if SystemTime::from(expiration) <= now {
        return Err(denied("Policy expired."));
    }
    let conditions = document.get("conditions").and_then(Value::as_array).ok_or_else(|| invalid("no conditions"))?;
    let mut named = BTreeSet::new();
    for condition in conditions {
        match condition {
            Value::Object(exact) if exact.len() == 1 => {
                for (name, value) in exact {
                    let value = value.as_str().ok_or_else(|| invalid("Invalid simple-condition"))?;
                    named.insert(holds(form, "eq", name, value)?);
                }
            }
            Value::Array(rule) => match rule.as_slice() {
                [Value::String(operator), Value::String(name), Value::String(value)] => {
                    let name = name.strip_prefix('$').ok_or_else(|| invalid("Invalid Condition"))?;
                    named.insert(holds(form, operator, name, value)?);
                }
                [Value::String(operator), least, most] if operator == "content-length-range" => {
                    in_range(form.size, least, most)?;
                }
                _ => return Err(invalid("Invalid Condition")),
            },
            _ => return Err(invalid("Invalid Condition")),
        }
    }
    let extra: Vec<&str> = form
        .fields
        .keys()
        .map(String::as_str)
        .filter(|name| !FREE.contains(name) && !name.starts_with("x-ignore-") && !named.contains(*name))
        .collect();
    if extra.is_empty() { Ok(()) } else { Err(denied(&format!("Extra input fields: {}", extra.join(", ")))) }
}

/// The name, in lower case, of the field that the condition is about.
fn holds(form: &Form<'_>, operator: &str, name: &str, wanted: &str) -> Result<String, Refusal> {
    let field = name.to_ascii_lowercase();
    let found = if field == "bucket" { Some(form.bucket) } else { form.fields.get(&field).map(String::as_str) };
    let good = match operator.to_ascii_lowercase().as_str() {
        "eq" => found == Some(wanted),
        // An empty prefix allows anything, also nothing.
        "starts-with" => found.unwrap_or_default().starts_with(wanted),
        _ => return Err(invalid("Invalid Condition")),
    };
    if good {
        return Ok(field);
    }
    Err(denied(&format!("Policy Condition failed: [\"{operator}\", \"${name}\", \"{wanted}\"]")))
}

fn in_range(size: usize, least: &Value, most: &Value) -> Result<(), Refusal> {
    let bound = |value: &Value| match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let (Some(least), Some(most)) = (bound(least), bound(most)) else {
        return Err(invalid("Invalid content-length-range"));
    };
    let size = u64::try_from(size).unwrap_or(u64::MAX);
    let (code, message, element, limit) = if size < least {
        ("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size", "MinSizeAllowed", least)
    } else if size > most {
        ("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size", "MaxSizeAllowed", most)
    } else {
        return Ok(());
    };
    let refused = Refusal::bad_request(code, message).with("ProposedSize", size.to_string());
    Err(refused.with(element, limit.to_string()))
}

fn invalid(what: &str) -> Refusal {
    Refusal::bad_request("InvalidPolicyDocument", format!("Invalid Policy: {what}"))
}

fn denied(what: &str) -> Refusal {
    Refusal::forbidden("AccessDenied", format!("Invalid according to Policy: {what}"))
}
