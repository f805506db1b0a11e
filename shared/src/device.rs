//! What a token says of the device it was issued on: the claim `device`.

use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::name::Malformed;

/// The longest claim, in bytes of its JSON text.
pub const MAX_LENGTH: usize = 400;

/// A device and what was known of it when somebody looked. What nobody knew is absent, never a guess.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its id at whoever manages it; revocations name it.
    pub id: String,
    /// Whether it is managed.
    pub managed: Option<bool>,
    /// The operating system's name.
    pub os: Option<String>,
    /// The operating system's version, as it was reported.
    pub os_version: Option<String>,
    /// Whether its disk is encrypted.
    pub disk_encrypted: Option<bool>,
    /// Whether its firewall is on.
    pub firewall: Option<bool>,
    /// Who said so.
    pub source: String,
    /// When it was looked at.
    pub checked_at: Timestamp,
}

const MEMBERS: [&str; 8] = ["id", "managed", "os", "os_version", "disk_encrypted", "firewall", "source", "checked_at"];
const BAD: Malformed = Malformed("device");
/// 9999-12-31T23:59:59Z
const MAX_DATE: i64 = 253_402_300_799;

impl Device {
    /// Reads the claim. `id`, `source` and `checked_at` must be there; a member that nobody knows, another type than the
    /// member's, and a claim over [`MAX_LENGTH`] are refused.
    pub fn parse(claim: &Value) -> Result<Self, Malformed> {
        let members = claim.as_object().ok_or(BAD)?;
        if members.keys().any(|name| !MEMBERS.contains(&name.as_str())) || claim.to_string().len() > MAX_LENGTH {
            return Err(BAD);
        }
        let checked_at = members.get("checked_at").and_then(Value::as_i64).filter(|at| (0..=MAX_DATE).contains(at));
        Ok(Self {
            id: text(members, "id")?.filter(|id| is_id(id)).ok_or(BAD)?,
            managed: flag(members, "managed")?,
            os: text(members, "os")?,
            os_version: text(members, "os_version")?,
            disk_encrypted: flag(members, "disk_encrypted")?,
            firewall: flag(members, "firewall")?,
            source: text(members, "source")?.ok_or(BAD)?,
            checked_at: Timestamp::from_seconds(checked_at.ok_or(BAD)?),
        })
    }

    /// The claim.
    pub fn to_value(&self) -> Value {
        let mut claim = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                claim.insert(name.to_owned(), value);
            }
        };
        put("id", Some(json!(self.id)));
        put("managed", self.managed.map(Value::Bool));
        put("os", self.os.as_ref().map(|os| json!(os)));
        put("os_version", self.os_version.as_ref().map(|version| json!(version)));
        put("disk_encrypted", self.disk_encrypted.map(Value::Bool));
        put("firewall", self.firewall.map(Value::Bool));
        put("source", Some(json!(self.source)));
        put("checked_at", Some(json!(self.checked_at.seconds())));
        Value::Object(claim)
    }
}

/// Whether a text is the id of a device: `[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}`. It travels in header fields and in revocations.
pub fn is_id(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"._:@/+=-".contains(&b);
    text.len() <= 128 && text.bytes().all(fits) && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

fn text(members: &Map<String, Value>, name: &str) -> Result<Option<String>, Malformed> {
    let Some(value) = members.get(name) else { return Ok(None) };
    let fits = |text: &&str| (1..=128).contains(&text.len()) && !text.chars().any(char::is_control);
    value.as_str().filter(fits).map(|text| Some(text.to_owned())).ok_or(BAD)
}

fn flag(members: &Map<String, Value>, name: &str) -> Result<Option<bool>, Malformed> {
    members.get(name).map(|value| value.as_bool().ok_or(BAD)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Value {
        json!({"id": "d-1", "managed": true, "os": "macOS", "os_version": "15.6.1", "disk_encrypted": true,
            "firewall": false, "source": "cloudflare", "checked_at": 1_800_000_000})
    }

    #[test]
    fn a_device_prints_as_it_was_read() {
        for claim in [whole(), json!({"id": "d-1", "source": "access-tier", "checked_at": 0})] {
            assert_eq!(Device::parse(&claim).unwrap().to_value(), claim);
        }
        let known = Device::parse(&whole()).unwrap();
        assert_eq!(
            (known.managed, known.firewall, known.checked_at.seconds()),
            (Some(true), Some(false), 1_800_000_000)
        );
        let little = Device::parse(&json!({"id": "d", "source": "s", "checked_at": 1})).unwrap();
        assert_eq!((little.managed, little.os), (None, None), "absent is not false");
    }

    #[test]
    fn a_claim_of_another_shape_is_refused() {
        for (member, value) in [
            ("id", json!("")),
            ("id", json!(1)),
            ("id", json!(null)),
            ("id", json!("d\n1")),
            ("id", json!("d 1")),
            ("id", json!("-")),
            ("id", json!("dé")),
            ("id", json!("d".repeat(129))),
            ("managed", json!("true")),
            ("managed", json!(null)),
            ("os", json!(1)),
            ("os", json!("")),
            ("os", json!("mac\nOS")),
            ("os", json!("x".repeat(129))),
            ("os_version", json!(15)),
            ("disk_encrypted", json!(1)),
            ("source", json!(["a"])),
            ("checked_at", json!("1800000000")),
            ("checked_at", json!(1.5)),
            ("checked_at", json!(-1)),
            ("checked_at", json!(253_402_300_800_i64)),
            ("risk", json!(3)),
        ] {
            let mut claim = whole();
            claim[member] = value.clone();
            assert!(Device::parse(&claim).is_err(), "{member} {value}");
        }
        for member in ["id", "source", "checked_at"] {
            let mut claim = whole();
            claim.as_object_mut().unwrap().remove(member);
            assert!(Device::parse(&claim).is_err(), "without {member}");
        }
        let mut long = whole();
        for member in ["id", "os", "os_version"] {
            long[member] = json!("x".repeat(120));
        }
        assert!(Device::parse(&long).is_err(), "over 400 B");
        let over = long.to_string().len() - MAX_LENGTH;
        long["os_version"] = json!("x".repeat(120 - over));
        assert!(Device::parse(&long).is_ok(), "400 B");
        long["os_version"] = json!("x".repeat(121 - over));
        assert!(Device::parse(&long).is_err(), "401 B");
        for claim in [json!("d"), json!([]), json!({})] {
            assert!(Device::parse(&claim).is_err());
        }
    }
}
