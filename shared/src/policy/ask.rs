//! The questions that policy answers. As JSON they stand in a bundle's examples and in the decision log.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::http::Headers;
use crate::jwt::{AccessToken, Kind};
use crate::scope::{Scopes, operation_of};

/// One question.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    /// Who.
    pub principal: Principal,
    /// When, in seconds since the epoch.
    pub now: i64,
    /// From where, as far as the edge said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub net: Option<Net>,
    /// With which device.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "claim")]
    pub device: Option<Device>,
    /// What is to be done.
    pub what: What,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// A route is to be called.
    Invoke(Invoke),
    /// A token is to be issued.
    Mint(Mint),
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Principal {
    /// `machine` or `human`.
    pub kind: Kind,
    /// `sub`
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// Groups of the tenant; humans only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
}

/// A route is to be called with a token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invoke {
    /// The route's action.
    pub action: String,
    /// The route's method; of a route for every method the request's.
    pub method: String,
    /// The route's template.
    pub path: String,
    /// `iss`
    pub iss: String,
    /// `client_id`
    pub client_id: String,
    /// `scope`
    pub scopes: Vec<String>,
    /// Seconds since the token was issued.
    pub age: i64,
    /// Whether the token is bound to a key.
    pub bound: bool,
    /// Whether the token is narrowed by `authorization_details`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub details: bool,
    /// `sid`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
}

/// A token is to be issued.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mint {
    /// `aud`
    pub audience: String,
    /// The grant type.
    pub grant: String,
    /// Who vouched: an issuer's id, or `own` where a key registered here did.
    pub issuer: String,
    /// `client_id`
    pub client_id: String,
    /// `scope`
    pub scopes: Vec<String>,
    /// The life asked for, in seconds.
    pub ttl: i64,
    /// Whether the token is to be bound to a key.
    pub bound: bool,
    /// Whether it is to be narrowed by `authorization_details`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub details: bool,
}

/// Where a request comes from, in the words of the edge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// The address, in its canonical form.
    pub ip: IpAddr,
    /// The country, two capitals or digits; absent where the edge does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
}

impl Net {
    /// From `CF-Connecting-IP` and `CF-IPCountry`, which are believable because nothing but the tunnel reaches us. `None` where
    /// the address is absent, there twice, or none.
    pub fn of(headers: &Headers) -> Option<Self> {
        let one = |name| {
            let mut values = headers.all(name);
            values.next().filter(|_| values.next().is_none())
        };
        let ip: IpAddr = one("cf-connecting-ip")?.parse().ok()?;
        let is_country =
            |text: &&str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        // XX is the edge's word for not knowing.
        let country = one("cf-ipcountry").filter(is_country).filter(|text| *text != "XX").map(str::to_owned);
        Some(Self { ip: ip.to_canonical(), country })
    }
}

impl Principal {
    /// The subject of a verified token.
    pub fn of(token: &AccessToken) -> Self {
        Self {
            kind: token.kind,
            id: token.subject.clone(),
            tenant: token.tenant.as_str().to_owned(),
            groups: token.groups.iter().map(str::to_owned).collect(),
        }
    }
}

impl Ask {
    /// The scopes of the question, of column scopes only the operation, without repeats.
    pub fn operations(&self) -> Vec<&str> {
        let scopes = match &self.what {
            What::Invoke(invoke) => &invoke.scopes,
            What::Mint(mint) => &mint.scopes,
        };
        let mut operations = Vec::new();
        for operation in scopes.iter().map(|scope| operation_of(scope)) {
            if !operations.contains(&operation) {
                operations.push(operation);
            }
        }
        operations
    }
}

/// Scopes as questions carry them.
pub(crate) fn listed(scopes: &Scopes) -> Vec<String> {
    scopes.iter().map(str::to_owned).collect()
}

impl Invoke {
    /// A route called with a verified token.
    pub fn of(token: &AccessToken, iss: &str, route: (&str, &str, &str), now: i64) -> Self {
        let (action, method, path) = route;
        Self {
            action: action.to_owned(),
            method: method.to_owned(),
            path: path.to_owned(),
            iss: iss.to_owned(),
            client_id: token.client_id.clone(),
            scopes: listed(&token.scopes),
            age: now.saturating_sub(token.issued_at.seconds()),
            bound: token.thumbprint.is_some(),
            details: !token.details.is_empty(),
            sid: token.session.clone(),
        }
    }
}

/// A device in the form of the claim.
mod claim {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use serde_json::Value;

    use crate::device::Device;

    pub(super) fn serialize<S: Serializer>(device: &Option<Device>, serializer: S) -> Result<S::Ok, S::Error> {
        device.as_ref().map(Device::to_value).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Device>, D::Error> {
        let claim = Option::<Value>::deserialize(deserializer)?;
        claim.map(|claim| Device::parse(&claim).map_err(D::Error::custom)).transpose()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(fields: &[(&str, &str)]) -> Option<Net> {
        Net::of(&fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn the_address_is_one_address_or_unknown() {
        let known = net(&[("CF-Connecting-IP", "2001:DB8::1"), ("cf-ipcountry", "PT")]).unwrap();
        assert_eq!((known.ip.to_string().as_str(), known.country.as_deref()), ("2001:db8::1", Some("PT")));
        let mapped = net(&[("cf-connecting-ip", "::ffff:198.51.100.7"), ("cf-ipcountry", "XX")]).unwrap();
        assert_eq!((mapped.ip.to_string().as_str(), mapped.country), ("198.51.100.7", None));
        for fields in [
            &[][..],
            &[("cf-ipcountry", "PT")],
            &[("cf-connecting-ip", "")],
            &[("cf-connecting-ip", "198.51.100.7, 10.0.0.1")],
            &[("cf-connecting-ip", "198.51.100.7"), ("CF-Connecting-IP", "10.0.0.1")],
            &[("cf-connecting-ip", "198.51.100.0/24")],
            &[("cf-connecting-ip", "fe80::1%eth0")],
            &[("x-forwarded-for", "198.51.100.7")],
        ] {
            assert_eq!(net(fields), None, "{fields:?}");
        }
        for country in ["pt", "PRT", "", "P", "P\"", "ÄÖ"] {
            let net = net(&[("cf-connecting-ip", "198.51.100.7"), ("cf-ipcountry", country)]).unwrap();
            assert_eq!(net.country, None, "{country}");
        }
    }
}
