//! The sweep in process: what may go, what must wait, and that one stubborn object holds up nobody else's.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

use object_events::{Config, ObjectEvents};
use serde_json::{Value, json};
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::{Clock, Timestamp};
use shared::object::Scan;
use testkit::files::Fact;
use testkit::objects::BUCKET_KEY;
use testkit::{Files, FixedClock, Objects};
use uuid::Uuid;

const DAY: i64 = 24 * 60 * 60;

struct World {
    function: ObjectEvents<Files, Objects, FixedClock>,
    files: Files,
    objects: Objects,
    clock: FixedClock,
}

fn world() -> World {
    let (files, objects) = (Files::default(), Objects::default());
    let clock = FixedClock::at(Timestamp::from_seconds(1_800_000_000));
    let config = Config {
        env: "test".to_owned(),
        object_bucket: "objects".to_owned(),
        bucket_key: BUCKET_KEY.to_owned(),
        scan: Scan::Off,
    };
    let function = ObjectEvents { database: files.clone(), objects: objects.clone(), clock: clock.clone(), config };
    World { function, files, objects, clock }
}

fn id(number: u64) -> Uuid {
    Uuid::parse_str(&format!("01920000-0000-7000-8000-{number:012x}")).unwrap()
}

fn key(number: u64) -> String {
    format!("t/acme/{}", id(number))
}

fn scheduled() -> Value {
    json!({ "version": "0", "id": "x", "detail-type": "Scheduled Event", "source": "aws.events", "account": "111122223333",
        "time": "2026-01-01T00:00:00Z", "region": "us-east-1", "resources": ["arn:aws:events:us-east-1:111122223333:rule/r"],
        "detail": {} })
}

fn created(number: u64, version: &str) -> Value {
    json!({ "source": "aws.s3", "detail-type": "Object Created",
        "detail": { "bucket": { "name": "objects" }, "object": { "key": key(number), "version-id": version } } })
}

impl World {
    /// A file made now, whose URL has five minutes.
    fn file(&self, number: u64) {
        let now = self.clock.now();
        self.files.seed(id(number), "acme", "alice");
        self.files.change(id(number), |row| {
            row.created_ms = now.millis();
            row.url_expires_ms = now.plus_seconds(300).millis();
        });
    }

    /// Such a file with one version in the bucket, recorded as `finding`.
    fn filled(&self, number: u64, finding: &str) {
        self.file(number);
        self.objects.put(&key(number), &format!("v-{number}"), "text/plain", b"hello world");
        self.files.record(
            id(number),
            Fact::Created {
                version: format!("v-{number}"),
                etag: "e".to_owned(),
                size: 11,
                sha256: None,
                finding: finding.to_owned(),
                scan_off: true,
            },
        );
    }

    async fn handle(&self, event: Value, seconds: i64) -> Result<Value, Failure> {
        let deadline = self.clock.now().plus_seconds(seconds);
        let invocation = Invocation { request_id: "i-1".to_owned(), deadline, function_arn: "arn".to_owned() };
        self.function.handle(event, &invocation).await
    }

    async fn sweep(&self) -> Result<Value, Failure> {
        self.handle(scheduled(), 30).await
    }

    fn is_purged(&self, number: u64) -> bool {
        self.files.row(id(number)).unwrap().purged_ms.is_some()
    }
}

#[tokio::test]
async fn bytes_of_an_ended_file_go_a_minute_after_its_last_url() {
    for (finding, deleted) in [("size", false), ("ok", true)] {
        let world = world();
        world.filled(1, finding);
        world.files.change(id(1), |row| row.deleted = deleted);
        for seconds in [0, 300, 59] {
            world.clock.advance(seconds);
            assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 0 }));
            assert_eq!(world.objects.versions(&key(1)), ["v-1"], "a URL may still be alive");
        }
        world.clock.advance(1);
        assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 1 }));
        assert!(world.objects.versions(&key(1)).is_empty() && world.is_purged(1));
        let status = world.files.row(id(1)).unwrap().status();
        assert_eq!(status, if deleted { "deleted" } else { "rejected" }, "the tombstone stays");
    }
}

