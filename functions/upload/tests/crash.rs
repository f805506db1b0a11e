//! A crash between any two steps of an upload: whichever call is lost, before its effect or after, a client who repeats himself
//! ends with one file and one object.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod support;

use serde_json::{Value, json};
use shared::entropy::SystemEntropy;
use shared::gate::Gate;
use shared::object::Sha256Digest;
use shared::problem::Code;
use shared::trust::Accepts;
use support::{answer, caller, request, start};
use testkit::crash::{Fragile, Fuse};
use testkit::{Files, FixedClock, Signing, TrustBucket};
use upload::Upload;

const EACH: u64 = 5 << 20;
const TRIES: usize = 6;

struct World {
    upload: Upload<TrustBucket, Fragile<Files>, Fragile<Signing>, Signing, Fragile<Signing>, FixedClock, SystemEntropy>,
    files: Files,
    signing: Signing,
    fuse: Fuse,
}

fn world(at: usize, after: bool) -> World {
    let clock = FixedClock::at(start());
    let (files, signing) = (Files::default(), Signing::new(clock.clone()));
    let fuse = Fuse::new(at, after);
    let accepts = Accepts { issuer: "https://gate.test".to_owned(), audience: "api".to_owned() };
    let upload = Upload {
        gate: Gate::new("upload", accepts, TrustBucket::default(), clock.clone()),
        database: fuse.behind(files.clone()),
        sessions: fuse.behind(signing.clone()),
        presign: signing.clone(),
        parts: fuse.behind(signing.clone()),
        clock,
        entropy: SystemEntropy,
    };
    World { upload, files, signing, fuse }
}

impl World {
    async fn create(&self, body: &Value) -> Result<Value, Code> {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "order-7")];
        let made = self.upload.create(&caller("acme", "alice"), &request(None, &headers, body.to_string())).await;
        made.map(|response| answer(&response)).map_err(|problem| problem.code)
    }

    /// Signs for all parts and sends what got a URL, as the recipes do; then asks for one object.
    async fn send(&self, id: &str) -> Result<Value, Code> {
        let alice = caller("acme", "alice");
        let part = |number: u64| {
            let sha256 = Sha256Digest::of(format!("part {number}").as_bytes()).to_string();
            json!({ "part": number, "size": if number == 3 { 7 } else { EACH }, "sha256": sha256 })
        };
        let body = json!({ "parts": [part(1), part(2), part(3)], "resume": true }).to_string();
        let json = [("Content-Type", "application/json")];
        match self.upload.sign_parts(&alice, &request(Some(id), &json, body)).await {
            Ok(response) => {
                let wanted = answer(&response)["parts"].as_array().unwrap().len();
                let all = self.signing.parts();
                for (terms, _) in &all[all.len() - wanted..] {
                    self.signing.send(terms);
                }
            }
            // Completed already, though nobody heard of it.
            Err(problem) if problem.code == Code::FileAlreadyUploaded => {}
            Err(problem) => return Err(problem.code),
        }
        let done = self.upload.complete(&alice, &request(Some(id), &json, "")).await;
        done.map(|response| answer(&response)).map_err(|problem| problem.code)
    }
}

/// What may pass when it is tried again; anything else would end the client's try for good.
fn passes(code: Code) -> bool {
    matches!(code, Code::ServiceUnavailable | Code::SignerUnavailable | Code::PartsMissing)
}

async fn upload(at: usize, after: bool) -> usize {
    let what = format!("call {at} lost {}", if after { "after its effect" } else { "before it" });
    let world = world(at, after);
    let body = json!({ "name": "a.zip", "content_type": "application/zip", "size": 2 * EACH + 7, "part_size": EACH,
        "mode": "multipart" });
    let mut id = None;
    for _ in 0..TRIES {
        match world.create(&body).await {
            Ok(plan) => {
                id = plan["id"].as_str().map(str::to_owned);
                break;
            }
            Err(code) => assert!(passes(code), "{what}: {code:?}"),
        }
    }
    let id = id.unwrap_or_else(|| panic!("{what}: no plan"));
    let mut done = None;
    for _ in 0..TRIES {
        match world.send(&id).await {
            Ok(said) => {
                done = Some(said);
                break;
            }
            Err(code) => assert!(passes(code), "{what}: {code:?}"),
        }
    }
    assert_eq!(done.unwrap_or_else(|| panic!("{what}: never whole"))["id"], id.as_str(), "{what}");
    let rows = world.files.ids();
    assert_eq!(rows.len(), 1, "{what}: the same key makes one file");
    let row = world.files.row(rows[0]).unwrap();
    assert!(row.completed, "{what}");
    assert_eq!(world.signing.completed(), [format!("t/acme/{id}")], "{what}: one object");
    // What was begun and lost is nobody's: S3's lifecycle ends it in a day. Never more than the one that was lost.
    assert!(world.signing.open_uploads().len() <= 1, "{what}: {:?}", world.signing.open_uploads());
    world.fuse.made()
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_an_upload_in_parts_ends_with_one_file_and_one_object() {
    let calls = upload(usize::MAX, false).await;
    assert!(calls >= 8, "{calls}");
    for at in 0..calls {
        for after in [false, true] {
            upload(at, after).await;
        }
    }
}
