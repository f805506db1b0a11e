//! Project Wycheproof's vectors for JWS and JWK (C2SP/wycheproof, Apache-2.0, as packaged in `wycheproof-ng-kdf-jose`).
//!
//! Their payloads are no claims, so that everything up to the signature is asked: the key set, the form, header and signature.
//! Nothing that they call invalid is taken; what they call valid and we refuse is named with its reason.

use serde_json::{Value, json};
use wycheproof_ng_kdf_jose::json_web::{TestGroup, TestName, TestSet};

use super::*;

const ALL: [Algorithm; 5] = [Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256, Algorithm::Ps256, Algorithm::EdDsa];

/// Refused by us though called valid: an algorithm that key or header names, or the test's own name, and why.
const REFUSED: [(&str, &str); 10] = [
    ("HS256", "no symmetric key has a place here"),
    ("HS384", "no symmetric key has a place here"),
    ("HS512", "no symmetric key has a place here"),
    ("RS384", "no client and no issuer of ours signs with it"),
    ("RS512", "no client and no issuer of ours signs with it"),
    ("PS384", "no client and no issuer of ours signs with it, and two vectors name it over a key for PS256"),
    ("PS512", "no client and no issuer of ours signs with it"),
    ("ES521", "it is called ES512, and we have no P-521"),
    ("ES512", "we have no P-521"),
    ("emptyPayload", "a token without claims is none, and an empty part is refused before its signature"),
];

/// The group's public key or key set, as a set; the private one where only that is given.
fn set_of(group: &TestGroup) -> Value {
    let key = group.public_key.clone().or(group.private_key.clone()).unwrap();
    if key.get("keys").is_some() { key } else { json!({ "keys": [key] }) }
}

/// Whether the key set is read and the signature holds under one of its keys; our words for it where not.
fn judge(set: &Value, jws: &Value) -> Result<(), String> {
    let keys = KeySet::parse(set, &ALL).map_err(|_| "the key set is refused".to_owned())?;
    let text = jws.as_str().ok_or("no compact serialisation")?;
    let compact =
        Compact::read(text, |_| Ok(Map::new())).and_then(|compact| compact.without(|name| FORBIDDEN.contains(&name)));
    let compact = compact.map_err(|reason| reason.as_str().to_owned())?;
    compact.verify(&keys).map(|_| ()).map_err(|reason| reason.as_str().to_owned())
}

/// The algorithms that the key and the header name.
fn algorithms(set: &Value, jws: &Value) -> Vec<String> {
    let header = jws.as_str().and_then(|text| from_base64url(text.split('.').next()?));
    let header: Value = header.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let keys = set["keys"].as_array().cloned().unwrap_or_default();
    keys.iter().chain([&header]).filter_map(|of| of["alg"].as_str().map(str::to_owned)).collect()
}

fn run(name: TestName) -> (usize, usize) {
    let (mut alike, mut apart) = (0, 0);
    for group in TestSet::load(name).unwrap().test_groups {
        let set = set_of(&group);
        for test in &group.tests {
            let jws = test.jws.clone().unwrap_or_default();
            let valid = format!("{:?}", test.result) == "Valid";
            let told = format!("{name:?} {}, {}: {}", test.tc_id, group.group_comment, test.comment);
            match (valid, judge(&set, &jws)) {
                (true, Ok(())) | (false, Err(_)) => alike += 1,
                (true, Err(said)) => {
                    apart += 1;
                    let named = algorithms(&set, &jws);
                    let known =
                        REFUSED.iter().any(|(what, _)| named.iter().chain([&test.comment]).any(|name| name == what));
                    assert!(known, "{told}: valid, and refused without a reason: {said} {named:?}");
                }
                (false, Ok(())) => panic!("{told}: invalid, and taken"),
            }
        }
    }
    (alike, apart)
}

#[test]
fn of_wycheproofs_signatures_none_that_is_invalid_holds() {
    assert_eq!(run(TestName::JsonWebSignature), (369, 32), "as they say, and apart with a reason");
}

#[test]
fn of_wycheproofs_keys_none_that_is_invalid_is_used() {
    assert_eq!(run(TestName::JsonWebKey), (22, 4), "as they say, and apart with a reason");
}
