//! Which devices there are, by the keys that were made on them, and what was last known of each.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Value, json};

use super::TrustObject;
use crate::access::TIER;
use crate::device::Device;
use crate::jwt::AccessToken;
use crate::name::{Malformed, Tenant};

/// What stands in [`Device::source`] of a device that is in the list.
pub const LISTED: &str = "operator";
/// The most keys of one device.
pub const MOST_KEYS: usize = 8;

const BAD: Malformed = Malformed("posture");

/// `trust/posture.json`: `{"tenants": {"…": [{"device": {…}, "keys": ["…"]}]}}`. A device is one tenant's, and a key one device's of
/// the tenant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Posture(HashMap<String, HashMap<String, Arc<Device>>>);

impl Posture {
    /// The device of the tenant on which the key with this thumbprint was made.
    pub fn of_key(&self, tenant: &Tenant, thumbprint: &str) -> Option<&Arc<Device>> {
        self.0.get(tenant.as_str())?.get(thumbprint)
    }

    /// With which device a token is used: the one of its key. A key that is no longer in the list is on no device, whatever the token
    /// says of it, and by which application somebody comes is told by this request and not by the token. Of the list and the token the
    /// one counts that was looked at later, since either may have been read first.
    pub fn device(&self, token: &AccessToken) -> Option<Device> {
        let listed = token.thumbprint.as_deref().and_then(|key| self.of_key(&token.tenant, key));
        let said = token.device.as_ref();
        let listed = match listed {
            None => return said.filter(|device| device.source != LISTED && device.source != TIER).cloned(),
            Some(listed) => listed,
        };
        let newer = |said: &&Device| said.id == listed.id && said.checked_at > listed.checked_at;
        Some(said.filter(newer).unwrap_or(listed).clone())
    }

    fn read(body: &Value) -> Option<Self> {
        let members = body.as_object().filter(|members| members.len() == 1)?;
        let mut tenants = HashMap::new();
        for (tenant, listed) in members.get("tenants")?.as_object()? {
            Tenant::parse(tenant).ok()?;
            let (mut ids, mut keys) = (BTreeSet::new(), HashMap::new());
            for entry in listed.as_array()? {
                let members = entry.as_object().filter(|members| members.len() == 2)?;
                let device = Arc::new(Device::parse(members.get("device")?).ok()?);
                let listed = members.get("keys")?.as_array().filter(|keys| keys.len() <= MOST_KEYS)?;
                if !ids.insert(device.id.clone()) {
                    return None;
                }
                for key in listed {
                    let key = key.as_str().filter(|key| is_thumbprint(key))?.to_owned();
                    if keys.insert(key, Arc::clone(&device)).is_some() {
                        return None;
                    }
                }
            }
            tenants.insert(tenant.clone(), keys);
        }
        Some(Self(tenants))
    }
}

impl TrustObject for Posture {
    const KEY: &'static str = "trust/posture.json";
    const FRESH: i64 = 60_000;
    const LAST_GOOD: i64 = 3_600_000;

    fn parse(body: &Value) -> Result<Self, Malformed> {
        Self::read(body).ok_or(BAD)
    }
}

/// One device of the list, as it is published and stored.
pub fn entry(device: &Device, keys: &[String]) -> Value {
    json!({ "device": device.to_value(), "keys": keys })
}

