//! Trust objects as a large installation has them: very many revocations, and policies by number.
//!
//! They lie beside the stack's own, in a server that does nothing but hand them out, so that nobody publishes over them meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::StatusCode;
use local::http::{Request, Response, Server, answer, bind, serve};
use local::stack::Stack;
use serde_json::{Value, json};
use shared::clock::{Clock as _, SystemClock};
use shared::policy::{Bundle, Policy, Release, Unfit};
use shared::trust::{Envelope, Revocations, Revoked};

/// How many tokens are revoked.
pub(crate) const REVOKED: usize = 100_000;
/// Of a thousand policies this many can apply to what is asked.
const APPLY: usize = 10;
/// Longer than any run, in milliseconds.
const LIFE: i64 = 86_400_000;
/// The objects that stay as the stack published them.
const KEPT: [&str; 3] = ["trust/keys.json", "trust/posture.json", "trust/profiles.json"];

/// A bucket of such objects.
pub(crate) struct Laden {
    /// What the authorizer is called that reads them.
    pub(crate) program: &'static str,
    /// Where the bucket is.
    pub(crate) url: String,
    calls: Arc<AtomicU64>,
    _server: Server,
}

impl Laden {
    /// One with 10 policies that can apply, one with 100, and one with 1,000 of which 10 can.
    pub(crate) async fn all(stack: &Stack) -> io::Result<Vec<Self>> {
        let unfit = |unfit: Unfit| io::Error::other(format!("the bench's policies are unfit: {unfit:?}"));
        let bundles = [
            ("authorizer (10)", bundle(10, 0)),
            ("authorizer (100)", bundle(100, 0)),
            ("authorizer (1,000)", bundle(APPLY, 1_000 - APPLY)),
        ];
        let mut laden = Vec::new();
        for (program, bundle) in bundles {
            laden.push(Self::open(program, stack, bundle.map_err(unfit)?, REVOKED).await?);
        }
        Ok(laden)
    }

    /// How often something was asked of it.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// One of these policies and so many revocations.
    pub(crate) async fn open(program: &'static str, stack: &Stack, bundle: Bundle, revoked: usize) -> io::Result<Self> {
        let bucket = stack.places.trust_bucket;
        let mut bodies = BTreeMap::new();
        for key in KEPT {
            if let Some(object) = stack.s3.look(bucket, key).await {
                let object: Value = serde_json::from_slice(&object)?;
                bodies.insert(key, object.get("body").cloned().unwrap_or_default());
            }
        }
        bodies.entry("trust/posture.json").or_insert_with(|| json!({"tenants": {}}));
        let names: Vec<String> = (0..revoked).map(|number| format!("0198e1a0-0000-7000-8000-{number:012x}")).collect();
        let revoked = names.iter().map(|name| (Revoked::Token, name.as_str(), 0));
        bodies.insert("trust/revocations.json", Revocations::body(revoked, &[]));
        let release = Release { version: 1, hash: bundle.hash(), bundle };
        bodies.insert("trust/policies.json", json!({"active": release.to_value(), "candidate": null}));
        let now = SystemClock.now().millis();
        let sealed = bodies.into_iter().map(|(key, body)| {
            let sealed = Envelope { version: now, issued_at: now, not_after: now + LIFE, body }.seal();
            (format!("/{bucket}/{key}"), Bytes::from(sealed))
        });
        let (objects, calls) = (Arc::new(sealed.collect::<BTreeMap<_, _>>()), Arc::new(AtomicU64::new(0)));
        let counted = Arc::clone(&calls);
        let server = serve(bind().await?, None, 0, move |request| {
            counted.fetch_add(1, Ordering::Relaxed);
            let response = object(&objects, &request);
            async move { response }
        })
        .await?;
        Ok(Self { program, url: format!("http://{}", server.addr), calls, _server: server })
    }
}

/// What S3 answers to a conditional read. Nothing is ever written, so all objects have the one tag.
fn object(objects: &BTreeMap<String, Bytes>, request: &Request) -> Response {
    const TAG: &str = "\"bench\"";
    match objects.get(request.uri.path()) {
        None => answer(StatusCode::NOT_FOUND, &[], "<Error><Code>NoSuchKey</Code></Error>"),
        Some(_) if request.headers.get("if-none-match").is_some_and(|known| known == TAG) => {
            answer(StatusCode::NOT_MODIFIED, &[("etag", TAG)], "")
        }
        Some(object) => answer(StatusCode::OK, &[("etag", TAG)], object.clone()),
    }
}

/// The shipped bundle, with so many more policies that `apply` can apply to a machine that reads a file, and `others` that cannot.
pub(crate) fn bundle(apply: usize, others: usize) -> Result<Bundle, Unfit> {
    let mut bundle = Bundle::shipped()?;
    // Of those that are shipped one is about reading files.
    bundle.policies.extend((1..apply).map(|at| Policy { id: format!("applies-{at}"), text: applying(at) }));
    for at in 0..others {
        let id = format!("other-{at}");
        match at % 3 {
            0 => bundle.policies.push(Policy {
                id,
                text: format!(
                    r#"forbid (principal, action == Portcullis::Action::"app", resource == Portcullis::Route::"POST /app/{at}") when {{ !context.token.bound }};"#
                ),
            }),
            1 => bundle.policies.push(Policy {
                id,
                text: format!(
                    r#"forbid (principal == Portcullis::Workload::"partner-{at}", action in Portcullis::Action::"invoke", resource) when {{ !context.token.bound }};"#
                ),
            }),
            _ => {
                let text = r#"forbid (principal, action in Portcullis::Action::"invoke", resource) when { !context.token.bound };"#;
                bundle.tenants.insert(format!("tenant-{at}"), vec![Policy { id, text: text.to_owned() }]);
            }
        }
    }
    Bundle::parse(&bundle.to_value())
}

/// What operators write: networks, countries, devices, clients. Each is looked at and forbids nothing here; none reads the time.
fn applying(at: usize) -> String {
    let condition = match at % 5 {
        0 => format!(r#"context.net has country && context.net.country == "Z{at}""#),
        1 => format!(r#"context.net.ip.isInRange(ip("192.0.{}.{}/32"))"#, 2 + at / 256, at % 256),
        2 => format!(
            r#"context has device && context.device has disk_encrypted && !context.device.disk_encrypted && context.token.client_id == "kiosk-{at}""#
        ),
        3 => format!(r#"!context.token.bound && context.token.client_id == "partner-{at}""#),
        _ => format!(
            r#"context.token.operations.containsAny(["app", "fields:export"]) && context.token.client_id == "legacy-{at}""#
        ),
    };
    format!(r#"forbid (principal, action in Portcullis::Action::"invoke", resource) when {{ {condition} }};"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policies_are_as_many_as_the_cases_say() {
        for (apply, others, all) in [(10, 0, 18), (100, 0, 108), (APPLY, 1_000 - APPLY, 1_008)] {
            let bundle = bundle(apply, others).unwrap();
            assert_eq!(bundle.policies.len() + bundle.tenants.values().map(Vec::len).sum::<usize>(), all);
        }
    }
}
