//! The function over one fake world, and requests to it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses what it needs of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use serde_json::Value;
use shared::boot::Invocation;
use shared::clock::Timestamp;
use shared::entropy::SystemEntropy;
use shared::gate::{Caller, Gate};
use shared::http::{Headers, Request, Response};
use shared::trust::Accepts;
use testkit::{Files, FixedClock, Signing, TrustBucket, callers};
use upload::Upload;
use uuid::{Uuid, uuid};

/// The file that a world may be seeded with.
pub const ID: Uuid = uuid!("01920000-0000-7000-8000-0000000000f1");
pub const DAY: i64 = 24 * 60 * 60;

pub struct World {
    pub upload: Upload<TrustBucket, Files, Signing, Signing, Signing, FixedClock, SystemEntropy>,
    pub files: Files,
    pub signing: Signing,
    pub clock: FixedClock,
}

pub fn start() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_250)
}

/// A world without files, where nobody is trusted.
pub fn empty() -> World {
    let clock = FixedClock::at(start());
    let (files, signing) = (Files::default(), Signing::new(clock.clone()));
    let accepts = Accepts { issuer: "https://gate.test".to_owned(), audience: "api".to_owned() };
    let upload = Upload {
        gate: Gate::new("upload", accepts, TrustBucket::default(), clock.clone()),
        database: files.clone(),
        sessions: signing.clone(),
        presign: signing.clone(),
        parts: signing.clone(),
        clock: clock.clone(),
        entropy: SystemEntropy,
    };
    World { upload, files, signing, clock }
}

/// A world with one pending file of alice's, made now.
pub fn pending() -> World {
    let world = empty();
    world.files.seed(ID, "acme", "alice");
    world.files.change(ID, |row| row.created_ms = start().millis());
    world
}

pub fn caller(tenant: &str, subject: &str) -> Caller {
    callers::machine(tenant, subject, "files:write", start())
}

/// A request about the file `id`, or about none.
pub fn request(id: Option<&str>, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Request {
    let headers: Headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request {
        method: "POST".to_owned(),
        resource: "/files".to_owned(),
        path: "/files".to_owned(),
        path_parameters: id.map(|id| ("id".to_owned(), id.to_owned())).into_iter().collect(),
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
