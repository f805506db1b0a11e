//! `trust/revocations.json`: what is no longer accepted although its signature holds.
//!
//! A hundred thousand entries must cost a decision nothing, and a re-read little: as JSON members they are 5 MB, 30 MB of memory
//! and tens of milliseconds. So an entry is twelve bytes: the first eight of SHA-256 over `kind:value`, and the time as a
//! big-endian number of seconds; all of them, in ascending order, are one base64url text. `docs/formats/trust-objects.md` holds
//! the format and a known answer.

use std::collections::BTreeMap;
use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::TrustObject;
use crate::digest::sha256;
use crate::encoding::{base64url, from_base64url};
use crate::jwt::AccessToken;
use crate::name::Malformed;

/// The first bytes of an entry: which value of which kind it is of.
type Mark = [u8; 8];

const MARK: usize = 8;
const ENTRY: usize = 12;
const BAD: Malformed = Malformed("revocations");

/// What an entry is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Revoked {
    /// Every token of a subject.
    Subject,
    /// Every token of a session.
    Session,
    /// Every token of a client.
    Client,
    /// Every token of a tenant.
    Tenant,
    /// Every token of a device.
    Device,
    /// One token.
    Token,
}

impl Revoked {
    /// The claim's name, as rows and operations say it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "sub",
            Self::Session => "sid",
            Self::Client => "client_id",
            Self::Tenant => "tenant",
            Self::Device => "device",
            Self::Token => "jti",
        }
    }

    fn mark(self, value: &str) -> Mark {
        let digest = sha256(format!("{}:{value}", self.as_str()).as_bytes());
        let mut mark = [0; MARK];
        mark.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        mark
    }
}

/// Tokens, sessions, subjects, clients, tenants, devices and keys that are refused.
///
/// A value whose mark another value has by chance is refused with it: at 100,000 entries that happens to one token in 10^13.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revocations {
    /// Entries in ascending order, one after the other.
    entries: Vec<u8>,
    /// Keys whose tokens are all refused.
    kid: HashSet<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(default)]
    entries: &'a str,
    #[serde(default)]
    kid: HashSet<String>,
}

impl Revocations {
    /// The body of the object: entries with the second up to which tokens are refused (of a single token: any), and keys.
    pub fn body<'a>(entries: impl IntoIterator<Item = (Revoked, &'a str, i64)>, kid: &[&str]) -> Value {
        let mut marks: BTreeMap<Mark, u32> = BTreeMap::new();
        for (kind, value, until) in entries {
            let until = if kind == Revoked::Token { i64::from(u32::MAX) } else { until };
            let until = u32::try_from(until.max(0)).unwrap_or(u32::MAX);
            let held = marks.entry(kind.mark(value)).or_insert(until);
            *held = until.max(*held);
        }
        let bytes: Vec<u8> =
            marks.into_iter().flat_map(|(mark, until)| mark.into_iter().chain(until.to_be_bytes())).collect();
        json!({ "entries": base64url(&bytes), "kid": kid })
    }

    /// How many entries there are, keys not counted.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.kid.is_empty()
    }

    /// Whether the token is revoked.
    pub fn hits(&self, token: &AccessToken) -> bool {
        if self.kid.contains(&token.kid) {
            return true;
        }
        if self.entries.is_empty() {
            return false;
        }
        let issued = token.issued_at.seconds();
        let values = [
            (Revoked::Token, Some(token.jti.as_str())),
            (Revoked::Subject, Some(token.subject.as_str())),
            (Revoked::Client, Some(token.client_id.as_str())),
            (Revoked::Tenant, Some(token.tenant.as_str())),
            (Revoked::Session, token.session.as_deref()),
            (Revoked::Device, token.device.as_ref().map(|device| device.id.as_str())),
        ];
        let until = |(kind, value): (Revoked, Option<&str>)| self.find(kind.mark(value?));
        values.into_iter().filter_map(until).any(|until| issued <= i64::from(until))
    }

    fn find(&self, mark: Mark) -> Option<u32> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low.midpoint(high);
            let (found, until) = self.entry(middle)?;
            match found.cmp(&mark) {
                std::cmp::Ordering::Equal => return Some(until),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn entry(&self, at: usize) -> Option<(Mark, u32)> {
        let entry = self.entries.get(at * ENTRY..at * ENTRY + ENTRY)?;
        let (mark, until) = entry.split_first_chunk::<MARK>()?;
        Some((*mark, u32::from_be_bytes(until.try_into().ok()?)))
    }
}

impl TrustObject for Revocations {
    const KEY: &'static str = "trust/revocations.json";
    const FRESH: i64 = 5_000;
    const LAST_GOOD: i64 = 300_000;

    fn parse(body: &Value) -> Result<Self, Malformed> {
        // Serde would read `[]` as a structure with every member at its default, that is: nothing revoked.
        if !body.is_object() {
            return Err(BAD);
        }
        let Body { entries, kid } = Body::deserialize(body).map_err(|_| BAD)?;
        let entries = from_base64url(entries).ok_or(BAD)?;
        // A search in what is not in order finds nothing, which would be: nothing revoked.
        let marks = entries.chunks(ENTRY).map(|entry| entry.get(..MARK).unwrap_or_default());
        if !entries.len().is_multiple_of(ENTRY) || !marks.is_sorted_by(|one, next| one < next) {
            return Err(BAD);
        }
        Ok(Self { entries, kid })
    }
}
