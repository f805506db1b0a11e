//! Receipts in process: what they say, who gets one, and that nothing else is one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use shared::boot::Routes as _;
use shared::encoding::from_base64url;
use shared::gate::Caller;
use shared::jwks::{Algorithm, KeySet};
use shared::jwt::access_token;
use shared::object::{Scan, Sha256Digest};
use shared::problem::Code;
use support::{ID, World, answer, invocation, request, start};
use testkit::files::Fact;
use testkit::issuer::{AUDIENCE, ISSUER};
use testkit::{Issuer, callers};

const JWKS: &str = "/.well-known/receipts/jwks.json";

/// A world whose file alice sent from a device, and which arrived a second after it was planned.
fn world() -> World {
    let world = support::world(Scan::Off);
    world.files.record(ID, Fact::created("v1", "ok", true));
    world.files.change(ID, |row| {
        row.created_ms = start().millis() - 2000;
        row.received_ms = Some(start().millis() - 1000);
        let device = json!({ "id": "d-1", "source": "cloudflare", "checked_at": 7 });
        row.made_by = json!({ "client_id": "page", "jti": "j-1", "device": device });
    });
    world
}

fn alice() -> Caller {
    callers::machine("acme", "alice", "files:read", start())
}

impl World {
    async fn receipt(&self, caller: &Caller) -> Result<String, Code> {
        let answered = self.download.receipt(caller, &request(("id", &ID.to_string()), &[], "")).await;
        let said = answer(&answered.map_err(|problem| problem.code)?);
        assert_eq!(said.as_object().unwrap().len(), 1);
        Ok(said["receipt"].as_str().unwrap().to_owned())
    }

    async fn jwks(&self) -> Result<Value, Code> {
        let mut asked = request(("x", ""), &[], "");
        asked.resource = JWKS.to_owned();
        let answered = self.download.answer(&asked, &invocation()).await.map_err(|problem| problem.code)?;
        assert_eq!(answered.find("cache-control"), Some("public, max-age=300"));
        Ok(answer(&answered))
    }
}

/// Header and claims, once the signature holds under a key of the set.
fn opened(receipt: &str, jwks: &Value) -> Option<(Value, Value)> {
    let parts: Vec<&str> = receipt.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else { return None };
    let read = |part: &str| serde_json::from_slice::<Value>(&from_base64url(part)?).ok();
    let (head, body) = (read(header)?, read(claims)?);
    let keys = KeySet::parse(jwks, &[Algorithm::Es256]).ok()?;
    let key = keys.find(head["kid"].as_str()?)?;
    assert_eq!(key.kid, key.thumbprint);
    let point =
        [&[4][..], &from_base64url(jwks["keys"][0]["x"].as_str()?)?, &from_base64url(jwks["keys"][0]["y"].as_str()?)?];
    let verifier =
        aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED, point.concat());
    verifier.verify(format!("{header}.{claims}").as_bytes(), &from_base64url(signature)?).ok()?;
    Some((head, body))
}

#[tokio::test]
async fn a_receipt_says_who_uploaded_what_when_and_from_which_device() {
    let world = world();
    let receipt = world.receipt(&alice()).await.unwrap();
    let jwks = world.jwks().await.unwrap();
    let (head, claims) = opened(&receipt, &jwks).unwrap();
    assert_eq!(head, json!({ "alg": "ES256", "typ": "portcullis-receipt+jwt", "kid": jwks["keys"][0]["kid"] }));
    let now = start().seconds();
    let want = json!({
        "iss": ISSUER, "iat": now, "tenant": "acme", "sub": "alice", "client_id": "page", "token": "j-1",
        "device": { "id": "d-1", "source": "cloudflare", "checked_at": 7 },
        "file": {
            "id": ID.to_string(), "name": "report.txt", "content_type": "text/plain", "size": 11, "version": "v1",
            "checksum": { "algorithm": "SHA-256", "type": "FULL_OBJECT", "value": Sha256Digest::of(b"hello world").to_string() },
            "created_at": now - 2, "received_at": now - 1,
        },
    });
    assert_eq!(claims, want);
    assert_eq!(world.receipts.signatures(), 1);
}

#[tokio::test]
async fn the_digest_of_a_file_in_parts_comes_with_the_size_of_its_parts() {
    let world = world();
    world.files.change(ID, |row| (row.mode, row.sha256, row.part_size) = ("multipart".to_owned(), None, Some(5 << 20)));
    assert_eq!(world.receipt(&alice()).await, Err(Code::Internal), "an object without a digest has no receipt");
    let fresh = support::world(Scan::Off);
    fresh.files.change(ID, |row| {
        (row.mode, row.sha256, row.part_size) = ("multipart".to_owned(), None, Some(5 << 20));
        row.received_ms = Some(0);
    });
    let fact = Fact::created("v1", "ok", true);
    let Fact::Created { version, etag, size, finding, scan_off, .. } = fact else { return };
    let sha256 = Some("Zhie15keHg/OBlOZxcoF/BXCgYZaeimRvdZnwUZqkaQ=-2".to_owned());
    fresh.files.record(ID, Fact::Created { version, etag, size, sha256, finding, scan_off });
    let (_, claims) = opened(&fresh.receipt(&alice()).await.unwrap(), &fresh.jwks().await.unwrap()).unwrap();
    let want = json!({ "algorithm": "SHA-256", "type": "COMPOSITE", "part_size": 5 << 20,
        "value": "Zhie15keHg/OBlOZxcoF/BXCgYZaeimRvdZnwUZqkaQ=-2" });
    assert_eq!(claims["file"]["checksum"], want);
    // Made before receipts were: nobody but its subject is known.
    assert_eq!((claims.get("client_id"), claims.get("device")), (None, None));
    assert_eq!(claims["sub"], "alice");
}