/// Whether a text has the form of a key's thumbprint: SHA-256 (RFC 7638) in base64url.
pub fn is_thumbprint(text: &str) -> bool {
    text.len() == 43 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::details::Details;
    use crate::jwt::Kind;
    use crate::name::Groups;
    use crate::scope::Scopes;

    fn claim(id: &str, checked_at: i64) -> Value {
        json!({"id": id, "disk_encrypted": true, "source": LISTED, "checked_at": checked_at})
    }

    fn key(letter: char) -> String {
        letter.to_string().repeat(43)
    }

    fn list() -> Value {
        json!({"tenants": {
            "acme": [{"device": claim("laptop", 100), "keys": [key('a'), key('b')]}, {"device": claim("spare", 1), "keys": []}],
            "globex": [{"device": claim("laptop", 50), "keys": [key('a')]}],
        }})
    }

    fn token(thumbprint: Option<String>, device: Option<Value>) -> AccessToken {
        AccessToken {
            kid: "k".into(),
            subject: "s".into(),
            client_id: "c".into(),
            jti: "j".into(),
            issued_at: Timestamp::from_seconds(100),
            expires_at: Timestamp::from_seconds(400),
            scopes: Scopes::default(),
            tenant: Tenant::parse("acme").unwrap(),
            kind: Kind::Machine,
            session: None,
            groups: Groups::default(),
            thumbprint,
            device: device.map(|claim| Device::parse(&claim).unwrap()),
            service: None,
            details: Details::default(),
        }
    }

    #[test]
    fn a_device_is_known_by_its_key_and_to_its_tenant_alone() {
        let posture = Posture::parse(&list()).unwrap();
        let at = |device: Option<Device>| device.map(|device| (device.id, device.checked_at.seconds()));
        let found = |token: &AccessToken| at(posture.device(token));
        assert_eq!(found(&token(Some(key('a')), None)), Some(("laptop".into(), 100)));
        assert_eq!(found(&token(Some(key('b')), None)), Some(("laptop".into(), 100)));
        assert_eq!(found(&token(Some(key('c')), None)), None, "a key that nobody put on a device");
        assert_eq!(found(&token(None, None)), None, "a token that is bound to none");
        let globex = AccessToken { tenant: Tenant::parse("globex").unwrap(), ..token(Some(key('b')), None) };
        assert_eq!(found(&globex), None, "another tenant's device");
    }

    #[test]
    fn what_was_looked_at_later_counts_and_what_left_the_list_is_gone() {
        let posture = Posture::parse(&list()).unwrap();
        for (key, said, expected) in [
            (Some(key('a')), claim("laptop", 99), Some(100)),
            (Some(key('a')), claim("laptop", 101), Some(101)),
            (Some(key('a')), claim("other", 101), Some(100)),
            (Some(key('z')), claim("laptop", 101), None),
            (None, claim("laptop", 101), None),
        ] {
            let device = posture.device(&token(key.clone(), Some(said.clone())));
            assert_eq!(device.map(|device| device.checked_at.seconds()), expected, "{key:?} {said}");
        }
        let mut as_old = claim("laptop", 100);
        as_old["disk_encrypted"] = json!(false);
        let device = posture.device(&token(Some(key('a')), Some(as_old)));
        assert_eq!(device.unwrap().disk_encrypted, Some(true), "of two that are equally old the list's counts");
        for (source, id) in [("another", Some("d")), (TIER, None), (LISTED, None)] {
            let said = json!({"id": "d", "source": source, "checked_at": 7});
            assert_eq!(posture.device(&token(None, Some(said))).map(|device| device.id).as_deref(), id, "{source}");
        }
    }

    #[test]
    fn a_list_of_another_shape_is_refused_as_a_whole() {
        assert!(Posture::parse(&json!({"tenants": {}})).is_ok());
        let device = Device::parse(&claim("laptop", 100)).unwrap();
        assert_eq!(entry(&device, &[key('a'), key('b')]), list()["tenants"]["acme"][0]);
        let with = |pointer: &str, value: Value| {
            let mut list = list();
            *list.pointer_mut(pointer).unwrap() = value;
            list
        };
        for list in [
            json!(null),
            json!([]),
            json!({}),
            json!({"tenants": []}),
            json!({"tenants": {}, "more": 1}),
            json!({"tenants": {"Acme": []}}),
            with("/tenants/acme", json!({})),
            with("/tenants/acme/0", json!([claim("d", 1), []])),
            with("/tenants/acme/0/device/id", json!("spare")),
            with("/tenants/acme/0/device/id", json!("-")),
            with("/tenants/acme/0/device/checked_at", json!("100")),
            with("/tenants/acme/0/keys", json!({})),
            with("/tenants/acme/0/keys/1", json!(key('a'))),
            with("/tenants/acme/1/keys", json!([key('b')])),
            with("/tenants/acme/0/keys/1", json!("short")),
            with("/tenants/acme/0/keys/1", json!(format!("{}=", "a".repeat(42)))),
            with("/tenants/acme/0/keys", (0..9).map(|n| json!(n.to_string().repeat(43))).collect()),
            json!({"tenants": {"acme": [{"device": claim("d", 1), "keys": [], "note": "x"}]}}),
        ] {
            assert!(Posture::parse(&list).is_err(), "{list}");
        }
    }
}
