//! Answers that were given, so that the same question need not be evaluated again.

use std::sync::Arc;

use shared::device::Device;
use shared::jwt::Kind;
use shared::policy::{Ask, Decision, Invoke, Mint, Net, Principal, Reads, Reason, What};
use shared::recent::{Bounds, Recent};

/// Of each of the two generations: together 1 MB at the most.
const BOUNDS: Bounds = Bounds { entries: 1_024, bytes: 512 * 1024 };
/// What an entry takes beside its key.
const BESIDE: usize = 256;

/// Answers of one compiled bundle. An evaluation depends on the question and the policies alone, and another bundle is compiled anew with
/// nothing known: an answer is found again only for a question that is the same in every member that a policy which could apply looks at.
pub(crate) struct Known(Recent<Vec<u8>, Arc<Decision>>);

impl Known {
    pub(crate) fn new() -> Self {
        Self(Recent::new(BOUNDS))
    }

    pub(crate) fn find(&self, key: &[u8]) -> Option<Decision> {
        self.0.find(key).map(|decision| Decision::clone(&decision))
    }

    /// Keeps an answer. What failed is asked again: nobody should have to wait for a failure to be forgotten.
    pub(crate) fn keep(&self, key: Vec<u8>, decision: &Decision) {
        if matches!(decision.reason, Reason::Permitted | Reason::NotPermitted | Reason::Forbidden) {
            let named = decision.policies.iter().map(String::len).sum::<usize>();
            let bytes = BESIDE + key.len() + named;
            self.0.keep(key, Arc::new(decision.clone()), bytes);
        }
    }
}

/// All members of a question, one after the other and none mistakable for two, without those that no policy looks at and that move:
/// the time and a token's age, the network, the device.
///
/// Every member is named here, so that one more cannot be forgotten.
pub(crate) fn key(ask: &Ask, reads: Reads) -> Vec<u8> {
    let Ask { principal: Principal { kind, id, tenant, groups }, now, net, device, what } = ask;
    let mut key = Key(Vec::with_capacity(512));
    key.flag(*kind == Kind::Human);
    key.texts([id, tenant]);
    key.list(groups);
    let age = match what {
        What::Invoke(invoke) => {
            let Invoke { action, method, path, iss, client_id, scopes, age, bound, details, sid } = invoke;
            key.flag(false);
            key.texts([action, method, path, iss, client_id]);
            key.list(scopes);
            key.flag(*bound);
            key.flag(*details);
            key.option(sid.as_ref(), Key::text);
            *age
        }
        What::Mint(mint) => {
            let Mint { audience, grant, issuer, client_id, scopes, ttl, bound, details } = mint;
            key.flag(true);
            key.texts([audience, grant, issuer, client_id]);
            key.list(scopes);
            key.number(*ttl);
            key.flag(*bound);
            key.flag(*details);
            0
        }
    };
    key.option(reads.time.then_some(&[*now, age]), |key, [now, age]| {
        key.number(*now);
        key.number(*age);
    });
    key.option(Some(net).filter(|_| reads.net), |key, net| key.option(net.as_ref(), Key::net));
    key.option(Some(device).filter(|_| reads.device), |key, device| key.option(device.as_ref(), Key::device));
    key.0
}

struct Key(Vec<u8>);

impl Key {
    fn text(&mut self, text: &String) {
        self.0.extend(text.len().to_be_bytes());
        self.0.extend(text.as_bytes());
    }

    fn texts<const N: usize>(&mut self, texts: [&String; N]) {
        for text in texts {
            self.text(text);
        }
    }

    fn list(&mut self, texts: &[String]) {
        self.0.extend(texts.len().to_be_bytes());
        for text in texts {
            self.text(text);
        }
    }

    fn flag(&mut self, flag: bool) {
        self.0.push(u8::from(flag));
    }

