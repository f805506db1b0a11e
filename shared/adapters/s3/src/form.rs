//! Signed forms (S3 `POST Object`, "Browser-based uploads using POST"), which the SDK cannot make.
//!
//! The policy fixes every field of the form but the signature; the string to sign is the policy in base64 itself, signed
//! with the derived key of Signature Version 4. There is no `starts-with` in it: nothing is left for its holder to choose
//! but the bytes.

use std::time::SystemTime;

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use shared::clock::Timestamp;
use shared::name::Malformed;
use shared::object::{FormTerms, SignedForm, SignerSession, UrlLife};

use crate::stamp::{at, compact, text};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// What S3 answers a form that it took: nothing to read, nowhere to go.
const DONE: &str = "204";
/// The largest form without its file that S3 takes is 20 KB; the policy stands in it once more in base64.
const LONGEST_POLICY: usize = 8 * 1024;

/// Where a form goes, and what every object must be encrypted under.
pub(crate) struct Place<'a> {
    pub(crate) url: &'a str,
    pub(crate) region: &'a str,
    pub(crate) bucket: &'a str,
    pub(crate) bucket_key: &'a str,
}

/// The form, signed at the whole second that has begun.
pub(crate) fn sign(
    place: &Place<'_>,
    session: &SignerSession,
    terms: &FormTerms,
    now: Timestamp,
    life: UrlLife,
) -> Result<SignedForm, Malformed> {
    let (date, expiration) = (compact(now)?, text(life.ends(now))?.replace('Z', ".000Z"));
    let day = date.get(..8).ok_or(Malformed("date"))?;
    let credential = format!("{}/{day}/{}/s3/aws4_request", session.access_key_id, place.region);
    let key = terms.key.to_string();
    let mut fields = vec![
        ("success_action_status", DONE.to_owned()),
        ("x-amz-server-side-encryption", "aws:kms".to_owned()),
        ("x-amz-server-side-encryption-aws-kms-key-id", place.bucket_key.to_owned()),
        ("x-amz-checksum-algorithm", "SHA256".to_owned()),
        ("x-amz-algorithm", ALGORITHM.to_owned()),
        ("x-amz-credential", credential),
        ("x-amz-date", date),
    ];
    let token = session.session_token.expose();
    if !token.is_empty() {
        fields.push(("x-amz-security-token", token.to_owned()));
    }
    let mut conditions = vec![
        json!({ "bucket": place.bucket }),
        json!(["eq", "$key", key]),
        json!(["content-length-range", 1, terms.longest.bytes()]),
        json!(["eq", "$Content-Type", terms.content_type.declared()]),
    ];
    conditions.extend(fields.iter().map(|(name, value)| json!({ (*name): value })));
    let policy = policy(&expiration, &conditions);
    if policy.len() > LONGEST_POLICY {
        return Err(Malformed("policy"));
    }
    let policy = STANDARD.encode(policy);
    let signature = signature(session.secret_access_key.expose(), at(now)?, place.region, &policy);
    fields.splice(0..0, [("key", key), ("Content-Type", terms.content_type.declared().to_owned())]);
    fields.extend([("policy", policy), ("x-amz-signature", signature)]);
    Ok(SignedForm::new(place.url.to_owned(), fields))
}

/// Compact, with the expiration first, as AWS writes it.
fn policy(expiration: &str, conditions: &[Value]) -> String {
    let conditions = Value::from(conditions.to_vec());
    format!("{{\"expiration\":\"{expiration}\",\"conditions\":{conditions}}}")
}

