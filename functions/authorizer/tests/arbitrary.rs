//! What nobody thought of: events, tokens, proofs and trust objects with arbitrary parts. Nothing panics, nobody passes by luck, and who passes, passes
//! on one route.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers outside of #[test] functions; a test may fail loudly"
)]

use authorizer::Authorizer;
use cedar::Cedar;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use shared::boot::{Failure, Handler as _, Invocation};
use shared::clock::Timestamp;
use shared::digest::sha256;
use shared::encoding::base64url;
use shared::issuer::Profiles;
use shared::policy::Published;
use shared::trust::{Accepts, Envelope, OwnKeys, Posture, Revocations, TrustObject};
use testkit::issuer::{AUDIENCE, ISSUER, shipped_policies};
use testkit::{FixedClock, Issuer, TrustBucket};
use tokio::runtime::Runtime;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const API: &str = "arn:aws:execute-api:us-east-1:111122223333:abcdef123";
const FILE: &str = "/files/0198e1a0-0000-7000-8000-00000000000a";

struct World {
    issuer: Issuer,
    holder: Issuer,
    bucket: TrustBucket,
}

impl World {
    fn new() -> Self {
        let (issuer, bucket) = (Issuer::new("k1"), TrustBucket::default());
        issuer.publish(&bucket, NOW);
        Self { issuer, holder: Issuer::new("h1"), bucket }
    }

    /// What an environment of its own answers.
    fn ask(&self, runtime: &Runtime, event: Value) -> Result<Value, Failure> {
        let accepts = Accepts { issuer: ISSUER.into(), audience: AUDIENCE.into() };
        let authorizer = Authorizer::<Cedar, _, _>::new(accepts, self.bucket.clone(), FixedClock::at(NOW));
        let invocation = Invocation { request_id: "r".into(), deadline: NOW, function_arn: String::new() };
        runtime.block_on(authorizer.handle(event, &invocation))
    }