#[tokio::test]
async fn what_lies_under_an_ended_files_key_goes_with_it_also_where_no_event_told_of_it() {
    for (finding, deleted) in [("size", false), ("ok", true)] {
        let world = world();
        world.filled(1, finding);
        world.files.change(id(1), |row| row.deleted = deleted);
        for version in ["w-1", "w-2"] {
            world.objects.put(&key(1), version, "text/plain", b"sent once more, and its event was lost");
        }
        // Somebody else's, and one whose row is gone: after a restore of the database it is the only copy of a file.
        world.filled(2, "ok");
        world.objects.put(&key(3), "v-3", "text/plain", b"hello world");
        world.clock.advance(360);
        // What cannot go is tried again, and the file is not taken for purged before.
        world.objects.set_stuck("w-1", true);
        assert!(world.sweep().await.is_err());
        assert!(!world.is_purged(1), "something is left");
        world.objects.set_stuck("w-1", false);
        world.clock.advance(600);
        assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 1 }));
        assert!(world.objects.versions(&key(1)).is_empty() && world.is_purged(1));
        assert_eq!(world.objects.versions(&key(2)), ["v-2"]);
        assert_eq!(world.objects.versions(&key(3)), ["v-3"]);
    }
}

#[tokio::test]
async fn an_expired_file_keeps_what_nobody_told_of() {
    let world = world();
    world.file(1);
    world.files.change(id(1), |row| row.expired = true);
    world.objects.put(&key(1), "v-1", "text/plain", b"hello world");
    world.clock.advance(360);
    world.sweep().await.unwrap();
    assert_eq!((world.objects.versions(&key(1)).len(), world.is_purged(1)), (1, true));
}

#[tokio::test]
async fn parts_that_no_object_came_of_are_ended_with_their_file() {
    let world = world();
    world.file(1);
    let in_parts = |row: &mut testkit::files::Row| {
        (row.mode, row.sha256, row.part_size) = ("multipart".to_owned(), None, Some(5 << 20));
        row.upload_id = Some("upload-1".to_owned());
    };
    world.files.change(id(1), in_parts);
    world.objects.set_stuck("upload-1", true);
    world.clock.advance(DAY);
    assert!(world.sweep().await.is_err(), "what does not go is told");
    assert_eq!((world.files.row(id(1)).unwrap().status(), world.is_purged(1)), ("expired", false));
    world.objects.set_stuck("upload-1", false);
    world.clock.advance(600);
    assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 1 }));
    assert_eq!(world.objects.aborted(), [(key(1), "upload-1".to_owned())]);
    assert!(world.is_purged(1) && world.files.row(id(1)).unwrap().upload_id.is_none());
}

#[tokio::test]
async fn what_lives_is_never_touched() {
    let world = world();
    world.filled(1, "ok");
    world.file(2);
    world.clock.advance(300 + DAY - 1);
    world.files.change(id(2), |row| row.created_ms += 301_000);
    world.sweep().await.unwrap();
    world.clock.advance(DAY * 400);
    world.files.change(id(2), |row| row.created_ms += DAY * 400 * 1000);
    world.sweep().await.unwrap();
    assert_eq!(world.objects.versions(&key(1)), ["v-1"]);
    assert_eq!(world.files.row(id(1)).unwrap().status(), "clean");
    assert_eq!(world.files.row(id(2)).unwrap().status(), "pending");
}

