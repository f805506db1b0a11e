//! The function over one fake world, and requests to it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use download::{Download, Receipts};
use serde_json::Value;
use shared::boot::Invocation;
use shared::clock::Timestamp;
use shared::entropy::SystemEntropy;
use shared::gate::Gate;
use shared::http::{Headers, Request, Response};
use shared::object::Scan;
use shared::trust::Accepts;
use testkit::issuer::{AUDIENCE, ISSUER, KEY};
use testkit::{Files, FixedClock, Issuer, Signing, TrustBucket};
use uuid::{Uuid, uuid};

/// The file that every world has: a pending one of `alice` in `acme`.
pub const ID: Uuid = uuid!("01920000-0000-7000-8000-0000000000f1");

pub struct World {
    pub download: Download<TrustBucket, Files, Signing, Signing, Issuer, FixedClock, SystemEntropy>,
    pub files: Files,
    pub signing: Signing,
    /// The key of receipts.
    pub receipts: Issuer,
    pub trust: TrustBucket,
    pub clock: FixedClock,
}

pub fn start() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

/// A world where nobody is trusted yet.
pub fn world(scan: Scan) -> World {
    let (clock, trust, receipts) = (FixedClock::at(start()), TrustBucket::default(), Issuer::new("receipts"));
    let (files, signing) = (Files::default(), Signing::new(clock.clone()));
    files.seed(ID, "acme", "alice");
    let accepts = Accepts { issuer: ISSUER.to_owned(), audience: AUDIENCE.to_owned() };
    let download = Download {
        base: ISSUER.to_owned(),
        gate: Gate::new("download", accepts, trust.clone(), clock.clone()),
        database: files.clone(),
        sessions: signing.clone(),
        presign: signing.clone(),
        receipts: Receipts::new(receipts.clone(), KEY.to_owned()),
        clock: clock.clone(),
        entropy: SystemEntropy,
        scan,
    };
    World { download, files, signing, receipts, trust, clock }
}

/// A request with one path parameter.
pub fn request(parameter: (&str, &str), headers: &[(&str, &str)], body: &str) -> Request {
    let headers: Headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (name, value) = parameter;
    Request {
        method: "GET".to_owned(),
        resource: "/files/{id}".to_owned(),
        path: format!("/files/{value}"),
        path_parameters: [(name.to_owned(), value.to_owned())].into(),
        query: Vec::new(),
        headers,
        body: body.into(),
        authorizer: None,
        request_id: "r-1".to_owned(),
    }
}

pub fn answer(response: &Response) -> Value {
    serde_json::from_str(response.body()).unwrap()
}

pub fn invocation() -> Invocation {
    Invocation { request_id: "i-1".to_owned(), deadline: start().plus_seconds(10), function_arn: "arn".to_owned() }
}