    fn events(&self) -> Vec<Value> {
        let (token, app) = (self.issuer.token(NOW, &json!({})), self.issuer.token(NOW, &json!({"scope": "app"})));
        let bound = self.issuer.token(NOW, &json!({"cnf": {"jkt": self.holder.thumbprint()}}));
        let ath = json!({"ath": base64url(&sha256(bound.as_bytes()))});
        let proof = self.holder.proof("GET", FILE, "p1", NOW, &ath);
        let bearer = format!("Bearer {token}");
        vec![
            json!({"type": "REQUEST", "methodArn": format!("{API}/v1/GET{FILE}"), "resource": "/files/{id}", "path": FILE,
                "httpMethod": "GET", "multiValueHeaders": {"Authorization": [bearer]}, "requestContext": {"requestId": "g"}}),
            json!({"type": "REQUEST", "methodArn": format!("{API}/v1/GET{FILE}"), "resource": "/files/{id}", "path": FILE,
                "httpMethod": "GET", "multiValueHeaders": {"Authorization": [format!("DPoP {bound}")], "DPoP": [proof]},
                "requestContext": {"requestId": "g"}}),
            json!({"version": "2.0", "routeArn": format!("{API}/$default/GET{FILE}"), "routeKey": "GET /files/{id}", "rawPath": FILE,
                "headers": {"authorization": bearer}, "requestContext": {"http": {"method": "GET"}, "requestId": "g"}}),
            json!({"type": "TOKEN", "methodArn": format!("{API}/v1/GET{FILE}"), "authorizationToken": bearer}),
            json!({"type": "REQUEST", "methodArn": format!("{API}/v1/$connect"), "multiValueHeaders": {"Authorization": [format!("Bearer {app}")]},
                "requestContext": {"routeKey": "$connect", "eventType": "CONNECT", "requestId": "g"}}),
        ]
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Any JSON, now and then with words that mean something here.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("REQUEST"),
        Just("TOKEN"),
        Just("2.0"),
        Just("CONNECT"),
        Just("$connect"),
        Just("GET"),
        Just("ANY"),
        Just("*"),
        Just("/files/{id}"),
        Just("/app/{proxy+}"),
        Just("/files/*"),
        Just("Bearer x.y.z"),
        Just("${aws:username}"),
        Just("..")
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map("[a-zA-Z$-]{0,12}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a value.
fn places(value: &Value) -> Vec<String> {
    fn walk(value: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        match value {
            Value::Object(members) => {
                for (name, inner) in members {
                    walk(inner, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), all);
                }
            }
            Value::Array(items) => {
                for (index, inner) in items.iter().enumerate() {
                    walk(inner, &format!("{at}/{index}"), all);
                }
            }
            _ => {}
        }
    }
    let mut all = Vec::new();
    walk(value, "", &mut all);
    all
}

/// The value with another thing at one place.
fn changed(value: &Value, place: &Index, with: Value) -> Value {
    let (mut value, all) = (value.clone(), places(value));
    let place: &String = place.get(&all);
    *value.pointer_mut(place).unwrap() = with;
    value
}

fn allows(answer: &Result<Value, Failure>) -> bool {
    let effect = |answer: &Value| {
        answer["policyDocument"]["Statement"][0]["Effect"] == "Allow" || answer["isAuthorized"] == true
    };
    answer.as_ref().is_ok_and(effect)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn an_event_without_a_credential_passes_in_no_form(event in anything()) {
        prop_assert!(!allows(&World::new().ask(&runtime(), event)));
    }

    #[test]
    fn an_arbitrary_trust_object_is_refused_and_harms_nobody(bytes in vec(any::<u8>(), 0..200), body in anything()) {
        let _ = Envelope::open(&bytes);
        prop_assert!(Posture::parse(&body).is_err() || body.get("tenants").is_some());
        prop_assert!(Published::<Cedar>::parse(&body).is_err());
        prop_assert!(OwnKeys::parse(&body).is_err());
        prop_assert!(Profiles::parse(&body).is_err() || body.get("profiles").is_some());
        let _ = Revocations::parse(&body);
    }

    #[test]
    fn a_bundle_with_one_thing_changed_is_the_same_or_none(place in any::<Index>(), with in anything()) {
        let good = shipped_policies();
        let other = changed(&good, &place, with);
        // The hash is the bundle's: what says another thing is another bundle, and this one is refused. A candidate that is none is left out.
        if let Ok(read) = Published::<Cedar>::parse(&other) {
            prop_assert_eq!(&read.active.hash, good["active"]["hash"].as_str().unwrap());
            prop_assert!(read.candidate.is_none());
        }
    }
}

// Each case loads the policies anew, so that no proof was seen before.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_else_stands_in_an_event_who_passes_passes_on_one_route(
        shape in any::<Index>(), places in vec((any::<Index>(), anything()), 1..4)
    ) {
        let world = World::new();
        let events = world.events();
        let mut event = shape.get(&events).clone();
        prop_assert!(allows(&world.ask(&runtime(), event.clone())), "unchanged it passes: {event}");
        for (place, with) in places {
            event = changed(&event, &place, with);
        }
        let answer = world.ask(&runtime(), event.clone());
        if let (true, Ok(answer)) = (allows(&answer), &answer) && answer.get("policyDocument").is_some() {
            let resources = answer["policyDocument"]["Statement"][0]["Resource"].as_array().unwrap();
            prop_assert_eq!(resources.len(), 1);
            let resource = resources[0].as_str().unwrap();
            let plain = !resource.contains(['*', '?', '{']) && (!resource.contains("${"));
            prop_assert!(plain && resource.starts_with("arn:aws:execute-api:"), "{} {}", resource, event);
        }
    }

    #[test]
    fn a_token_or_proof_with_one_byte_changed_passes_nowhere(
        shape in any::<Index>(), at in any::<Index>(), byte in 0x21_u8..0x7f, of_proof in any::<bool>()
    ) {
        let world = World::new();
        let events = world.events();
        let mut event = shape.get(&events).clone();
        let places = ["/multiValueHeaders/DPoP/0", "/multiValueHeaders/Authorization/0", "/headers/authorization", "/authorizationToken"];
        let place = places.into_iter().skip(usize::from(!of_proof)).find(|place| event.pointer(place).is_some()).unwrap();
        let text = event.pointer(place).unwrap().as_str().unwrap().to_owned();
        let mut bytes = text.clone().into_bytes();
        // The scheme may be spelt in any letters.
        let start = text.find(' ').map_or(0, |space| space + 1);
        let at = start + at.index(bytes.len() - start);
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        *event.pointer_mut(place).unwrap() = Value::from(String::from_utf8(bytes).unwrap());
        prop_assert!(!allows(&world.ask(&runtime(), event)), "{} at {}", place, at);
    }
}