/// A generator of numbers that anybody can draw again (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Whatever happens to a dozen files, in orders that nobody thought of: events that come, come twice or never, URLs renewed, owners who
/// delete, days that pass. What the bucket holds of a file that has not ended is there after every sweep.
#[tokio::test]
async fn in_no_story_does_a_sweep_take_a_file_that_lives() {
    let (mut survived, mut ended) = (0, 0);
    for seed in 1..=60 {
        let (world, mut random) = (world(), Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)));
        (1..=12).for_each(|number| world.file(number));
        for step in 0..200 {
            let number = 1 + random.below(12);
            let (now, row) = (world.clock.now().millis(), world.files.row(id(number)).unwrap());
            let version = format!("v-{number}");
            let there = !world.objects.versions(&key(number)).is_empty();
            match random.below(9) {
                0 => world.clock.advance(i64::try_from(random.below(400)).unwrap()),
                1 => world.clock.advance(i64::try_from(random.below(40 * 3_600)).unwrap()),
                // Nothing is put but by a URL that is alive, and once.
                2 | 3 if !there && row.purged_ms.is_none() && now < row.url_expires_ms => {
                    world.objects.put(&key(number), &version, "text/plain", b"hello world");
                    if random.below(2) == 0 {
                        world.handle(created(number, &version), 30).await.unwrap();
                    }
                }
                4 if there => drop(world.handle(created(number, &version), 30).await.unwrap()),
                5 if random.below(6) == 0 => world.files.change(id(number), |row| row.deleted = true),
                6 if row.status() == "pending" && now < row.created_ms + DAY * 1_000 => {
                    world.files.change(id(number), |row| row.url_expires_ms = now + 300_000);
                }
                _ => {
                    let state = |number: u64| {
                        let row = world.files.row(id(number)).unwrap();
                        (row.status(), world.objects.versions(&key(number)))
                    };
                    let before: Vec<_> = (1..=12).map(state).collect();
                    world.sweep().await.unwrap();
                    for (number, (status, versions)) in (1..=12).zip(before) {
                        let (after, left) = state(number);
                        if matches!(status, "rejected" | "deleted" | "expired") {
                            assert_eq!(after, status, "an end is for good: {seed}, {step}, file {number}");
                            ended += usize::from(left.len() < versions.len());
                            continue;
                        }
                        assert_eq!(left, versions, "story {seed}, step {step}: file {number} was {status}, is {after}");
                        if !versions.is_empty() {
                            assert!(
                                matches!(after, "pending" | "clean"),
                                "story {seed}, step {step}: {status}, {after}"
                            );
                            survived += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(survived > 1_000 && ended > 10, "{survived} looks at what lives, {ended} ends");
}

#[tokio::test]
async fn a_file_that_was_never_filled_expires_after_a_day() {
    let world = world();
    world.file(1);
    world.clock.advance(DAY - 1);
    world.sweep().await.unwrap();
    assert_eq!(world.files.row(id(1)).unwrap().status(), "pending");
    world.files.change(id(1), |row| row.url_expires_ms += DAY * 1000);
    world.clock.advance(1);
    world.sweep().await.unwrap();
    assert_eq!(world.files.row(id(1)).unwrap().status(), "pending", "its last URL may be alive");
    world.clock.advance(360);
    world.sweep().await.unwrap();
    assert_eq!((world.files.row(id(1)).unwrap().status(), world.is_purged(1)), ("expired", true));
}

#[tokio::test]
async fn an_object_that_comes_after_the_end_is_not_served_and_goes_too() {
    let world = world();
    world.filled(1, "ok");
    world.files.change(id(1), |row| row.deleted = true);
    world.clock.advance(360);
    world.sweep().await.unwrap();
    assert!(world.is_purged(1));

    world.objects.put(&key(1), "v-late", "text/plain", b"hello world");
    world.handle(created(1, "v-late"), 30).await.unwrap();
    assert_eq!((world.files.row(id(1)).unwrap().status(), world.is_purged(1)), ("deleted", false));
    world.clock.advance(900);
    assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 1 }));
    assert!(world.objects.versions(&key(1)).is_empty() && world.is_purged(1));
}

#[tokio::test]
async fn an_event_that_comes_again_after_the_purge_asks_the_bucket_nothing() {
    let world = world();
    world.filled(1, "size");
    world.clock.advance(360);
    world.sweep().await.unwrap();
    let asked = world.objects.asked();
    // The version is gone, and to a role that may not list S3 says "denied" of it.
    world.objects.set_down(true);
    world.handle(created(1, "v-1"), 30).await.unwrap();
    world.objects.set_down(false);
    assert_eq!((world.objects.asked(), world.files.row(id(1)).unwrap().status()), (asked, "rejected"));
}

#[tokio::test]
async fn every_version_of_a_file_written_twice_goes() {
    let world = world();
    world.filled(1, "ok");
    world.objects.put(&key(1), "v-2", "text/plain", b"hello world");
    world.handle(created(1, "v-2"), 30).await.unwrap();
    assert_eq!(world.files.row(id(1)).unwrap().status(), "rejected");
    world.clock.advance(360);
    world.sweep().await.unwrap();
    assert!(world.objects.versions(&key(1)).is_empty() && world.is_purged(1));
}

#[tokio::test]
async fn one_object_that_cannot_go_holds_up_no_other_and_is_tried_again() {
    let world = world();
    for number in 1..=3 {
        world.filled(number, "size");
    }
    world.objects.put(&key(1), "v-more", "text/plain", b"x");
    world.files.record(id(1), Fact::Verdict { version: "v-more".to_owned(), value: "FAILED".to_owned() });
    world.objects.set_stuck("v-1", true);
    world.clock.advance(360);
    assert_eq!(world.sweep().await.unwrap_err().as_str(), "ServiceUnavailable");
    assert_eq!([1, 2, 3].map(|number| world.is_purged(number)), [false, true, true]);
    assert_eq!(world.objects.versions(&key(1)), ["v-1"], "its other version is gone all the same");

    world.objects.set_stuck("v-1", false);
    assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 0 }), "not at once");
    world.clock.advance(600);
    assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 1 }));
    assert!(world.is_purged(1) && world.objects.versions(&key(1)).is_empty());
}

