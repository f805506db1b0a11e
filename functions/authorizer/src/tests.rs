use shared::access::{Person, Service};
use shared::clock::Timestamp;
use shared::details::Details;
use shared::name::{Groups, IssuerId, Tenant};
use shared::scope::Scopes;

use super::*;

const ID: &str = "e367826f93b8d71185e03fe518aff3b4.access";

fn token(kind: Kind, subject: &str, service: Option<&str>) -> AccessToken {
    AccessToken {
        kid: "k".into(),
        subject: subject.into(),
        client_id: "c".into(),
        jti: "j".into(),
        issued_at: Timestamp::from_seconds(100),
        expires_at: Timestamp::from_seconds(400),
        scopes: Scopes::default(),
        tenant: Tenant::parse("acme").unwrap(),
        kind,
        session: None,
        groups: Groups::default(),
        thumbprint: None,
        device: None,
        service: service.map(str::to_owned),
        details: Details::default(),
    }
}

fn issuer() -> IssuerId {
    IssuerId::parse("access").unwrap()
}

fn person(subject: &str) -> Assertion {
    Assertion::Person(Person {
        issuer: issuer(),
        iss: "https://team.cloudflareaccess.com".into(),
        subject: subject.into(),
        email: "ada@example.com".into(),
        managed: false,
        groups: Vec::new(),
        issued_at: Timestamp::from_seconds(100),
        expires_at: Timestamp::from_seconds(400),
    })
}

fn service(name: &str) -> Assertion {
    Assertion::Service(Service { issuer: issuer(), common_name: name.into(), expires_at: Timestamp::from_seconds(400) })
}

#[test]
fn both_credentials_agree_for_machines_as_for_people() {
    let other = ID.replace('e', "f");
    for (what, token, assertion, agreed) in [
        ("the same person", token(Kind::Human, "access|7335d417", None), person("7335d417"), true),
        ("another person", token(Kind::Human, "access|7335d417", None), person("7335d418"), false),
        ("a person's token beside a service", token(Kind::Human, "access|7335d417", None), service(ID), false),
        ("the machine's own service token", token(Kind::Machine, "c", Some(ID)), service(ID), true),
        ("another service token of the team", token(Kind::Machine, "c", Some(ID)), service(&other), false),
        ("a machine that is registered with none", token(Kind::Machine, "c", None), service(ID), false),
        ("a machine beside a person", token(Kind::Machine, "c", Some(ID)), person("c"), false),
        ("a machine named like a person", token(Kind::Machine, "access|7335d417", None), person("7335d417"), false),
    ] {
        assert_eq!(agrees(&token, &assertion), agreed, "{what}");
    }
}

#[test]
fn a_header_that_could_pass_for_the_gates_own_is_reserved() {
    for name in ["X-Portcullis-Subject", "x_portcullis_subject", "X-PORTCULLIS-Role", "X_Forwarded_User", "remote_user"]
    {
        assert!(is_reserved(name), "{name}");
    }
    for name in ["Authorization", "X-Forwarded-User", "x-custom_header", "X-Portcullis", "Cf-Access-Jwt-Assertion"] {
        assert!(!is_reserved(name), "{name}");
    }
}

#[test]
fn every_name_that_the_gateway_writes_over_is_known_here() {
    let yaml = include_str!("../../../infra/aws/app.yaml");
    let written = yaml.split("integration.request.header.").skip(1).filter_map(|rest| rest.split(':').next());
    let mut written: Vec<String> = written.map(str::to_ascii_lowercase).collect();
    written.retain(|name| !name.starts_with("x-portcullis-"));
    written.sort();
    let mut known = IDENTITY.to_vec();
    known.sort_unstable();
    assert_eq!(written, known);
}
