//! Names for what cannot stand in a file, or will be another one the next time:
//!
//! - `${3:/access_token}`: what stands there in the answer to step 3
//! - `${assertion:acme-backend}`: an assertion that this client signs now
//! - `${proof:acme-bound}`: a proof of possession of this client's key, for this request
//! - `${nonce:acme-bound}`: the same with the nonce that the stack gave last
//! - `${secret:43}`: a text of so many letters
//!
//! A `${` that was there itself is written `$${`.

use std::collections::HashMap;

use serde_json::Value;

/// Values from here on are told from others by themselves.
const TELLING: usize = 16;
/// How many values of answers are remembered.
const MOST: usize = 20_000;
/// The longest secret that is made up.
const LONGEST: usize = 64 * 1024;

/// Words in the names of members and fields whose values are secrets.
const SECRET: [&str; 17] = [
    "password",
    "passwd",
    "passcode",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "plaintext",
    "assertion",
    "private",
    "signature",
    "authorization",
    "api_key",
    "apikey",
    "verifier",
    "cookie",
];

/// A name in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// Of an earlier answer, by step and JSON pointer.
    Answer(u64, String),
    /// Signed now by this client.
    Assertion(String),
    /// Proven now by this client; with the nonce that was given last, or without.
    Proof(String, bool),
    /// So many letters.
    Secret(usize),
}

/// A text in pieces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    Name(Name),
}

/// A text as it stands in a file.
pub(super) fn quoted(text: &str) -> String {
    text.replace("${", "$${")
}

/// A secret as it stands in a file.
pub(super) fn secret(value: &str) -> String {
    format!("${{secret:{}}}", value.chars().count().min(LONGEST))
}

/// Takes a text of a file apart.
pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            plain.push_str(before);
            plain.push_str("${");
            rest = after;
            continue;
        }
        plain.push_str(before);
        let Some((inside, later)) = after.split_once('}') else { return Err("a name without an end".to_owned()) };
        let name =
            name(inside).ok_or_else(|| format!("{:?} is no name", inside.chars().take(60).collect::<String>()))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        pieces.push(Piece::Name(name));
        rest = later;
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn name(inside: &str) -> Option<Name> {
    let (kind, value) = inside.split_once(':')?;
    let id = |value: &str| (!value.is_empty() && value.len() <= 128).then(|| value.to_owned());
    match kind {
        "assertion" => id(value).map(Name::Assertion),
        "proof" | "nonce" => Some(Name::Proof(id(value)?, kind == "nonce")),
        "secret" => value.parse().ok().filter(|length| *length <= LONGEST).map(Name::Secret),
        step => Some(Name::Answer(step.parse().ok()?, value.starts_with('/').then(|| value.to_owned())?)),
    }
}

/// Whether all names of a text can be known at this step.
pub(super) fn check(text: &str, step: u64) -> Result<(), String> {
    for piece in pieces(text)? {
        if let Piece::Name(Name::Answer(of, _)) = piece
            && !(1..step).contains(&of)
        {
            return Err(format!("a name of step {of}, which does not come before"));
        }
    }
    Ok(())
}

/// Whether what stands under this name is secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word))
}

/// Calls with each text in a JSON value and the pointer to it.
pub(super) fn each_leaf(value: &Value, leaf: &mut impl FnMut(&str, &str)) {
    fn walk(value: &Value, pointer: &mut String, leaf: &mut impl FnMut(&str, &str)) {
        let length = pointer.len();
        match value {
            Value::String(text) => leaf(pointer, text),
            Value::Array(values) => {
                for (at, value) in values.iter().enumerate() {
                    pointer.push_str(&format!("/{at}"));
                    walk(value, pointer, leaf);
                    pointer.truncate(length);
                }
            }
            Value::Object(members) => {
                for (name, value) in members {
                    pointer.push_str(&format!("/{}", name.replace('~', "~0").replace('/', "~1")));
                    walk(value, pointer, leaf);
                    pointer.truncate(length);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    walk(value, &mut String::new(), leaf);
}

/// The same value with other texts. The first argument is the name of the innermost member.
pub(super) fn map_leaves(value: &Value, member: &str, map: &mut impl FnMut(&str, &str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(map(member, text)),
        Value::Array(values) => values.iter().map(|value| map_leaves(value, member, map)).collect(),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.clone(), map_leaves(value, name, map))).collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Values that answers have given, by themselves.
#[derive(Debug, Default)]
pub(super) struct Given(HashMap<String, String>);

impl Given {
    /// Remembers what an answer gave.
    pub(super) fn learn(&mut self, step: u64, answer: &Value) {
        each_leaf(answer, &mut |pointer, leaf| {
            if leaf.len() >= TELLING && self.0.len() < MOST && !pointer.contains(['}', '$']) {
                self.0.entry(leaf.to_owned()).or_insert_with(|| format!("${{{step}:{pointer}}}"));
            }
        });
    }

    /// The name of a value that was given.
    pub(super) fn name(&self, value: &str) -> Option<&str> {
        self.0.get(value).map(String::as_str)
    }
}
