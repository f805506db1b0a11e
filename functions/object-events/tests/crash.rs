//! A crash between any two steps: whichever call of the function is the last that goes through, and whether its effect was there or not
//! when its answer got lost, what comes again brings every file to the same end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use object_events::{Config, ObjectEvents};
use serde_json::{Value, json};
use shared::boot::{Handler, Invocation};
use shared::clock::{Clock, Timestamp};
use shared::object::Scan;
use testkit::crash::{Fragile, Fuse};
use testkit::objects::BUCKET_KEY;
use testkit::{Files, FixedClock, Objects};
use uuid::{Uuid, uuid};

const ID: Uuid = uuid!("01920000-0000-7000-8000-0000000000f1");
const KEY: &str = "t/acme/01920000-0000-7000-8000-0000000000f1";
/// As often as Lambda brings an event, and more.
const TRIES: usize = 5;

struct World {
    function: ObjectEvents<Fragile<Files>, Fragile<Objects>, FixedClock>,
    files: Files,
    objects: Objects,
    clock: FixedClock,
    fuse: Fuse,
}

fn world(at: usize, after: bool) -> World {
    let (files, objects) = (Files::default(), Objects::default());
    let clock = FixedClock::at(Timestamp::from_seconds(1_800_000_000));
    files.seed(ID, "acme", "alice");
    files.change(ID, |row| {
        row.created_ms = clock.now().millis();
        row.url_expires_ms = clock.now().plus_seconds(300).millis();
    });
    let config = Config {
        env: "test".to_owned(),
        object_bucket: "objects".to_owned(),
        bucket_key: BUCKET_KEY.to_owned(),
        scan: Scan::GuardDuty,
    };
    let fuse = Fuse::new(at, after);
    let (database, store) = (fuse.behind(files.clone()), fuse.behind(objects.clone()));
    let function = ObjectEvents { database, objects: store, clock: clock.clone(), config };
    World { function, files, objects, clock, fuse }
}

impl World {
    /// Brings an event until the function takes it.
    async fn bring(&self, event: &Value, pause: i64) {
        for _ in 0..TRIES {
            let deadline = self.clock.now().plus_seconds(30);
            let invocation = Invocation { request_id: "i-1".to_owned(), deadline, function_arn: "arn".to_owned() };
            if self.function.handle(event.clone(), &invocation).await.is_ok() {
                return;
            }
            self.clock.advance(pause);
        }
        panic!("the function never took {event}");
    }

    fn status(&self) -> &'static str {
        self.files.row(ID).unwrap().status()
    }

    /// One lost call fails at most one of these runs, and the next goes on: every file must be where it would be without.
    async fn swept(&self) {
        for _ in 0..2 {
            self.bring(&scheduled(), 600).await;
            self.clock.advance(3_600);
        }
    }
}

fn created(version: &str) -> Value {
    json!({ "source": "aws.s3", "detail-type": "Object Created",
        "detail": { "bucket": { "name": "objects" }, "object": { "key": KEY, "version-id": version } } })
}

fn clean(version: &str) -> Value {
    json!({ "version": "0", "source": "aws.guardduty", "detail-type": "GuardDuty Malware Protection Object Scan Result",
        "account": "111122223333", "resources": ["arn:aws:guardduty:us-east-1:111122223333:malware-protection-plan/p"],
        "detail": { "schemaVersion": "1.0", "scanStatus": "COMPLETED", "resourceType": "S3_OBJECT",
            "s3ObjectDetails": { "bucketName": "objects", "objectKey": KEY, "eTag": "e", "versionId": version },
            "scanResultDetails": { "scanResultStatus": "NO_THREATS_FOUND", "threats": null } } })
}

fn scheduled() -> Value {
    json!({ "version": "0", "id": "x", "detail-type": "Scheduled Event", "source": "aws.events", "account": "111122223333",
        "time": "2026-01-01T00:00:00Z", "region": "us-east-1", "resources": ["arn:aws:events:us-east-1:111122223333:rule/r"],
        "detail": {} })
}

/// A file's whole life; answers how many calls it took.
async fn live(at: usize, after: bool) -> usize {
    let what = format!("call {at} lost {}", if after { "after its effect" } else { "before it" });
    let world = world(at, after);
    world.objects.put(KEY, "v1", "text/plain", b"hello world");
    world.bring(&created("v1"), 60).await;
    world.bring(&clean("v1"), 60).await;
    assert_eq!(world.status(), "clean", "{what}");
    // What is alive stays, however long and often somebody sweeps.
    world.clock.advance(3 * 24 * 3_600);
    world.swept().await;
    assert_eq!((world.status(), world.objects.versions(KEY)), ("clean", vec!["v1".to_owned()]), "{what}");
    // Its end, and that of what nobody told of.
    world.files.change(ID, |row| row.deleted = true);
    world.objects.put(KEY, "v2", "text/plain", b"a version without an event");
    world.swept().await;
    assert!(world.objects.versions(KEY).is_empty(), "{what}: {:?}", world.objects.versions(KEY));
    let row = world.files.row(ID).unwrap();
    assert_eq!((row.status(), row.purged_ms.is_some()), ("deleted", true), "{what}");
    world.fuse.made()
}

#[tokio::test]
async fn a_crash_between_any_two_steps_of_a_files_life_changes_nothing_of_its_end() {
    let calls = live(usize::MAX, false).await;
    assert!(calls > 10, "{calls}");
    for at in 0..calls {
        for after in [false, true] {
            live(at, after).await;
        }
    }
}

/// The same for a file of which no event told, and for one that was never filled.
#[tokio::test]
async fn a_crash_between_any_two_steps_of_a_sweep_neither_loses_nor_keeps_a_file() {
    for filled in [true, false] {
        let story = async |at: usize, after: bool| {
            let what = format!("filled: {filled}, call {at}, after: {after}");
            let world = world(at, after);
            if filled {
                world.objects.put(KEY, "v1", "text/plain", b"hello world");
                world.clock.advance(361);
                world.swept().await;
                assert_eq!(world.status(), "scanning", "{what}");
                world.bring(&clean("v1"), 60).await;
                world.clock.advance(2 * 24 * 3_600);
                world.swept().await;
                assert_eq!((world.status(), world.objects.versions(KEY).len()), ("clean", 1), "{what}");
            } else {
                world.clock.advance(2 * 24 * 3_600);
                world.swept().await;
                assert_eq!(world.status(), "expired", "{what}");
            }
            world.fuse.made()
        };
        let calls = story(usize::MAX, false).await;
        for at in 0..calls {
            for after in [false, true] {
                story(at, after).await;
            }
        }
    }
}