#[tokio::test]
async fn a_receipt_is_for_who_may_read_a_file_that_has_arrived() {
    let world = world();
    for (tenant, subject, scope, want) in [
        ("acme", "bob", "files:read", Some(Code::NotFound)),
        ("globex", "alice", "files:read", Some(Code::NotFound)),
        ("globex", "alice", "files:read:tenant", Some(Code::NotFound)),
        ("acme", "bob", "files:read:tenant", None),
        ("acme", "alice", "files:read", None),
    ] {
        let caller = callers::machine(tenant, subject, scope, start());
        assert_eq!(world.receipt(&caller).await.err(), want, "{tenant} {subject} {scope}");
    }
    for id in ["", "x", "01920000-0000-7000-8000-0000000000f2", "01920000-0000-7000-8000-0000000000F1"] {
        let refused = world.download.receipt(&alice(), &request(("id", id), &[], "")).await.unwrap_err();
        assert_eq!(refused.code, Code::NotFound, "{id}");
    }
    let cases: [(&[Fact], Option<Code>); 6] = [
        (&[], Some(Code::FileNotReady)),
        (&[Fact::verdict("v1", "NO_THREATS_FOUND")], Some(Code::FileNotReady)),
        (&[Fact::created("v1", "ok", false)], None),
        (&[Fact::created("v1", "ok", false), Fact::verdict("v1", "UNSUPPORTED")], None),
        (&[Fact::created("v1", "size", true)], Some(Code::FileUnavailable)),
        (&[Fact::created("v1", "ok", false), Fact::verdict("v1", "THREATS_FOUND")], Some(Code::FileUnavailable)),
    ];
    for (facts, want) in cases {
        let world = support::world(Scan::Off);
        world.files.change(ID, |row| row.received_ms = Some(0));
        facts.iter().for_each(|fact| world.files.record(ID, fact.clone()));
        assert_eq!(world.receipt(&alice()).await.err(), want, "{facts:?}");
        assert_eq!(world.receipts.signatures(), usize::from(want.is_none()));
    }
    let deleted = self::world();
    deleted.files.change(ID, |row| row.deleted = true);
    assert_eq!(deleted.receipt(&alice()).await.err(), Some(Code::FileUnavailable));
}

#[tokio::test]
async fn a_receipt_is_no_token_and_a_changed_one_is_no_receipt() {
    let world = world();
    let receipt = world.receipt(&alice()).await.unwrap();
    let jwks = world.jwks().await.unwrap();
    // Even to somebody who was led to believe that the receipts' keys are the issuer's.
    let keys = KeySet::parse(&jwks, &[Algorithm::Es256]).unwrap();
    assert!(access_token(&receipt, ISSUER, AUDIENCE, &keys, start()).is_err());
    let mut asked = request(("id", &ID.to_string()), &[("authorization", &format!("Bearer {receipt}"))], "");
    asked.resource = "/files/{id}/receipt".to_owned();
    Issuer::new("k1").publish(&world.trust, start());
    assert_eq!(world.download.answer(&asked, &invocation()).await.unwrap_err().code, Code::Unauthorized);

    assert!(opened(&receipt, &jwks).is_some());
    let stranger = Issuer::new("theirs");
    let parts: Vec<&str> = receipt.split('.').collect();
    let claims = json!({ "iss": ISSUER, "sub": "mallory" }).to_string();
    let forged = [
        stranger.sign_bytes(&from_base64url(parts[0]).unwrap(), &from_base64url(parts[1]).unwrap()),
        format!("{}.{}.{}", parts[0], shared::encoding::base64url(claims.as_bytes()), parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
    ];
    for forged in forged {
        assert!(opened(&forged, &jwks).is_none(), "{forged}");
    }
}

#[tokio::test]
async fn without_kms_there_is_no_receipt_and_the_rest_goes_on() {
    let world = world();
    world.receipts.set_down(true);
    assert_eq!(world.receipt(&alice()).await.err(), Some(Code::ServiceUnavailable));
    assert_eq!(world.jwks().await.err(), Some(Code::ServiceUnavailable));
    let asked = request(("id", &ID.to_string()), &[], "");
    assert_eq!(world.download.read(&alice(), &asked, download::Route::Content).await.unwrap().status(), 302);
    // What failed is asked again; what was learnt is not.
    world.receipts.set_down(false);
    world.receipt(&alice()).await.unwrap();
    world.jwks().await.unwrap();
    world.files.set_down(true);
    assert_eq!(world.receipt(&alice()).await.err(), Some(Code::ServiceUnavailable));
    assert_eq!(world.receipts.signatures(), 1);
}

#[tokio::test]
async fn the_key_set_holds_one_key_and_public_members_only() {
    let jwks = world().jwks().await.unwrap();
    let names: Vec<&String> = jwks["keys"][0].as_object().unwrap().keys().collect();
    let mut names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 1);
}