#[tokio::test]
async fn a_stubborn_object_does_not_starve_those_behind_it() {
    let world = world();
    for number in 1..=150 {
        world.filled(number, "size");
        world.objects.set_stuck(&format!("v-{number}"), number <= 100);
    }
    world.clock.advance(360);
    assert!(world.sweep().await.is_err());
    let purged = (1..=150).filter(|number| world.is_purged(*number)).count();
    assert_eq!(purged, 50, "the second batch had its turn in the same run");
}

#[tokio::test]
async fn a_run_that_is_short_of_time_stops_and_another_goes_on() {
    let world = world();
    world.filled(1, "size");
    world.clock.advance(360);
    assert_eq!(world.handle(scheduled(), 7).await.unwrap(), json!({ "found": 0, "purged": 0 }));
    assert!(!world.is_purged(1));
    world.clock.advance(900);
    assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 1 }));
}

#[tokio::test]
async fn without_the_database_nothing_is_removed() {
    let world = world();
    world.filled(1, "size");
    world.clock.advance(360);
    world.files.set_down(true);
    assert_eq!(world.sweep().await.unwrap_err().as_str(), "ServiceUnavailable");
    assert_eq!(world.objects.versions(&key(1)), ["v-1"]);
}

#[tokio::test]
async fn an_object_whose_event_never_came_is_found_once_no_url_can_fill_its_file() {
    let world = world();
    for number in 1..=3 {
        world.file(number);
    }
    world.objects.put(&key(1), "v-1", "text/plain", b"hello world");
    world.objects.put(&key(2), "v-2", "text/plain", b"another one");
    world.clock.advance(359);
    assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 0 }), "a URL may still be good");
    world.clock.advance(1);
    assert_eq!(world.sweep().await.unwrap(), json!({ "found": 2, "purged": 1 }));
    let status = |number: u64| world.files.row(id(number)).unwrap().status();
    assert_eq!((status(1), status(2), status(3)), ("clean", "rejected", "pending"));
    // The event comes after all, and changes nothing.
    world.handle(created(1, "v-1"), 30).await.unwrap();
    assert_eq!(status(1), "clean");
    // A file of which there is nothing is asked for once an hour, and ends after a day.
    let asked = world.objects.asked();
    world.sweep().await.unwrap();
    assert_eq!(world.objects.asked(), asked);
    world.clock.advance(3600);
    world.sweep().await.unwrap();
    assert_eq!(world.objects.asked(), asked + 1);
    world.clock.advance(DAY);
    world.sweep().await.unwrap();
    assert_eq!(status(3), "expired");
}

#[tokio::test]
async fn an_object_that_came_within_the_day_does_not_expire_for_want_of_an_event() {
    let world = world();
    world.file(1);
    world.objects.put(&key(1), "v-1", "text/plain", b"hello world");
    world.clock.advance(2 * DAY);
    assert_eq!(world.sweep().await.unwrap(), json!({ "found": 1, "purged": 0 }));
    assert_eq!(world.files.row(id(1)).unwrap().status(), "clean");
}

#[tokio::test]
async fn an_object_that_cannot_be_looked_at_is_looked_at_again_within_the_hour() {
    let world = world();
    world.file(1);
    world.objects.put(&key(1), "v-1", "text/plain", b"hello world");
    world.clock.advance(600);
    world.objects.set_down(true);
    assert_eq!(world.sweep().await.unwrap(), json!({ "found": 0, "purged": 0 }));
    assert_eq!(world.files.row(id(1)).unwrap().status(), "pending");
    world.objects.set_down(false);
    world.clock.advance(3600);
    assert_eq!(world.sweep().await.unwrap()["found"], 1);
}
