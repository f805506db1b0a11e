//! From a question to the context that the schema describes, and which policies look at the network.

use cedar_policy::{Context, Policy, RestrictedExpression};
use serde_json::Value;
use shared::device::Device;
use shared::policy::{Ask, Net, Reads, What, os_version};

type Pairs = Vec<(String, RestrictedExpression)>;

/// The context of a question; what is absent in it is absent here, never a default.
pub(crate) fn context(ask: &Ask) -> Option<Context> {
    let mut pairs: Pairs = vec![number("now", ask.now), ("net".to_owned(), net(ask.net.as_ref())?)];
    if let Some(known) = &ask.device {
        pairs.push(("device".to_owned(), device(known)?));
    }
    let operations = ask.operations().into_iter().map(|one| RestrictedExpression::new_string(one.to_owned()));
    let operations = ("operations".to_owned(), RestrictedExpression::new_set(operations));
    match &ask.what {
        What::Mint(mint) => pairs.extend([
            text("grant", &mint.grant),
            text("issuer", &mint.issuer),
            text("client_id", &mint.client_id),
            texts("scopes", &mint.scopes),
            operations,
            number("ttl", mint.ttl),
            flag("bound", mint.bound),
            flag("details", mint.details),
        ]),
        What::Invoke(invoke) => {
            let mut token = vec![
                text("iss", &invoke.iss),
                text("client_id", &invoke.client_id),
                texts("scopes", &invoke.scopes),
                operations,
                number("age", invoke.age),
                flag("bound", invoke.bound),
                flag("details", invoke.details),
            ];
            token.extend(invoke.sid.as_ref().map(|sid| text("sid", sid)));
            pairs.push(("token".to_owned(), RestrictedExpression::new_record(token).ok()?));
        }
    }
    Context::from_pairs(pairs).ok()
}

/// Where the address is unknown no policy looks at it, so which one stands in its place says nothing.
fn net(net: Option<&Net>) -> Option<RestrictedExpression> {
    let Some(net) = net else {
        return RestrictedExpression::new_record([("ip".to_owned(), RestrictedExpression::new_ip("::"))]).ok();
    };
    let mut members = vec![("ip".to_owned(), RestrictedExpression::new_ip(net.ip.to_canonical().to_string()))];
    members.extend(net.country.as_ref().map(|country| text("country", country)));
    RestrictedExpression::new_record(members).ok()
}

fn device(device: &Device) -> Option<RestrictedExpression> {
    let mut members =
        vec![text("id", &device.id), text("source", &device.source), number("checked_at", device.checked_at.seconds())];
    members.extend(device.managed.map(|value| flag("managed", value)));
    members.extend(device.os.as_ref().map(|os| text("os", os)));
    members.extend(device.os_version.as_deref().and_then(os_version).map(|version| number("os_version", version)));
    members.extend(device.disk_encrypted.map(|value| flag("disk_encrypted", value)));
    members.extend(device.firewall.map(|value| flag("firewall", value)));
    RestrictedExpression::new_record(members).ok()
}

fn text(name: &str, value: &str) -> (String, RestrictedExpression) {
    (name.to_owned(), RestrictedExpression::new_string(value.to_owned()))
}

fn texts(name: &str, values: &[String]) -> (String, RestrictedExpression) {
    let values = values.iter().map(|value| RestrictedExpression::new_string(value.clone()));
    (name.to_owned(), RestrictedExpression::new_set(values))
}

fn number(name: &str, value: i64) -> (String, RestrictedExpression) {
    (name.to_owned(), RestrictedExpression::new_long(value))
}

fn flag(name: &str, value: bool) -> (String, RestrictedExpression) {
    (name.to_owned(), RestrictedExpression::new_bool(value))
}

/// What of the context a policy could look at.
pub(crate) fn reads(policy: &Policy) -> Reads {
    // What cannot be looked into could hold anything.
    policy.to_json().map_or(Reads::ALL, |json| within(&json))
}

/// A member of the context by its name. A member that nobody thought of moves until somebody says that it does not.
fn member(name: &str) -> Reads {
    let nothing = Reads::default();
    match name {
        "net" => Reads { net: true, ..nothing },
        "device" => Reads { device: true, ..nothing },
        "grant" | "issuer" | "client_id" | "scopes" | "operations" | "ttl" | "bound" | "details" => nothing,
        // A token as a whole holds its age.
        _ => Reads { time: true, ..nothing },
    }
}

fn is_context(value: &Value) -> bool {
    value.get("Var").and_then(Value::as_str) == Some("context")
}

fn is_token(value: &Value) -> bool {
    let member = value.get(".").filter(|member| member.get("left").is_some_and(is_context));
    member.and_then(|member| member.get("attr")).and_then(Value::as_str) == Some("token")
}

fn within(value: &Value) -> Reads {
    let all = |values: &mut dyn Iterator<Item = &Value>| values.fold(Reads::default(), |sum, one| sum.or(within(one)));
    match value {
        Value::Array(items) => all(&mut items.iter()),
        Value::Object(members) if is_context(value) && members.len() == 1 => Reads::ALL,
        Value::Object(members) => members.iter().fold(Reads::default(), |sum, (name, inner)| {
            let left = inner.get("left").filter(|_| name == "." || name == "has");
            sum.or(match (inner.get("attr").and_then(Value::as_str), left) {
                (Some(attribute), Some(left)) if is_context(left) => member(attribute),
                (Some("age"), Some(left)) if is_token(left) => Reads { time: true, ..Reads::default() },
                (Some(_), Some(left)) if is_token(left) => Reads::default(),
                _ => within(inner),
            })
        }),
        _ => Reads::default(),
    }
}