fn signature(secret: &str, at: SystemTime, region: &str, policy: &str) -> String {
    calculate_signature(generate_signing_key(secret, at, region, "s3"), policy.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use shared::digest::sha256;
    use shared::encoding::hex;
    use shared::object::{ContentType, ObjectKey, Size};
    use shared::secret::SecretString;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const KMS_KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    /// 2015-12-29T00:00:00Z
    const START: Timestamp = Timestamp::from_seconds(1_451_347_200);

    fn session(token: &str) -> SignerSession {
        SignerSession {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: SecretString::new(SECRET.to_owned()),
            session_token: SecretString::new(token.to_owned()),
            issued_at: START,
            expires_at: START.plus_seconds(900),
        }
    }

    fn terms() -> FormTerms {
        FormTerms {
            key: ObjectKey::parse("t/acme/01920000-0000-7000-8000-0000000000f1").unwrap(),
            longest: Size::of_put(1_048_576).unwrap(),
            content_type: ContentType::parse("image/png").unwrap(),
        }
    }

    fn form(token: &str, now: Timestamp) -> SignedForm {
        let place = Place {
            url: "https://examplebucket.s3.us-east-1.amazonaws.com/",
            region: "us-east-1",
            bucket: "examplebucket",
            bucket_key: KMS_KEY,
        };
        let life = UrlLife::within(300, START.plus_seconds(900), START).unwrap();
        sign(&place, &session(token), &terms(), now, life).unwrap()
    }

    fn fields(form: &SignedForm) -> BTreeMap<&'static str, String> {
        form.expose().iter().cloned().collect()
    }

    /// "Signature Calculations in AWS Signature Version 4: Authenticating HTTP POST Requests", the example.
    #[test]
    fn the_example_that_aws_publishes_has_its_signature() {
        let policy = include_str!("../tests/aws-post-policy.json").replace('\n', "\r\n");
        let policy = policy.trim_end();
        assert_eq!(policy.len(), 648);
        assert_eq!(hex(&sha256(policy.as_bytes())), "bdbc873103bd66b82f3a98478e5938ca1c7d8204563309232bdd4b1bbdcf74fb");
        let signature = signature(SECRET, at(START).unwrap(), "us-east-1", &STANDARD.encode(policy));
        assert_eq!(signature, "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e");
    }

    #[test]
    fn the_derived_keys_that_are_published_are_derived() {
        for (seconds, want) in [
            (1_369_353_600, "dbb893acc010964918f1fd433add87c70e8b0db6be30c1fbeafefa5ec6ba8378"),
            (1_451_347_200, "cbcef1ebeaefc82cce6530b9f0a9ae598846065f5c5bae0674bd5ebc4ba52d28"),
        ] {
            let key = generate_signing_key(SECRET, at(Timestamp::from_seconds(seconds)).unwrap(), "us-east-1", "s3");
            assert_eq!(hex(key.as_ref()), want);
        }
    }

    /// Computed apart, with the HMAC of Python's standard library.
    #[test]
    fn a_form_has_its_known_answer() {
        let form = form("TOKEN/EXAMPLE+1==", START);
        let found = fields(&form);
        let policy = STANDARD.decode(&found["policy"]).unwrap();
        assert_eq!(policy.len(), 649);
        assert_eq!(hex(&sha256(&policy)), "5aa4bbad48a0b2d9bc42f2e78e6986423675220750e2b9a74b6a9323591d49f6");
        assert_eq!(found["x-amz-signature"], "31c2153df59eaad96e793b6ce5f126225133b6f10292d163861f4f004c71c2eb");
        assert_eq!(form.url, "https://examplebucket.s3.us-east-1.amazonaws.com/");
    }

    #[test]
    fn every_field_but_the_signature_stands_in_the_policy_with_its_one_value() {
        for token in ["", "TOKEN/EXAMPLE+1=="] {
            let found = fields(&form(token, START));
            let policy: Value = serde_json::from_slice(&STANDARD.decode(&found["policy"]).unwrap()).unwrap();
            let mut fixed = BTreeMap::new();
            for condition in policy["conditions"].as_array().unwrap() {
                match condition {
                    Value::Object(one) => fixed.extend(one.iter().map(|(name, value)| (name.clone(), value.clone()))),
                    Value::Array(rule) if rule[0] == "eq" => {
                        let name = rule[1].as_str().unwrap().trim_start_matches('$');
                        fixed.insert(name.to_owned(), rule[2].clone());
                    }
                    rule => assert_eq!(rule, &json!(["content-length-range", 1, 1_048_576])),
                }
            }
            assert_eq!(fixed.remove("bucket"), Some(json!("examplebucket")));
            let mut sent = found.clone();
            assert!(sent.remove("policy").is_some() && sent.remove("x-amz-signature").is_some());
            let sent: BTreeMap<String, Value> =
                sent.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
            assert_eq!(fixed, sent);
            assert_eq!(found.contains_key("x-amz-security-token"), !token.is_empty());
        }
    }

    #[test]
    fn a_form_ends_when_its_life_ends_and_starts_at_the_whole_second() {
        let found = fields(&form("t", START.plus_millis(999)));
        let policy: Value = serde_json::from_slice(&STANDARD.decode(&found["policy"]).unwrap()).unwrap();
        assert_eq!(policy["expiration"], "2015-12-29T00:05:00.000Z");
        assert_eq!(found["x-amz-date"], "20151229T000000Z");
    }

    #[test]
    fn a_policy_that_s3_would_not_take_is_not_signed() {
        let place = Place { url: "https://h/", region: "us-east-1", bucket: "b", bucket_key: KMS_KEY };
        let life = UrlLife::within(300, START.plus_seconds(900), START).unwrap();
        let long = session(&"t".repeat(LONGEST_POLICY));
        assert!(sign(&place, &long, &terms(), START, life).is_err());
        let before_time = Timestamp::from_seconds(-1);
        assert!(sign(&place, &session(""), &terms(), before_time, life).is_err());
    }
}