    fn number(&mut self, number: i64) {
        self.0.extend(number.to_be_bytes());
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.flag(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn net(&mut self, net: &Net) {
        let Net { ip, country } = net;
        self.text(&ip.to_string());
        self.option(country.as_ref(), Self::text);
    }

    fn device(&mut self, device: &Device) {
        let Device { id, managed, os, os_version, disk_encrypted, firewall, source, checked_at } = device;
        self.texts([id, source]);
        for known in [managed, disk_encrypted, firewall] {
            self.option(known.as_ref(), |key, known| key.flag(*known));
        }
        for known in [os, os_version] {
            self.option(known.as_ref(), Self::text);
        }
        self.number(checked_at.seconds());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(device: Option<Device>, principal: Principal) -> Ask {
        let invoke = Invoke {
            action: "files:read".into(),
            method: "GET".into(),
            path: "/files/{id}".into(),
            iss: "https://gate.example".into(),
            client_id: "c".into(),
            scopes: vec!["files:read".into()],
            age: 10,
            bound: false,
            details: false,
            sid: None,
        };
        let net = Some(Net { ip: [198, 51, 100, 7].into(), country: None });
        Ask { principal, now: 1_800_000_000, net, device, what: What::Invoke(invoke) }
    }

    fn principal(id: &str, tenant: &str, groups: &[&str]) -> Principal {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        Principal { kind: Kind::Human, id: id.into(), tenant: tenant.into(), groups }
    }

    #[test]
    fn no_two_questions_are_taken_for_one() {
        let asks = [
            ask(None, principal("ab", "c", &[])),
            ask(None, principal("a", "bc", &[])),
            ask(None, principal("a", "b", &["c"])),
            ask(None, principal("a", "b", &["c", ""])),
            ask(None, principal("a", "b", &["", "c"])),
            ask(None, principal("", "", &[])),
        ];
        let keys: Vec<_> = asks.iter().map(|ask| key(ask, Reads::ALL)).collect();
        for (at, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(at + 1).all(|other| one != other), "{at}");
        }
    }

    #[test]
    fn no_two_tokens_are_taken_for_one() {
        let mint = |change: fn(&mut Mint)| {
            let mut mint = Mint {
                audience: "https://api.example".into(),
                grant: "client_credentials".into(),
                issuer: "own".into(),
                client_id: "c".into(),
                scopes: vec!["files:read".into()],
                ttl: 300,
                bound: false,
                details: false,
            };
            change(&mut mint);
            Ask { what: What::Mint(mint), ..ask(None, principal("a", "b", &[])) }
        };
        let asks = [
            mint(|_| ()),
            mint(|mint| mint.audience.push('x')),
            mint(|mint| mint.grant = "refresh_token".into()),
            mint(|mint| mint.issuer = "access".into()),
            mint(|mint| mint.client_id.clear()),
            mint(|mint| mint.scopes.clear()),
            mint(|mint| mint.scopes.push("app".into())),
            mint(|mint| mint.ttl = 299),
            mint(|mint| mint.bound = true),
            mint(|mint| mint.details = true),
            ask(None, principal("a", "b", &[])),
        ];
        let keys: Vec<_> = asks.iter().map(|ask| key(ask, Reads::default())).collect();
        for (at, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(at + 1).all(|other| one != other), "{at}");
        }
    }

    #[test]
    fn what_no_policy_looks_at_makes_no_other_question_and_everything_else_does() {
        let asked = || ask(None, principal("a", "b", &[]));
        let mut moved = asked();
        moved.now += 1;
        moved.net = None;
        if let What::Invoke(invoke) = &mut moved.what {
            invoke.age += 1;
        }
        let nothing = Reads::default();
        assert_eq!(key(&asked(), nothing), key(&moved, nothing));
        for reads in [Reads { time: true, ..nothing }, Reads { net: true, ..nothing }] {
            assert_ne!(key(&asked(), reads), key(&moved, reads), "{reads:?}");
        }
    }
}
