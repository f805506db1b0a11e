//! What an operator may ask for, what is refused and how, over a registry in memory.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may fail loudly")]

use admin::Admin;
use cedar::Cedar;
use serde_json::{Value, json};
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::{Clock, Timestamp};
use shared::entropy::SystemEntropy;
use shared::policy::{Bundle, check};
use shared::port::{Database, Parameter};
use testkit::{FixedClock, Registry, TrustBucket};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const RFC7638_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";

struct World {
    registry: Registry,
    bucket: TrustBucket,
    clock: FixedClock,
    admin: Admin<Registry, TrustBucket, FixedClock, SystemEntropy>,
}

impl World {
    fn new() -> Self {
        let (registry, bucket, clock) = (Registry::with_tenant("acme"), TrustBucket::default(), FixedClock::at(NOW));
        let (database, inbox) = (registry.clone(), bucket.clone());
        let admin = Admin { database, inbox, clock: clock.clone(), entropy: SystemEntropy, check: check::<Cedar> };
        Self { registry, bucket, clock, admin }
    }

    async fn act(&self, event: Value) -> Value {
        self.admin.handle(event, &invocation()).await.unwrap()
    }
}

fn invocation() -> Invocation {
    Invocation { request_id: "req-1".into(), deadline: NOW.plus_seconds(10), function_arn: String::new() }
}

