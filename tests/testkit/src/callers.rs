//! Callers who were admitted.

use shared::clock::Timestamp;
use shared::details::Details;
use shared::device::Device;
use shared::gate::Caller;
use shared::jwt::Kind;
use shared::name::Tenant;
use shared::scope::Scopes;

/// A machine of `tenant`, whose client id is its subject, with a token that ends after 300 s.
pub fn machine(tenant: &str, subject: &str, scopes: &str, now: Timestamp) -> Caller {
    Caller {
        tenant: Tenant::parse(tenant).unwrap(),
        subject: subject.to_owned(),
        client_id: subject.to_owned(),
        jti: "j".to_owned(),
        scopes: Scopes::parse(scopes).unwrap(),
        details: Details::default(),
        kind: Kind::Machine,
        session: None,
        device: None,
        expires_at: now.plus_seconds(300),
    }
}

/// A person of `tenant` in session `s-1`, on the managed device `d-1`, who came with the client `page`.
pub fn person(tenant: &str, subject: &str, scopes: &str, now: Timestamp) -> Caller {
    let device = Device {
        id: "d-1".to_owned(),
        managed: Some(true),
        os: Some("linux".to_owned()),
        os_version: None,
        disk_encrypted: Some(true),
        firewall: None,
        source: "cloudflare".to_owned(),
        checked_at: now.plus_seconds(-60),
    };
    Caller {
        client_id: "page".to_owned(),
        kind: Kind::Human,
        session: Some("s-1".to_owned()),
        device: Some(device),
        ..machine(tenant, subject, scopes, now)
    }
}
