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

/// An engine that nobody asks.
struct Mute;

impl Policies for Mute {
    fn compile(_: &shared::policy::Bundle) -> Result<Self, shared::policy::Unfit> {
        Ok(Self)
    }

    fn decide(&self, _: &Ask) -> shared::policy::Decision {
        shared::policy::Decision::error()
    }

    fn reads(&self) -> shared::policy::Reads {
        shared::policy::Reads::ALL
    }
}

/// No route of the document demands an assertion of everybody, so the document cannot show this.
#[tokio::test]
async fn a_route_that_demands_an_assertion_of_everybody_lets_no_machine_in_without_its_own() {
    let now = Timestamp::from_seconds(1_800_000_000);
    let (team, bucket) = (testkit::Team::new(), testkit::TrustBucket::default());
    team.publish(&bucket, now);
    let accepts = Accepts { issuer: "https://gate.example".into(), audience: "https://api.example".into() };
    let clock = testkit::FixedClock::at(now);
    let gate: Authorizer<Mute, _, _> = Authorizer::new(accepts, bucket, clock);
    let (own, other) = (team.service(ID, now), team.service(&ID.replace('e', "f"), now));
    let person = team.person(testkit::access::ADA, "ada@example.com", now, &serde_json::json!({}));
    for (what, registered, sent, access, passes) in [
        ("none is asked for", None, None, Access::ByToken, true),
        ("none is there", None, None, Access::Required, false),
        ("one of a service that is not registered", None, Some(&own), Access::Required, false),
        ("the registered one", Some(ID), Some(&own), Access::Required, true),
        ("the registered one, unasked", Some(ID), Some(&own), Access::ByToken, true),
        ("the registered one is not there", Some(ID), None, Access::Required, false),
        ("nor is it where the route does not ask", Some(ID), None, Access::ByToken, false),
        ("another one of the team", Some(ID), Some(&other), Access::Required, false),
        ("a person's", Some(ID), Some(&person), Access::Required, false),
    ] {
        let sent: Vec<&String> = sent.into_iter().collect();
        let event = serde_json::json!({"type": "REQUEST", "path": "/files/a", "resource": "/files/{id}", "httpMethod": "GET",
            "methodArn": "arn:aws:execute-api:us-east-1:111122223333:abc/v1/GET/files/a",
            "multiValueHeaders": {"Cf-Access-Jwt-Assertion": sent}, "requestContext": {"requestId": "r"}});
        let request = Request::parse(&event).unwrap();
        let vouched = gate.vouched(&request, &token(Kind::Machine, "c", registered), access).await;
        assert_eq!(vouched.is_ok(), passes, "{what}");
    }
}