fn ec() -> Value {
    json!({"kty":"EC","crv":"P-256","kid":"k1",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"})
}

fn client(tenant: &str, client_id: &str) -> Value {
    json!({ "operation": "client.put", "operator": "alice", "tenant": tenant, "client_id": client_id,
        "jwks": { "keys": [ec()] }, "scopes": ["files:read"] })
}

fn issuer() -> Value {
    json!({ "operation": "issuer.put", "operator": "alice", "id": "access", "kind": "cloudflare-access",
        "issuer": "https://team.cloudflareaccess.com", "audience": "0".repeat(64), "algorithms": ["RS256"],
        "jwks_url": "https://team.cloudflareaccess.com/cdn-cgi/access/certs" })
}

fn platform() -> Value {
    json!({ "operation": "issuer.put", "operator": "alice", "id": "aws", "kind": "aws-sts",
        "issuer": "https://0f9c.tokens.sts.global.api.aws", "algorithms": ["ES384"],
        "jwks_url": "https://0f9c.tokens.sts.global.api.aws/.well-known/jwks.json" })
}

fn rule() -> Value {
    json!({ "issuer": "aws", "role_arn": "arn:aws:iam::111122223333:role/payments" })
}

fn many() -> Value {
    let role = |number| with(rule(), "role_arn", json!(format!("arn:aws:iam::111122223333:role/r{number}")));
    (0..17).map(role).collect()
}

/// A client without a key, which a role is.
fn workload() -> Value {
    with(without(client("acme", "payments"), "jwks"), "federation", json!([rule()]))
}

fn with(mut event: Value, field: &str, value: Value) -> Value {
    event[field] = value;
    event
}

fn without(mut event: Value, field: &str) -> Value {
    event.as_object_mut().unwrap().remove(field);
    event
}

fn code(answer: &Value) -> (&str, &str) {
    (answer["error"]["code"].as_str().unwrap_or("-"), answer["error"]["field"].as_str().unwrap_or("-"))
}

fn public() -> Value {
    with(without(client("acme", "acme-web"), "jwks"), "token_endpoint_auth_method", json!("none"))
}

fn identity() -> Value {
    json!({ "operation": "identity.put", "operator": "alice", "tenant": "acme", "issuer": "access", "match": "email",
        "value": "ada@example.com", "groups": ["staff"], "scopes": ["files:read"] })
}

#[tokio::test]
async fn public_clients_and_people_are_held_to_their_rules() {
    let world = World::new();
    let of = |by: &str, value: &str| with(with(identity(), "match", json!(by)), "value", json!(value));
    let ada = "7335d417-61da-459d-899c-0a01c76a2f94";
    let many: Vec<String> = (0..33).map(|number| format!("g{number}")).collect();
    for (event, expected) in [
        (with(public(), "jwks", json!({ "keys": [ec()] })), ("unknown_field", "jwks")),
        (with(public(), "algorithms", json!(["ES256"])), ("unknown_field", "algorithms")),
        (with(public(), "dpop", json!(false)), ("invalid_dpop", "dpop")),
        (
            with(public(), "token_endpoint_auth_method", json!("client_secret_basic")),
            ("invalid_auth_method", "token_endpoint_auth_method"),
        ),
        (with(public(), "token_endpoint_auth_method", json!(null)), ("wrong_type", "token_endpoint_auth_method")),
        (with(public(), "token_endpoint_auth_method", json!("private_key_jwt")), ("missing_field", "jwks")),
        (with(client("acme", "a"), "algorithms", json!(["none"])), ("invalid_algorithms", "algorithms")),
        (with(client("acme", "a"), "jwks", json!({ "keys": [] })), ("invalid_jwks", "jwks")),
        (with(identity(), "tenant", json!("Acme")), ("invalid_tenant", "tenant")),
        (with(identity(), "issuer", json!("own")), ("invalid_issuer_id", "issuer")),
        (with(identity(), "match", json!("name")), ("invalid_match", "match")),
        (without(identity(), "value"), ("missing_field", "value")),
        (of("email", "ada"), ("invalid_value", "value")),
        (of("email", "ada@evil.example@example.com"), ("invalid_value", "value")),
        (of("email", "äda@example.com"), ("invalid_value", "value")),
        (of("email", "*@example.com"), ("invalid_value", "value")),
        (of("domain", "*.example.com"), ("invalid_value", "value")),
        (of("domain", "com"), ("invalid_value", "value")),
        (of("domain", "@example.com"), ("invalid_value", "value")),
        (of("subject", &ada.to_uppercase()), ("invalid_value", "value")),
        (of("subject", &format!("access|{ada}")), ("invalid_value", "value")),
        (of("group", ""), ("invalid_value", "value")),
        (of("group", "a\nb"), ("invalid_value", "value")),
        (of("group", &"g".repeat(257)), ("invalid_value", "value")),
        (with(identity(), "groups", json!(["a b"])), ("invalid_groups", "groups")),
        (with(identity(), "groups", json!(["a", "a"])), ("invalid_groups", "groups")),
        (with(identity(), "groups", json!(many)), ("invalid_groups", "groups")),
        (with(identity(), "groups", json!("staff")), ("wrong_type", "groups")),
        (without(identity(), "scopes"), ("missing_field", "scopes")),
        (with(identity(), "scopes", json!(["admin"])), ("invalid_scopes", "scopes")),
        (with(identity(), "enabled", json!("no")), ("wrong_type", "enabled")),
        (with(identity(), "email", json!("x")), ("unknown_field", "email")),
        (
            with(
                with(
                    without(without(without(identity(), "groups"), "scopes"), "match"),
                    "operation",
                    json!("identity.list"),
                ),
                "limit",
                json!(501),
            ),
            ("invalid_limit", "limit"),
        ),
    ] {
        let answer = world.act(event.clone()).await;
        assert_eq!(code(&answer), expected, "{event}");
    }
    for after in [json!("x"), json!({}), json!({"issuer": "a", "match": "b", "value": 1})] {
        let event = json!({"operation": "identity.list", "operator": "a", "tenant": "acme", "after": after});
        assert_eq!(code(&world.act(event).await), ("invalid_value", "after"));
    }
    assert!(world.registry.take_calls().is_empty() && world.bucket.take_writes().is_empty());
}

#[tokio::test]
async fn people_are_put_listed_and_removed_and_every_act_is_on_record() {
    let world = World::new();
    assert_eq!(code(&world.act(identity()).await), ("issuer_unknown", "issuer"));
    assert_eq!(code(&world.act(with(identity(), "tenant", json!("globex"))).await), ("tenant_unknown", "tenant"));
    world.act(issuer()).await;
    let shouted = with(identity(), "value", json!("Ada@Example.COM"));
    let created = world.act(shouted.clone()).await;
    assert_eq!((created["outcome"].as_str(), created["nudge"].as_str()), (Some("created"), Some("not_needed")));
    assert_eq!(created["identity"]["value"], "ada@example.com", "addresses are held in lower case");
    assert_eq!(world.act(shouted).await["outcome"], "unchanged");
    assert_eq!(world.act(with(identity(), "enabled", json!(false))).await["outcome"], "updated");
    world.registry.add_tenant("globex");
    assert_eq!(code(&world.act(with(identity(), "tenant", json!("globex"))).await), ("identity_taken", "value"));
    let list = json!({"operation": "identity.list", "operator": "alice", "tenant": "acme", "limit": 1});
    let listed = world.act(list.clone()).await;
    assert_eq!(listed["identities"].as_array().unwrap().len(), 1);
    assert_eq!(listed["next"], json!({"issuer": "access", "match": "email", "value": "ada@example.com"}));
    let rest = world.act(with(list, "after", listed["next"].clone())).await;
    assert_eq!((rest["identities"].as_array().unwrap().len(), &rest["next"]), (0, &json!(null)));
    let remove = without(without(with(identity(), "operation", json!("identity.remove")), "groups"), "scopes");
    assert_eq!(world.act(remove.clone()).await["outcome"], "removed");
    assert_eq!(code(&world.act(remove).await), ("identity_unknown", "value"));
    let acts = world.registry.acts();
    assert_eq!(
        acts.iter().filter(|act| act["operation"].as_str().is_some_and(|of| of.starts_with("identity."))).count(),
        10
    );
}

fn device() -> Value {
    json!({"id": "laptop-7", "managed": true, "os": "macOS", "os_version": "15.6.1", "disk_encrypted": true, "firewall": true,
        "keys": ["k".repeat(43)]})
}

fn devices(devices: Value) -> Value {
    json!({"operation": "device.put", "operator": "mdm", "tenant": "acme", "devices": devices})
}

#[tokio::test]
async fn devices_are_held_to_their_form() {
    let world = World::new();
    let one = |member: &str, value: Value| devices(json!([with(device(), member, value)]));
    let wrong = ("invalid_device", "devices");
    for (event, expected) in [
        (without(devices(json!([])), "devices"), ("missing_field", "devices")),
        (devices(json!({})), ("wrong_type", "devices")),
        (devices(json!([])), wrong),
        (devices(json!(["laptop-7"])), wrong),
        (devices(json!([without(device(), "id")])), wrong),
        (devices(json!([device(), device()])), wrong),
        (devices((0..501).map(|n| json!({"id": format!("d{n}")})).collect()), wrong),
        (one("id", json!("-")), wrong),
        (one("id", json!("a b")), wrong),
        (one("managed", json!("yes")), wrong),
        (one("os_version", json!(15)), wrong),
        (one("checked_at", json!(NOW.seconds() + 11)), wrong),
        (one("checked_at", json!(-1)), wrong),
        (one("source", json!("operator")), wrong),
        (one("risk", json!(3)), wrong),
        (one("keys", json!("k".repeat(43))), wrong),
        (one("keys", json!(["k".repeat(42)])), wrong),
        (one("keys", json!(["k".repeat(43), "k".repeat(43)])), wrong),
        (one("keys", (0..9).map(|n| n.to_string().repeat(43)).collect()), wrong),
        (one("keys", json!(null)), wrong),
        (with(devices(json!([device()])), "tenant", json!("Acme")), ("invalid_tenant", "tenant")),
        (json!({"operation":"device.remove","operator":"a","tenant":"acme","id":"-"}), ("invalid_device", "id")),
        (json!({"operation":"device.list","operator":"a","tenant":"acme","after":" "}), ("invalid_device", "after")),
        (json!({"operation":"device.list","operator":"a","tenant":"acme","limit":0}), ("invalid_limit", "limit")),
    ] {
        assert_eq!(code(&world.act(event.clone()).await), expected, "{event}");
    }
    assert!(world.registry.take_calls().is_empty() && world.bucket.take_writes().is_empty());
}

#[tokio::test]
async fn what_is_known_of_devices_is_put_listed_and_removed() {
    let world = World::new();
    let put = world.act(devices(json!([device(), {"id": "phone-1"}]))).await;
    assert_eq!((&put["outcome"], &put["created"], &put["nudge"]), (&json!("put"), &json!(2), &json!("delivered")));
    let list = json!({"operation": "device.list", "operator": "alice", "tenant": "acme", "limit": 1});
    let listed = world.act(list.clone()).await;
    let stored = &listed["devices"][0];
    assert_eq!(stored["device"]["checked_at"], NOW.seconds(), "looked at now, where nothing else is said");
    assert_eq!((&stored["device"]["source"], &stored["keys"]), (&json!("operator"), &device()["keys"]));
    assert_eq!((listed["devices"].as_array().unwrap().len(), &listed["next"]), (1, &json!("laptop-7")));
    let off = devices(json!([without(with(device(), "disk_encrypted", json!(false)), "keys")]));
    assert_eq!(world.act(off).await["updated"], 1);
    let listed = world.act(list).await;
    assert_eq!(
        (&listed["devices"][0]["device"]["disk_encrypted"], &listed["devices"][0]["keys"]),
        (&json!(false), &device()["keys"]),
        "keys that are not named stay"
    );
    let earlier = devices(json!([with(device(), "checked_at", json!(NOW.seconds() - 1))]));
    assert_eq!(world.act(earlier).await["outcome"], "unchanged", "what was seen before what is known");
    let taken = devices(json!([{"id": "phone-1", "keys": device()["keys"]}]));
    assert_eq!(code(&world.act(taken).await), ("device_key_taken", "devices"));
    let other = with(devices(json!([device()])), "tenant", json!("globex"));
    assert_eq!(code(&world.act(other.clone()).await), ("tenant_unknown", "tenant"));
    world.registry.add_tenant("globex");
    assert_eq!(world.act(other).await["outcome"], "put", "another tenant's device by the same name and key");
    let remove = json!({"operation": "device.remove", "operator": "alice", "tenant": "acme", "id": "laptop-7"});
    assert_eq!(world.act(remove.clone()).await["outcome"], "removed");
    assert_eq!(code(&world.act(remove).await), ("device_unknown", "id"));
}

#[tokio::test]
async fn a_client_is_registered_with_a_service_token_and_without_again() {
    let world = World::new();
    let service = |service: Value| json!({"operation": "client.service", "operator": "alice", "tenant": "acme", "client_id": "acme-backend", "service": service});
    let own = json!("e367826f93b8d71185e03fe518aff3b4.access");
    assert_eq!(code(&world.act(service(own.clone())).await), ("client_unknown", "client_id"));
    world.act(client("acme", "acme-backend")).await;
    let list = json!({"operation": "client.list", "operator": "alice", "tenant": "acme"});
    assert_eq!(world.act(list.clone()).await["clients"][0]["service"], json!(null));
    for outcome in ["updated", "unchanged"] {
        assert_eq!(world.act(service(own.clone())).await["outcome"], outcome);
        assert_eq!(world.act(list.clone()).await["clients"][0]["service"], own, "a list shows it");
    }
    let again = world.act(client("acme", "acme-backend")).await;
    assert_eq!(
        (&again["outcome"], &again["client"]["service"]),
        (&json!("unchanged"), &own),
        "putting it again keeps it"
    );
    assert_eq!(world.act(service(json!(null))).await["outcome"], "updated");
    assert_eq!(world.act(list).await["clients"][0]["service"], json!(null));
    for (service_token, expected) in [
        (json!("e367826f93b8d71185e03fe518aff3b4"), ("invalid_service", "service")),
        (json!("E367826F93B8D71185E03FE518AFF3B4.access"), ("invalid_service", "service")),
        (json!(""), ("invalid_service", "service")),
        (json!([own]), ("wrong_type", "service")),
    ] {
        assert_eq!(code(&world.act(service(service_token)).await), expected);
    }
    assert_eq!(code(&world.act(without(service(own), "service")).await), ("missing_field", "service"));
}

#[tokio::test]
async fn a_public_client_is_stored_without_a_key() {
    let world = World::new();
    let created = world.act(public()).await;
    assert_eq!((created["outcome"].as_str(), &created["client"]["algorithms"]), (Some("created"), &json!(["none"])));
    assert_eq!((&created["client"]["dpop"], &created["client"]["jwks"]), (&json!(true), &json!({ "keys": [] })));
    assert_eq!(world.act(public()).await["outcome"], "unchanged");
    let with_key = world.act(client("acme", "acme-web")).await;
    assert_eq!((with_key["outcome"].as_str(), &with_key["client"]["algorithms"]), (Some("updated"), &json!(["ES256"])));
}

#[tokio::test]
async fn refused_acts_name_the_field_and_reach_neither_database_nor_bucket() {
    let put = || client("acme", "acme-backend");
    let revoke = |kind: &str, value: &str| json!({"operation":"revoke","operator":"alice","kind":kind,"value":value});
    let jwk = |jwk: Value| with(put(), "jwks", json!({ "keys": [jwk] }));
    for (event, expected) in [
        (json!(null), ("malformed_body", "-")),
        (json!([]), ("malformed_body", "-")),
        (json!("client.put"), ("malformed_body", "-")),
        (json!({}), ("missing_field", "operation")),
        (json!({"operation": 1, "operator": "a"}), ("wrong_type", "operation")),
        (json!({"operation": "client.list"}), ("missing_field", "operator")),
        (with(put(), "operator", json!("")), ("invalid_operator", "operator")),
        (with(put(), "operator", json!("a b")), ("invalid_operator", "operator")),
        (with(put(), "operator", json!("a\nb")), ("invalid_operator", "operator")),
        (with(put(), "operator", json!("a".repeat(129))), ("invalid_operator", "operator")),
        (with(identity(), "operation", json!("identity.get")), ("unsupported_operation", "operation")),
        (with(put(), "operation", json!("policy.drop")), ("unsupported_operation", "operation")),
        (json!({"operation":"signing.list","operator":"a","kid":"k"}), ("unknown_field", "kid")),
        (json!({"operation":"signing.rotate","operator":"a","kid":"k"}), ("invalid_kid", "kid")),
        (json!({"operation":"signing.rotate","operator":"a","kid":null}), ("wrong_type", "kid")),
        (json!({"operation":"signing.drop","operator":"a"}), ("missing_field", "kid")),
        (json!({"operation":"signing.drop","operator":"a","kid":"+".repeat(43)}), ("invalid_kid", "kid")),
        (json!({"operation":"signing.drop","operator":"a","kid":"k".repeat(44)}), ("invalid_kid", "kid")),
        (
            json!({"operation":"signing.drop","operator":"a","kid":"k".repeat(43),"confirm":"yes"}),
            ("wrong_type", "confirm"),
        ),
        (with(put(), "operation", json!("Client.Put")), ("unsupported_operation", "operation")),
        (with(put(), "secret", json!("x")), ("unknown_field", "secret")),
        (with(put(), "client_secret", json!(null)), ("unknown_field", "client_secret")),
        (with(put(), "tenant", json!("Acme")), ("invalid_tenant", "tenant")),
        (with(put(), "tenant", json!(null)), ("wrong_type", "tenant")),
        (without(put(), "tenant"), ("missing_field", "tenant")),
        (with(put(), "client_id", json!("a/b")), ("invalid_client_id", "client_id")),
        (with(put(), "name", json!("")), ("invalid_name", "name")),
        (with(put(), "name", json!("a\u{7}")), ("invalid_name", "name")),
        (with(put(), "enabled", json!("true")), ("wrong_type", "enabled")),
        (with(put(), "dpop", json!(0)), ("wrong_type", "dpop")),
        (with(put(), "ttl_seconds", json!(901)), ("invalid_ttl", "ttl_seconds")),
        (with(put(), "ttl_seconds", json!(29)), ("invalid_ttl", "ttl_seconds")),
        (with(put(), "ttl_seconds", json!(300.5)), ("wrong_type", "ttl_seconds")),
        (without(put(), "scopes"), ("missing_field", "scopes")),
        (with(put(), "scopes", json!([])), ("invalid_scopes", "scopes")),
        (with(put(), "scopes", json!("files:read")), ("wrong_type", "scopes")),
        (with(put(), "scopes", json!(["files:read files:write"])), ("invalid_scopes", "scopes")),
        (with(put(), "scopes", json!(["files:read", "files:read"])), ("invalid_scopes", "scopes")),
        (with(put(), "scopes", json!(["admin"])), ("invalid_scopes", "scopes")),
        (with(put(), "scopes", json!(["fields:decrypt:a.b.c"])), ("invalid_scopes", "scopes")),
        (with(put(), "scopes", json!([""])), ("invalid_scopes", "scopes")),
        (with(put(), "algorithms", json!([])), ("invalid_algorithms", "algorithms")),
        (with(put(), "algorithms", json!(["RS256"])), ("invalid_algorithms", "algorithms")),
        (with(put(), "algorithms", json!(["none"])), ("invalid_algorithms", "algorithms")),
        (with(put(), "algorithms", json!(["ES256", "ES256"])), ("invalid_algorithms", "algorithms")),
        (without(put(), "jwks"), ("missing_field", "jwks")),
        (with(put(), "jwks", json!({})), ("invalid_jwks", "jwks")),
        (with(put(), "jwks", json!({ "keys": [] })), ("invalid_jwks", "jwks")),
        (with(put(), "jwks", json!({ "keys": [ec()], "issuer": "x" })), ("invalid_jwks", "jwks")),
        (with(put(), "jwks", json!({ "keys": [ec(), ec()] })), ("invalid_jwks", "jwks")),
        (with(put(), "algorithms", json!(["PS256"])), ("invalid_jwks", "jwks")),
        (jwk(with(ec(), "d", json!("AAAA"))), ("invalid_jwks", "jwks")),
        (jwk(json!({"kty":"oct","k":"AAAA","kid":"s"})), ("invalid_jwks", "jwks")),
        (jwk(without(ec(), "kid")), ("invalid_jwks", "jwks")),
        (jwk(with(ec(), "use", json!("enc"))), ("invalid_jwks", "jwks")),
        (jwk(with(ec(), "alg", json!("RS256"))), ("invalid_jwks", "jwks")),
        (jwk(with(ec(), "crv", json!("P-384"))), ("invalid_jwks", "jwks")),
        (jwk(with(ec(), "x", json!("AAAA"))), ("invalid_jwks", "jwks")),
        (jwk(with(ec(), "x5u", json!("https://evil.example"))), ("invalid_jwks", "jwks")),
        (jwk(with(ec(), "priv", json!("AAAA"))), ("invalid_jwks", "jwks")),
        (jwk(json!({"kty":"RSA","kid":"r","alg":"RS256","n":RFC7638_N,"e":"AQAB"})), ("invalid_jwks", "jwks")),
        (jwk(json!({"kty":"RSA","kid":"r","alg":"PS256","n":&RFC7638_N[..170],"e":"AQAB"})), ("invalid_jwks", "jwks")),
        (jwk(json!({"kty":"RSA","kid":"r","alg":"PS256","n":RFC7638_N,"e":"Aw"})), ("invalid_jwks", "jwks")),
        (jwk(json!("k")), ("invalid_jwks", "jwks")),
        (json!({"operation":"client.list","operator":"a","tenant":"acme","limit":0}), ("invalid_limit", "limit")),
        (json!({"operation":"client.list","operator":"a","tenant":"acme","limit":501}), ("invalid_limit", "limit")),
        (json!({"operation":"quota.put","operator":"a","tenant":"acme","files":-1}), ("invalid_quota", "files")),
        (json!({"operation":"quota.put","operator":"a","tenant":"acme","bytes":-1}), ("invalid_quota", "bytes")),
        (json!({"operation":"quota.put","operator":"a","tenant":"acme","bytes":1.5}), ("wrong_type", "bytes")),
        (json!({"operation":"quota.put","operator":"a","tenant":"acme","bytes":"1"}), ("wrong_type", "bytes")),
        (json!({"operation":"quota.put","operator":"a","tenant":"acme","subject":""}), ("invalid_subject", "subject")),
        (
            json!({"operation":"quota.put","operator":"a","tenant":"acme","subject":"a b"}),
            ("invalid_subject", "subject"),
        ),
        (json!({"operation":"quota.put","operator":"a","tenant":"Acme"}), ("invalid_tenant", "tenant")),
        (json!({"operation":"quota.put","operator":"a","tenant":"acme","per":"day"}), ("unknown_field", "per")),
        (json!({"operation":"quota.list","operator":"a","tenant":"acme","limit":0}), ("invalid_limit", "limit")),
        (json!({"operation":"quota.list","operator":"a","tenant":"acme","after":""}), ("invalid_subject", "after")),
        (json!({"operation":"client.list","operator":"a","tenant":"acme","after":"/"}), ("invalid_client_id", "after")),
        (json!({"operation":"tenant.put","operator":"a","tenant":"a","id":1}), ("unknown_field", "id")),
        (with(put(), "federation", json!([])), ("invalid_federation", "federation")),
        (with(put(), "federation", json!({})), ("wrong_type", "federation")),
        (with(put(), "federation", json!([rule(), rule()])), ("invalid_federation", "federation")),
        (
            with(put(), "federation", json!([with(rule(), "role_arn", json!("*"))])),
            ("invalid_federation", "federation"),
        ),
        (with(put(), "federation", json!([with(rule(), "sub", json!("x"))])), ("invalid_federation", "federation")),
        (with(put(), "federation", json!([with(rule(), "iss", json!("x"))])), ("invalid_federation", "federation")),
        (with(put(), "federation", json!([without(rule(), "issuer")])), ("invalid_federation", "federation")),
        (with(put(), "federation", many()), ("invalid_federation", "federation")),
        (with(without(workload(), "jwks"), "algorithms", json!(["ES256"])), ("missing_field", "jwks")),
        (with(workload(), "jwks", json!({ "keys": [] })), ("invalid_jwks", "jwks")),
        (with(platform(), "audience", json!("https://gate.example")), ("invalid_audience", "audience")),
        (with(platform(), "audience", json!("")), ("invalid_audience", "audience")),
        (with(platform(), "kind", json!("spiffe")), ("invalid_issuer", "issuer")),
        (with(platform(), "algorithms", json!(["EdDSA"])), ("invalid_algorithms", "algorithms")),
        (with(platform(), "kind", json!("generic")), ("missing_field", "audience")),
        (revoke("kid", "k"), ("invalid_kind", "kind")),
        (without(issuer(), "id"), ("missing_field", "id")),
        (with(issuer(), "id", json!("own")), ("invalid_issuer_id", "id")),
        (with(issuer(), "id", json!("../keys")), ("invalid_issuer_id", "id")),
        (with(issuer(), "kind", json!("okta")), ("invalid_kind", "kind")),
        (with(issuer(), "issuer", json!("http://team.cloudflareaccess.com")), ("invalid_issuer", "issuer")),
        (with(issuer(), "issuer", json!("https://10.0.0.1")), ("invalid_issuer", "issuer")),
        (with(issuer(), "audience", json!("")), ("invalid_audience", "audience")),
        (with(issuer(), "audience", json!("https://gate.example")), ("invalid_audience", "audience")),
        (without(issuer(), "algorithms"), ("missing_field", "algorithms")),
        (with(issuer(), "algorithms", json!(["ES256"])), ("invalid_algorithms", "algorithms")),
        (with(issuer(), "algorithms", json!(["HS256"])), ("invalid_algorithms", "algorithms")),
        (with(issuer(), "jwks_url", json!("https://u@team.cloudflareaccess.com/")), ("invalid_jwks_url", "jwks_url")),
        (with(issuer(), "jwks_url", json!("file:///etc/passwd")), ("invalid_jwks_url", "jwks_url")),
        (with(issuer(), "keys", json!([])), ("unknown_field", "keys")),
        (json!({"operation":"issuer.remove","operator":"a","id":"A"}), ("invalid_issuer_id", "id")),
        (revoke("token", "k"), ("invalid_kind", "kind")),
        (revoke("jti", "not-a-uuid"), ("invalid_value", "value")),
        (revoke("tenant", "Acme"), ("invalid_value", "value")),
        (revoke("client_id", ""), ("invalid_value", "value")),
        (revoke("sub", ""), ("invalid_value", "value")),
        (revoke("sub", "a b"), ("invalid_value", "value")),
        (revoke("sub", &"a".repeat(256)), ("invalid_value", "value")),
        (with(revoke("sub", "a"), "at", json!(NOW.seconds() + 11)), ("invalid_time", "at")),
        (with(revoke("sub", "a"), "at", json!(NOW.seconds() - 911)), ("invalid_time", "at")),
        (with(revoke("sub", "a"), "at", json!("now")), ("wrong_type", "at")),
        (with(revoke("sub", "a"), "exp", json!(NOW.seconds())), ("unknown_field", "exp")),
        (
            with(revoke("jti", "0190a2b4-0000-7000-8000-000000000000"), "exp", json!(NOW.seconds() + 911)),
            ("invalid_time", "exp"),
        ),
    ] {
        let world = World::new();
        let answer = world.act(event.clone()).await;
        assert_eq!(code(&answer), expected, "{event}");
        assert!(world.registry.take_calls().is_empty() && world.bucket.keys().is_empty(), "{event}");
    }
}

#[tokio::test]
async fn what_only_the_database_knows_is_refused_by_its_own_code() {
    let world = World::new();
    world.registry.add_tenant("globex");
    assert_eq!(world.act(client("acme", "shared-name")).await["outcome"], "created");
    let disable = |tenant: &str, client: &str| json!({"operation":"client.disable","operator":"alice","tenant":tenant,"client_id":client});
    for (event, expected) in [
        (client("initech", "x"), ("tenant_unknown", "tenant")),
        (client("globex", "shared-name"), ("client_id_taken", "client_id")),
        (disable("globex", "shared-name"), ("client_unknown", "client_id")),
        (disable("acme", "nobody"), ("client_unknown", "client_id")),
        (json!({"operation":"issuer.remove","operator":"a","id":"nobody"}), ("issuer_unknown", "id")),
        (json!({"operation":"client.list","operator":"a","tenant":"initech"}), ("tenant_unknown", "tenant")),
        (json!({"operation":"quota.put","operator":"a","tenant":"initech","files":1}), ("tenant_unknown", "tenant")),
        (json!({"operation":"quota.list","operator":"a","tenant":"initech"}), ("tenant_unknown", "tenant")),
    ] {
        assert_eq!(code(&world.act(event.clone()).await), expected, "{event}");
    }
    assert!(world.bucket.keys().is_empty(), "nothing to publish");
}

#[tokio::test]
async fn a_client_is_stored_with_its_algorithms_spelled_out_and_bound_by_default() {
    let world = World::new();
    let rsa = json!({"kty":"RSA","kid":"r","n":RFC7638_N,"e":"AQAB","alg":"PS256","key_ops":["verify"]});
    let ed = json!({"kty":"OKP","crv":"Ed25519","kid":"ed","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let answer = world.act(with(client("acme", "acme-backend"), "jwks", json!({ "keys": [ec(), rsa, ed] }))).await;
    assert_eq!((&answer["outcome"], &answer["nudge"]), (&json!("created"), &json!("not_needed")));
    let client = &answer["client"];
    assert_eq!(client["algorithms"], json!(["ES256", "PS256", "EdDSA"]));
    assert_eq!(
        (&client["dpop"], &client["ttl_seconds"], &client["enabled"]),
        (&json!(true), &json!(300), &json!(true))
    );
    let algs: Vec<&Value> = client["jwks"]["keys"].as_array().unwrap().iter().map(|key| &key["alg"]).collect();
    assert_eq!(algs, ["ES256", "PS256", "EdDSA"]);
    assert!(client["jwks"]["keys"][1].get("key_ops").is_none());
    assert_eq!(client["version"], 1);
}

#[tokio::test]
async fn the_same_put_twice_changes_nothing_and_another_raises_the_version() {
    let world = World::new();
    let put = client("acme", "acme-backend");
    world.act(put.clone()).await;
    assert_eq!(world.act(put.clone()).await["outcome"], "unchanged");
    let answer = world.act(with(put, "scopes", json!(["files:read", "files:write"]))).await;
    assert_eq!((&answer["outcome"], &answer["client"]["version"]), (&json!("updated"), &json!(2)));
}

#[tokio::test]
async fn an_issuer_is_stored_once_for_its_assertions_and_leaves_when_told() {
    let world = World::new();
    let answer = world.act(issuer()).await;
    assert_eq!((&answer["outcome"], &answer["issuer"]["algorithms"]), (&json!("created"), &json!(["RS256"])));
    assert_eq!(world.act(issuer()).await["outcome"], "unchanged");
    assert_eq!(code(&world.act(with(issuer(), "id", json!("again"))).await), ("issuer_taken", "issuer"));
    let tier = with(with(issuer(), "id", json!("managed")), "audience", json!("1".repeat(64)));
    assert_eq!(world.act(tier).await["outcome"], "created", "another application of the same team");
    let remove = json!({"operation":"issuer.remove","operator":"alice","id":"access"});
    assert_eq!(world.act(remove).await["outcome"], "removed");
}

#[tokio::test]
async fn a_workload_is_one_client_and_its_rules_hold_what_the_issuer_was_called() {
    let world = World::new();
    world.registry.add_tenant("globex");
    assert_eq!(code(&world.act(workload()).await), ("federation_issuer_unknown", "federation"));
    let put = world.act(platform()).await;
    assert_eq!((&put["outcome"], &put["issuer"]["audience"]), (&json!("created"), &json!(null)));
    let answer = world.act(workload()).await;
    assert_eq!(answer["outcome"], "created", "{answer}");
    assert_eq!(answer["client"]["jwks"], json!({ "keys": [] }));
    let stored = with(rule(), "iss", json!("https://0f9c.tokens.sts.global.api.aws"));
    assert_eq!(answer["client"]["federation"], json!([stored]));
    assert_eq!(world.act(workload()).await["outcome"], "unchanged");
    let taken = ("federation_taken", "federation");
    let narrower = with(workload(), "federation", json!([with(rule(), "source_region", json!("eu-west-1"))]));
    for other in [workload(), narrower.clone()] {
        assert_eq!(code(&world.act(with(other, "client_id", json!("other"))).await), taken);
    }
    let elsewhere = with(with(workload(), "tenant", json!("globex")), "client_id", json!("other"));
    assert_eq!(code(&world.act(elsewhere).await), taken, "whosever it is");
    assert_eq!(world.act(narrower).await["outcome"], "updated", "its own it may change");
    let wrong_kind = with(workload(), "federation", json!([{ "issuer": "aws", "spiffe_id": "spiffe://a/b" }]));
    assert_eq!(code(&world.act(wrong_kind).await), ("federation_issuer_unknown", "federation"));
    assert_eq!(world.act(client("acme", "payments")).await["outcome"], "updated");
    assert_eq!(world.act(with(workload(), "client_id", json!("other"))).await["outcome"], "created", "free again");
    let again = with(platform(), "id", json!("aws-2"));
    assert_eq!(
        code(&world.act(again).await),
        ("issuer_taken", "issuer"),
        "an issuer of workloads stands for itself once"
    );
}

#[tokio::test]
async fn an_act_that_verifiers_must_learn_of_nudges_and_another_stays_silent() {
    let put = client("acme", "acme-backend");
    for (event, nudged) in [
        (json!({"operation":"tenant.put","operator":"a","tenant":"globex"}), false),
        (json!({"operation":"tenant.put","operator":"a","tenant":"acme","enabled":false}), true),
        (put.clone(), false),
        (with(put.clone(), "enabled", json!(false)), true),
        (json!({"operation":"client.disable","operator":"a","tenant":"acme","client_id":"here"}), true),
        (json!({"operation":"client.list","operator":"a","tenant":"acme"}), false),
        (json!({"operation":"revoke","operator":"a","kind":"sub","value":"access|x"}), true),
        (issuer(), true),
    ] {
        let world = World::new();
        world.act(client("acme", "here")).await;
        let answer = world.act(event.clone()).await;
        assert_eq!(answer["nudge"], if nudged { "delivered" } else { "not_needed" }, "{event}");
        let keys = world.bucket.keys();
        assert_eq!(keys.len(), usize::from(nudged), "{event}");
        if let Some(key) = keys.first() {
            let id = key.strip_prefix("trust-inbox/admin/").unwrap();
            assert_eq!(id.len(), 36);
            assert_eq!(world.bucket.text(key).as_deref(), Some(""));
        }
    }
}

#[tokio::test]
async fn a_nudge_that_fails_leaves_the_act_done_and_says_so() {
    let world = World::new();
    world.bucket.set_down(true);
    let answer =
        world.act(json!({"operation":"revoke","operator":"alice","kind":"client_id","value":"acme-backend"})).await;
    assert_eq!((&answer["outcome"], &answer["nudge"]), (&json!("revoked"), &json!("failed")));
    assert_eq!(world.registry.acts().len(), 1);
}

#[tokio::test]
async fn without_a_database_nothing_is_nudged_and_the_invocation_fails() {
    let world = World::new();
    world.registry.set_down(true);
    let event = json!({"operation":"revoke","operator":"alice","kind":"sub","value":"x"});
    assert_eq!(world.admin.handle(event, &invocation()).await, Err(Failure::UNAVAILABLE));
    assert!(world.bucket.keys().is_empty());
}

#[tokio::test]
async fn a_revocation_defaults_to_now_and_an_id_to_the_longest_life() {
    let world = World::new();
    let now = world.clock.now().seconds();
    let sub = world.act(json!({"operation":"revoke","operator":"a","kind":"sub","value":"x"})).await;
    assert_eq!((&sub["epoch"], &sub["dead_ms"]), (&json!(now), &json!((now + 910) * 1000)));
    let jti = "0190A2B4-0000-7000-8000-00000000000A";
    let jti = world.act(json!({"operation":"revoke","operator":"a","kind":"jti","value":jti})).await;
    assert_eq!((&jti["epoch"], &jti["value"]), (&json!(now + 910), &json!("0190a2b4-0000-7000-8000-00000000000a")));
}

#[tokio::test]
async fn a_later_revocation_is_never_taken_back_by_an_earlier_one() {
    let world = World::new();
    let now = world.clock.now().seconds();
    let revoke = |at: i64| json!({"operation":"revoke","operator":"a","kind":"sub","value":"x","at":at});
    world.act(revoke(now)).await;
    assert_eq!(world.act(revoke(now - 600)).await["epoch"], now);
}

#[tokio::test]
async fn every_act_that_reached_the_database_is_audited_with_operator_and_request() {
    let world = World::new();
    world.act(client("acme", "one")).await;
    world.act(client("initech", "two")).await;
    let acts = world.registry.acts();
    let told: Vec<_> = acts.iter().map(|act| (&act["operator"], &act["request_id"], &act["outcome"])).collect();
    assert_eq!(
        told,
        [
            (&json!("alice"), &json!("req-1"), &json!("created")),
            (&json!("alice"), &json!("req-1"), &json!("tenant_unknown"))
        ]
    );
}

#[tokio::test]
async fn orders_about_signing_keys_are_given_once_and_never_leave_nobody_unasked() {
    let world = World::new();
    let (active, spare) = ("a".repeat(43), "b".repeat(43));
    let act = |operation: &str| json!({ "operation": operation, "operator": "alice" });
    let unknown = ("signing_key_unknown", "kid");
    assert_eq!(code(&world.act(act("signing.rotate")).await), unknown);
    assert_eq!(code(&world.act(with(act("signing.drop"), "kid", json!(active))).await), unknown);

    let key = |kid: &str, state: &str, turn: Value| {
        json!({ "kid": kid, "alg": "ES256", "key": "arn", "state": state, "created_ms": 1, "activated_ms": 1, "retired_ms": null,
            "removed_ms": null, "ripe_ms": turn, "urgent_ms": turn })
    };
    let keys = json!([key(&active, "active", json!(null)), key(&spare, "published", json!(NOW.millis() + 1))]);
    let report = vec![Parameter::Int(NOW.millis()), Parameter::Json(keys)];
    world.registry.call("api.trust_signing", report.clone()).await.unwrap();

    for outcome in ["ordered", "unchanged"] {
        let answer = world.act(act("signing.rotate")).await;
        assert_eq!((&answer["outcome"], &answer["nudge"]), (&json!(outcome), &json!("delivered")));
        assert_eq!((&answer["key"]["kid"], &answer["successor"]), (&json!(active), &json!(spare)));
        assert_eq!(answer["from_ms"], NOW.millis() + 1);
    }
    let drop = with(act("signing.drop"), "kid", json!(active));
    world.bucket.take_writes();
    assert_eq!(code(&world.act(drop.clone()).await), ("nobody_signs", "confirm"));
    assert!(world.bucket.take_writes().is_empty());
    let confirmed = world.act(with(drop.clone(), "confirm", json!(true))).await;
    assert_eq!((&confirmed["outcome"], &confirmed["signer"]), (&json!("dropped"), &json!(spare)));
    assert_eq!(world.act(drop).await["outcome"], "unchanged");
    assert_eq!(world.bucket.take_writes().len(), 2);
    let orders = world.registry.call("api.trust_signing", report).await.unwrap();
    assert_eq!(orders["dropped"], json!([active]));
    let listed = world.act(act("signing.list")).await;
    assert_eq!((listed["keys"].as_array().unwrap().len(), &listed["nudge"]), (2, &json!("not_needed")));
    assert_eq!(world.registry.acts().len(), 8);
}

/// The bundle that is shipped, with one policy replaced.
fn bundle(id: &str, text: &str) -> Value {
    let mut bundle = Bundle::shipped().unwrap().to_value();
    bundle.as_object_mut().unwrap().remove("schema");
    let policies = bundle["policies"].as_array_mut().unwrap();
    policies.iter_mut().find(|policy| policy["id"] == id).unwrap()["text"] = json!(text);
    bundle
}

fn put(bundle: &Value) -> Value {
    json!({ "operation": "policy.put", "operator": "alice", "bundle": bundle })
}

fn promote(hash: &str) -> Value {
    json!({ "operation": "policy.promote", "operator": "alice", "hash": hash })
}

const LAX: &str = r#"permit (principal, action == Portcullis::Action::"mint", resource) when { context.ttl < 901 };"#;
const LAXER: &str = r#"permit (principal, action == Portcullis::Action::"mint", resource) when { context.ttl < 902 };"#;

#[tokio::test]
async fn a_bundle_is_put_promoted_and_gone_back_to() {
    let world = World::new();
    let (one, two) = (bundle("mint-registered", LAX), bundle("mint-registered", LAXER));
    let answer = world.act(put(&one)).await;
    assert_eq!((&answer["outcome"], &answer["nudge"]), (&json!("candidate"), &json!("delivered")));
    let first = answer["policy"]["hash"].as_str().unwrap().to_owned();
    assert_eq!(world.act(put(&one)).await["outcome"], "unchanged", "sent again it changes nothing");
    assert_eq!(world.act(promote(&first)).await["outcome"], "promoted");
    assert_eq!(world.act(promote(&first)).await["outcome"], "unchanged");
    let second = world.act(put(&two)).await["policy"]["hash"].as_str().unwrap().to_owned();
    assert_eq!(world.act(promote(&second)).await["former"]["hash"], first.as_str());
    assert_eq!(world.act(promote(&first)).await["outcome"], "promoted", "back to what decided before");
    let list = json!({ "operation": "policy.list", "operator": "alice" });
    let listed = world.act(list).await;
    let states: Vec<_> =
        listed["policies"].as_array().unwrap().iter().map(|one| one["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "former", "former"]);
    assert_eq!(world.registry.acts().iter().filter(|act| act["operation"] == "policy.promote").count(), 4);
}

#[tokio::test]
async fn nobody_promotes_what_nobody_put() {
    let world = World::new();
    assert_eq!(world.act(promote(&"0".repeat(64))).await["error"]["code"], "policy_unknown");
    for hash in ["", "latest", &"0".repeat(63), &"A".repeat(64)] {
        assert_eq!(
            world.act(promote(hash)).await["error"],
            json!({ "code": "invalid_hash", "field": "hash" }),
            "{hash}"
        );
    }
    let replaced = world.act(put(&bundle("mint-registered", LAX))).await["policy"]["hash"].as_str().unwrap().to_owned();
    world.act(put(&bundle("mint-registered", LAXER))).await;
    assert_eq!(
        world.act(promote(&replaced)).await["error"]["code"],
        "policy_unknown",
        "it was withdrawn and never decided"
    );
}

#[tokio::test]
async fn what_verifiers_would_refuse_is_refused_with_its_place() {
    let world = World::new();
    for (text, why, at) in [
        ("permit (principal", "syntax", "app"),
        (
            r#"permit (principal, action == Portcullis::Action::"app", resource) when { context.nothing };"#,
            "invalid",
            "app",
        ),
        (
            r#"permit (principal, action == Portcullis::Action::"app", resource) when { context.device.managed };"#,
            "invalid",
            "app",
        ),
        (r#"permit (principal == ?principal, action == Portcullis::Action::"app", resource);"#, "syntax", "app"),
    ] {
        let error = world.act(put(&bundle("app", text))).await["error"].clone();
        assert_eq!((&error["code"], &error["field"]), (&json!("invalid_policy"), &json!("bundle")), "{text}");
        assert_eq!((error["why"].as_str(), error["at"].as_str()), (Some(why), Some(at)), "{error}");
        assert!(!error["detail"].as_str().unwrap().is_empty());
    }
    let flipped =
        bundle("files-create", r#"permit (principal, action == Portcullis::Action::"files:create", resource);"#);
    let error = world.act(put(&flipped)).await["error"].clone();
    assert_eq!(
        (error["why"].as_str(), error["at"].as_str()),
        (Some("example"), Some("nothing else opens files:create"))
    );
    assert_eq!(
        world.act(json!({ "operation": "policy.put", "operator": "alice", "bundle": [] })).await["error"]["why"],
        "malformed"
    );
    assert_eq!(world.registry.acts().len(), 0, "nothing was changed");
}
