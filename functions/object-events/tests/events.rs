//! Events in process: both shapes, every check, and one final state whatever the order.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that cannot go on fails")]

use object_events::{Config, ObjectEvents};
use serde_json::{Value, json};
use shared::boot::{Failure, Handler, Invocation};
use shared::clock::Timestamp;
use shared::object::{ObjectHead, Scan, Sha256Digest};
use testkit::files::{Fact, state_of};
use testkit::objects::BUCKET_KEY;
use testkit::{Files, FixedClock, Objects};
use uuid::{Uuid, uuid};

const ID: Uuid = uuid!("01920000-0000-7000-8000-0000000000f1");
const KEY: &str = "t/acme/01920000-0000-7000-8000-0000000000f1";

struct World {
    function: ObjectEvents<Files, Objects, FixedClock>,
    files: Files,
    objects: Objects,
}

/// A world with one pending file and its object `v1`, exactly as declared.
fn world(scan: Scan) -> World {
    let (files, objects) = (Files::default(), Objects::default());
    files.seed(ID, "acme", "alice");
    objects.put(KEY, "v1", "text/plain", b"hello world");
    let config =
        Config { env: "test".to_owned(), object_bucket: "objects".to_owned(), bucket_key: BUCKET_KEY.to_owned(), scan };
    let clock = FixedClock::at(Timestamp::from_seconds(1_800_000_000));
    let function = ObjectEvents { database: files.clone(), objects: objects.clone(), clock, config };
    World { function, files, objects }
}

impl World {
    async fn handle(&self, event: Value) -> Result<Value, Failure> {
        let deadline = Timestamp::from_seconds(1_800_000_010);
        let invocation = Invocation { request_id: "i-1".to_owned(), deadline, function_arn: "arn".to_owned() };
        self.function.handle(event, &invocation).await
    }

    fn status(&self) -> &'static str {
        self.files.row(ID).unwrap().status()
    }
}

/// As EventBridge delivers it.
fn created(bucket: &str, key: &str, version: Option<&str>) -> Value {
    let mut object = json!({ "key": key, "size": 11, "etag": "e", "sequencer": "0055AED6DCD90281E5" });
    if let Some(version) = version {
        object["version-id"] = json!(version);
    }
    json!({
        "version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": "Object Created", "source": "aws.s3",
        "account": "111122223333", "time": "2021-11-12T00:00:00Z", "region": "us-east-1",
        "resources": [format!("arn:aws:s3:::{bucket}")],
        "detail": { "version": "0", "event-version": "1.0", "bucket": { "name": bucket }, "object": object,
            "request-id": "N4N7GDK58NMKJ12R", "requester": "111122223333", "source-ip-address": "1.2.3.4",
            "reason": "PutObject", "a-field-of-tomorrow": true }
    })
}

/// As S3 notifies a function directly.
fn notified(bucket: &str, key: &str, version: &str, event_version: &str, name: &str) -> Value {
    json!({ "Records": [{
        "eventVersion": event_version, "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventTime": "1970-01-01T00:00:00.000Z",
        "eventName": name, "userIdentity": { "principalId": "x" }, "requestParameters": { "sourceIPAddress": "127.0.0.1" },
        "responseElements": { "x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "y" },
        "s3": { "s3SchemaVersion": "1.0", "configurationId": "c",
            "bucket": { "name": bucket, "ownerIdentity": { "principalId": "x" }, "arn": "arn:aws:s3:::objects" },
            "object": { "key": key, "size": 11, "eTag": "e", "versionId": version, "sequencer": "0055AED6DCD90281E5" } }
    }] })
}

#[tokio::test]
async fn an_object_as_declared_completes_its_file() {
    for (scan, want) in [(Scan::Off, "clean"), (Scan::GuardDuty, "scanning")] {
        let world = world(scan);
        world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
        assert_eq!(world.status(), want);
        let row = world.files.row(ID).unwrap();
        let want = Fact::Created {
            version: "v1".to_owned(),
            etag: "etag-v1".to_owned(),
            size: 11,
            sha256: Some(Sha256Digest::of(b"hello world").to_string()),
            finding: "ok".to_owned(),
            scan_off: scan == Scan::Off,
        };
        assert_eq!(row.facts().iter().collect::<Vec<_>>(), [&want]);
    }
}

#[tokio::test]
async fn a_file_that_no_scanner_saw_is_recorded_as_unscanned() {
    let world = world(Scan::Off);
    world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
    let row = world.files.row(ID).unwrap();
    assert_eq!(state_of(row.facts()), ("clean", Some("unscanned".to_owned())));
}

#[tokio::test]
async fn a_direct_notification_says_the_same() {
    for version in ["2.0", "2.1", "2.6", "2.99"] {
        for name in ["ObjectCreated:Put", "ObjectCreated:Post", "ObjectCreated:CompleteMultipartUpload"] {
            let world = world(Scan::Off);
            let encoded = KEY.replace('/', "%2F");
            world.handle(notified("objects", &encoded, "v1", version, name)).await.unwrap();
            assert_eq!(world.status(), "clean", "{version} {name}");
        }
    }
}

#[tokio::test]
async fn an_object_that_is_not_what_was_declared_is_rejected() {
    type Change = fn(&mut ObjectHead);
    let cases: [(&str, Change); 11] = [
        ("size", |head| head.size = 12),
        ("size", |head| head.size = 0),
        ("sha256", |head| head.sha256 = None),
        ("sha256", |head| head.sha256 = Some("Zhie15keHg/OBlOZxcoF/BXCgYZaeimRvdZnwUZqkaQ=-2".to_owned())),
        ("sha256", |head| head.sha256 = Some("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned())),
        ("content_type", |head| head.content_type = Some("text/html".to_owned())),
        ("content_type", |head| head.content_type = None),
        ("encryption", |head| head.encryption = Some("AES256".to_owned())),
        ("encryption", |head| head.encryption = None),
        ("encryption", |head| head.encryption_key = Some("arn:aws:kms:us-east-1:111122223333:key/other".to_owned())),
        ("encryption", |head| head.encryption_key = None),
    ];
    for (finding, change) in cases {
        let world = world(Scan::Off);
        world.objects.change(KEY, "v1", change);
        world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
        assert_eq!(world.status(), "rejected");
        let row = world.files.row(ID).unwrap();
        let Some(Fact::Created { finding: found, .. }) = row.facts().first() else { panic!("no fact") };
        assert_eq!(found, finding);
    }
}

/// A world whose file was declared to be of this type, and is there as declared, with this body.
fn of_type(content_type: &str, body: &[u8]) -> World {
    let world = world(Scan::Off);
    world.files.change(ID, |row| {
        row.content_type = content_type.to_owned();
        (row.size, row.sha256) = (i64::try_from(body.len()).ok(), Some(Sha256Digest::of(body).as_bytes().to_vec()));
    });
    world.objects.put(KEY, "v1", content_type, body);
    world
}

#[tokio::test]
async fn a_file_that_begins_as_another_type_than_its_own_is_rejected() {
    let page = b"<!doctype html><script>alert(1)</script>".as_slice();
    for (content_type, body, want) in [
        (
            "application/pdf",
            b"%PDF-1.7
"
            .as_slice(),
            "clean",
        ),
        ("application/pdf", page, "rejected"),
        ("application/pdf", &[&[b' '; 1019][..], b"%PDF-"].concat(), "clean"),
        ("application/pdf", &[&[b' '; 1020][..], b"%PDF-"].concat(), "rejected"),
        ("image/png", b"\x89PNG\r\n\x1a\n".as_slice(), "clean"),
        ("image/png", b"\x89PNG\r\n\x1a".as_slice(), "rejected"),
        ("image/png", b"MZ\x90\x00".as_slice(), "rejected"),
        ("text/plain", b"MZ\x90\x00".as_slice(), "rejected"),
        ("text/plain", page, "clean"),
        ("application/octet-stream", b"MZ\x90\x00".as_slice(), "clean"),
        ("text/html", page, "clean"),
    ] {
        let world = of_type(content_type, body);
        world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
        let row = world.files.row(ID).unwrap();
        let Some(Fact::Created { finding, .. }) = row.facts().first() else { panic!("no fact") };
        let found = if want == "clean" { "ok" } else { "start" };
        assert_eq!((world.status(), finding.as_str()), (want, found), "{content_type} {body:?}");
        // Types that are not told by their start cost no look at it.
        let looks = if matches!(content_type, "application/octet-stream" | "text/html") { 1 } else { 2 };
        assert_eq!(world.objects.asked(), looks, "{content_type}");
        // The verdict of a scanner does not bring it back, nor does the event once more.
        world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
        assert_eq!(world.status(), want);
    }
}

#[tokio::test]
async fn a_file_whose_start_cannot_be_read_stays_undecided_until_it_can() {
    let world = of_type("image/png", b"\x89PNG\r\n\x1a\n");
    world.objects.set_down(true);
    world.handle(created("objects", KEY, Some("v1"))).await.unwrap_err();
    assert_eq!(world.status(), "pending");
    world.objects.set_down(false);
    world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
    assert_eq!(world.status(), "clean");
}

/// A form of up to 11 bytes, filled by `hello world`.
fn form(scan: Scan) -> World {
    let world = world(scan);
    world.files.change(ID, |row| {
        (row.mode, row.size, row.sha256, row.max_size) = ("post".to_owned(), None, None, Some(11));
    });
    world.objects.change(KEY, "v1", |head| head.sha256 = None);
    world
}

#[tokio::test]
async fn a_form_tells_no_digest_so_the_object_is_read_through_for_one() {
    let world = form(Scan::Off);
    world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
    let row = world.files.row(ID).unwrap();
    let want = Fact::Created {
        version: "v1".to_owned(),
        etag: "etag-v1".to_owned(),
        size: 11,
        sha256: Some(Sha256Digest::of(b"hello world").to_string()),
        finding: "ok".to_owned(),
        scan_off: true,
    };
    assert_eq!((world.status(), row.facts().first()), ("clean", Some(&want)));
    // Where S3 has one of the whole, it is not read through.
    let world = form(Scan::Off);
    world.objects.change(KEY, "v1", |head| head.sha256 = Some(Sha256Digest::of(b"hello world").to_string()));
    world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
    assert_eq!((world.status(), world.objects.asked()), ("clean", 2), "its head and its first bytes");
}

#[tokio::test]
async fn what_a_form_brought_beyond_its_terms_is_rejected() {
    type Change = fn(&mut ObjectHead);
    let cases: [(&str, Change); 6] = [
        ("size", |head| head.size = 12),
        ("size", |head| head.size = 0),
        ("sha256", |head| head.sha256 = Some("Zhie15keHg/OBlOZxcoF/BXCgYZaeimRvdZnwUZqkaQ=-2".to_owned())),
        ("content_type", |head| head.content_type = Some("text/html".to_owned())),
        ("encryption", |head| head.encryption = Some("AES256".to_owned())),
        ("encryption", |head| head.encryption_key = None),
    ];
    for (finding, change) in cases {
        let world = form(Scan::Off);
        world.objects.change(KEY, "v1", change);
        world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
        let row = world.files.row(ID).unwrap();
        let Some(Fact::Created { finding: found, .. }) = row.facts().first() else { panic!("no fact") };
        assert_eq!((world.status(), found.as_str()), ("rejected", finding));
    }
}

#[tokio::test]
async fn a_form_that_is_used_twice_ends_its_file_in_either_order() {
    for order in [["v1", "v2"], ["v2", "v1"]] {
        let world = form(Scan::Off);
        world.objects.put(KEY, "v2", "text/plain", b"other bytes");
        for version in order {
            world.handle(created("objects", KEY, Some(version))).await.unwrap();
        }
        assert_eq!(world.status(), "rejected");
    }
}

/// A file of two parts, `hello ` and `world`.
fn in_parts() -> World {
    let world = world(Scan::Off);
    world.files.change(ID, |row| {
        (row.mode, row.sha256, row.part_size) = ("multipart".to_owned(), None, Some(6));
        for (number, body) in [(1, b"hello ".as_slice()), (2, b"world")] {
            let digest = shared::encoding::hex(Sha256Digest::of(body).as_bytes());
            row.parts.insert(number, (i64::try_from(body.len()).unwrap(), digest));
        }
    });
    let composite = "Zhie15keHg/OBlOZxcoF/BXCgYZaeimRvdZnwUZqkaQ=-2".to_owned();
    world.objects.change(KEY, "v1", |head| head.sha256 = Some(composite));
    world
}

#[tokio::test]
async fn an_object_of_parts_is_what_its_parts_were_signed_for() {
    let world = in_parts();
    world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
    let row = world.files.row(ID).unwrap();
    let Some(Fact::Created { finding, sha256, .. }) = row.facts().first() else { panic!("no fact") };
    assert_eq!((world.status(), finding.as_str()), ("clean", "ok"));
    assert_eq!(sha256.as_deref(), Some("Zhie15keHg/OBlOZxcoF/BXCgYZaeimRvdZnwUZqkaQ=-2"));

    type Change = fn(&World);
    let cases: [(&str, Change); 5] = [
        ("sha256", |world| world.files.change(ID, |row| drop(row.parts.remove(&2)))),
        ("sha256", |world| {
            let other = shared::encoding::hex(Sha256Digest::of(b"other").as_bytes());
            world.files.change(ID, |row| drop(row.parts.insert(2, (5, other))));
        }),
        ("sha256", |world| {
            let whole = Sha256Digest::of(b"hello world").to_string();
            world.objects.change(KEY, "v1", |head| head.sha256 = Some(whole));
        }),
        ("sha256", |world| world.objects.change(KEY, "v1", |head| head.sha256 = None)),
        ("size", |world| world.objects.change(KEY, "v1", |head| head.size = 12)),
    ];
    for (place, (want, change)) in cases.into_iter().enumerate() {
        let world = in_parts();
        change(&world);
        world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
        let row = world.files.row(ID).unwrap();
        let Some(Fact::Created { finding, .. }) = row.facts().first() else { panic!("no fact") };
        assert_eq!((world.status(), finding.as_str()), ("rejected", want), "{place}");
    }
}

/// As GuardDuty tells EventBridge.
fn scanned(bucket: &str, key: &str, version: Option<&str>, status: &str, result: &str) -> Value {
    json!({
        "version": "0", "id": "72c7d362-737a-6dce-fc78-9e27a0171419", "source": "aws.guardduty",
        "detail-type": "GuardDuty Malware Protection Object Scan Result", "account": "111122223333",
        "time": "2024-02-28T01:01:01Z", "region": "us-east-1",
        "resources": ["arn:aws:guardduty:us-east-1:111122223333:malware-protection-plan/b4c7f464ab3a4EXAMPLE"],
        "detail": { "schemaVersion": "1.0", "scanStatus": status, "resourceType": "S3_OBJECT",
            "s3ObjectDetails": { "bucketName": bucket, "objectKey": key, "eTag": "e", "versionId": version,
                "s3Throttled": false },
            "scanResultDetails": { "scanResultStatus": result, "threats": null }, "a-field-of-tomorrow": true }
    })
}

#[tokio::test]
async fn a_verdict_decides_about_the_version_that_was_checked() {
    for (status, result, want) in [
        ("COMPLETED", "NO_THREATS_FOUND", "clean"),
        ("COMPLETED", "THREATS_FOUND", "infected"),
        ("FAILED", "THREATS_FOUND", "infected"),
        ("SKIPPED", "UNSUPPORTED", "unscannable"),
        ("SKIPPED", "ACCESS_DENIED", "unscannable"),
        ("FAILED", "FAILED", "unscannable"),
        // What is not said in full is not clean.
        ("SKIPPED", "NO_THREATS_FOUND", "unscannable"),
        ("FAILED", "NO_THREATS_FOUND", "unscannable"),
        ("COMPLETED", "no_threats_found", "unscannable"),
        ("COMPLETED", "PROBABLY_FINE", "unscannable"),
        ("COMPLETED", "", "unscannable"),
        ("", "NO_THREATS_FOUND", "unscannable"),
    ] {
        let world = world(Scan::GuardDuty);
        world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
        assert_eq!(world.status(), "scanning");
        world.handle(scanned("objects", KEY, Some("v1"), status, result)).await.unwrap();
        assert_eq!(world.status(), want, "{status} {result}");
    }
    // A verdict about another version says nothing of this one, unless it is a threat.
    for (result, want) in [("NO_THREATS_FOUND", "scanning"), ("THREATS_FOUND", "infected")] {
        let world = world(Scan::GuardDuty);
        world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
        world.handle(scanned("objects", KEY, Some("v2"), "COMPLETED", result)).await.unwrap();
        assert_eq!(world.status(), want);
    }
}

#[tokio::test]
async fn a_verdict_that_is_not_about_ours_changes_nothing() {
    let good = || scanned("objects", KEY, Some("v1"), "COMPLETED", "NO_THREATS_FOUND");
    let with = |pointer: &str, value: Value| {
        let mut event = good();
        *event.pointer_mut(pointer).unwrap() = value;
        event
    };
    for event in [
        scanned("foreign", KEY, Some("v1"), "COMPLETED", "THREATS_FOUND"),
        scanned("objects", "t/acme/../globex", Some("v1"), "COMPLETED", "THREATS_FOUND"),
        scanned("objects", "t/globex/01920000-0000-7000-8000-0000000000f1", Some("v1"), "COMPLETED", "THREATS_FOUND"),
        with("/account", json!("444455556666")),
        with("/account", json!(null)),
        with("/resources/0", json!("arn:aws:guardduty:us-east-1:444455556666:malware-protection-plan/b4")),
        with("/resources", json!([])),
    ] {
        let world = world(Scan::GuardDuty);
        world.handle(event.clone()).await.unwrap();
        assert_eq!((world.status(), world.files.row(ID).unwrap().facts().len()), ("pending", 0), "{event}");
    }
    for event in [
        with("/detail-type", json!("GuardDuty Finding")),
        with("/detail/schemaVersion", json!("2.0")),
        with("/detail/resourceType", json!("EBS_VOLUME")),
        with("/detail/s3ObjectDetails", json!("canary")),
        with("/detail", json!({})),
    ] {
        let world = world(Scan::GuardDuty);
        assert_eq!(world.handle(event.clone()).await.unwrap_err().as_str(), "MalformedEvent", "{event}");
    }
    for version in [None, Some("null"), Some("")] {
        let world = world(Scan::GuardDuty);
        assert!(world.handle(scanned("objects", KEY, version, "COMPLETED", "NO_THREATS_FOUND")).await.is_err());
    }
    let world = world(Scan::GuardDuty);
    world.files.set_down(true);
    assert_eq!(world.handle(good()).await.unwrap_err().as_str(), "ServiceUnavailable");
}

#[tokio::test]
async fn what_is_not_ours_changes_nothing() {
    let cases = [
        created("foreign", KEY, Some("v1")),
        created("objects", "t/acme/../globex", Some("v1")),
        created("objects", "trust/keys.json", Some("v1")),
        created("objects", "t/globex/01920000-0000-7000-8000-0000000000f1", Some("v1")),
        created("objects", "t/acme/01920000-0000-7000-8000-0000000000f2", Some("v1")),
        created("objects", KEY, Some("v9")),
        notified("foreign", KEY, "v1", "2.1", "ObjectCreated:Put"),
        notified("objects", "t/acme/a+b", "v1", "2.1", "ObjectCreated:Put"),
        notified("objects", KEY, "v1", "2.1", "ObjectRemoved:Delete"),
        json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "objects" }),
        json!({ "Records": [] }),
    ];
    for event in cases {
        let world = world(Scan::Off);
        world.handle(event.clone()).await.unwrap();
        assert_eq!((world.status(), world.files.row(ID).unwrap().facts().len()), ("pending", 0), "{event}");
    }
}

#[tokio::test]
async fn a_deletion_changes_nothing() {
    let world = world(Scan::Off);
    let mut event = created("objects", KEY, Some("v1"));
    event["detail-type"] = json!("Object Deleted");
    world.handle(event).await.unwrap();
    assert_eq!(world.status(), "pending");
}

#[tokio::test]
async fn an_event_of_another_shape_is_an_error_that_echoes_nothing() {
    let mut scan = created("objects", KEY, Some("v1"));
    scan["source"] = json!("aws.guardduty");
    let mut listed = notified("objects", KEY, "v1", "3.0", "ObjectCreated:Put");
    for event in [
        json!({}),
        json!([]),
        json!("canary"),
        json!(null),
        json!({ "source": "aws.s3", "detail-type": "Object Created" }),
        json!({ "source": "aws.s3", "detail-type": "Object Created", "detail": "canary" }),
        json!({ "source": "aws.s3", "detail-type": "Object Created", "detail": { "bucket": { "name": 7 }, "object": {} } }),
        json!({ "Records": "canary" }),
        json!({ "Records": [{ "eventSource": "canary" }] }),
        scan,
        listed.clone(),
        {
            listed["Records"][0]["eventVersion"] = json!("2.1");
            listed["Records"][0]["s3"]["object"]["key"] = json!("%ff");
            listed
        },
    ] {
        let world = world(Scan::Off);
        let failure = world.handle(event.clone()).await.unwrap_err();
        assert_eq!(failure.as_str(), "MalformedEvent", "{event}");
        assert_eq!(world.status(), "pending");
    }
}

#[tokio::test]
async fn a_bucket_without_versions_is_an_error() {
    for version in [None, Some("null"), Some("")] {
        let world = world(Scan::Off);
        assert!(world.handle(created("objects", KEY, version)).await.is_err(), "{version:?}");
        assert_eq!(world.status(), "pending");
    }
}

#[tokio::test]
async fn an_answer_about_another_version_is_an_error() {
    let world = world(Scan::Off);
    world.objects.change(KEY, "v1", |head| head.version = "v2".to_owned());
    assert!(world.handle(created("objects", KEY, Some("v1"))).await.is_err());
    assert_eq!(world.status(), "pending");
}

#[tokio::test]
async fn what_does_not_answer_makes_the_event_come_again() {
    let world = world(Scan::Off);
    world.objects.set_down(true);
    assert_eq!(world.handle(created("objects", KEY, Some("v1"))).await.unwrap_err().as_str(), "ServiceUnavailable");
    world.objects.set_down(false);
    world.files.set_down(true);
    assert_eq!(world.handle(created("objects", KEY, Some("v1"))).await.unwrap_err().as_str(), "ServiceUnavailable");
    world.files.set_down(false);
    assert_eq!(world.status(), "pending");
    world.handle(created("objects", KEY, Some("v1"))).await.unwrap();
    assert_eq!(world.status(), "clean");
}

#[tokio::test]
async fn one_record_that_fails_does_not_keep_the_others_back() {
    let world = world(Scan::Off);
    let mut event = notified("objects", KEY, "null", "2.1", "ObjectCreated:Put");
    let good = notified("objects", KEY, "v1", "2.1", "ObjectCreated:Put")["Records"][0].clone();
    event["Records"].as_array_mut().unwrap().push(good);
    assert!(world.handle(event).await.is_err());
    assert_eq!(world.status(), "clean");
}

#[tokio::test]
async fn an_event_for_a_foreign_key_never_reaches_the_bucket() {
    let world = world(Scan::Off);
    world.handle(created("objects", "t/globex/01920000-0000-7000-8000-0000000000f1", Some("v1"))).await.unwrap();
    assert_eq!(world.objects.asked(), 0);
}

/// One step of a delivery: an object, a verdict or a deletion that is told of.
#[derive(Clone, Copy, Debug)]
enum Step {
    Created(&'static str),
    Verdict(&'static str, &'static str),
    Deleted(&'static str),
}

/// What S3 tells when a version is gone: of ours nothing but the sweep deletes, and it knows what it did.
fn deleted(version: &str) -> Value {
    let mut event = created("objects", KEY, Some(version));
    event["detail-type"] = json!("Object Deleted");
    event
}

/// The same for what came by a form and in parts, where size and digest follow from the facts as well.
#[tokio::test]
async fn every_order_tells_the_same_size_and_digest_whatever_the_mode() {
    use Step::{Created, Deleted, Verdict};
    let steps = [Created("v1"), Verdict("v1", "NO_THREATS_FOUND"), Created("v1"), Created("v2"), Deleted("v1")];
    for make in [|| form(Scan::GuardDuty), in_parts as fn() -> World] {
        for taken in 1..=steps.len() {
            let mut ends = std::collections::BTreeSet::new();
            for order in permutations(&steps[..taken]) {
                let world = make();
                world.objects.put(KEY, "v2", "text/plain", b"hello world");
                for step in order {
                    let event = match step {
                        Created(version) => created("objects", KEY, Some(version)),
                        Verdict(version, value) => scanned("objects", KEY, Some(version), "COMPLETED", value),
                        Deleted(version) => deleted(version),
                    };
                    world.handle(event).await.unwrap();
                }
                let row = world.files.row(ID).unwrap();
                ends.insert(format!("{} {:?}", row.status(), row.actual()));
            }
            assert_eq!(ends.len(), 1, "{ends:?}");
        }
    }
}

#[tokio::test]
async fn every_order_with_repeats_ends_in_one_state() {
    use Step::{Created, Deleted, Verdict};
    let cases: [(&[Step], &str, &str); 8] = [
        (&[Created("v1"), Deleted("v1"), Deleted("v1"), Verdict("v1", "NO_THREATS_FOUND")], "clean", "clean"),
        (&[Deleted("v1"), Verdict("v1", "THREATS_FOUND"), Created("v1"), Deleted("v2")], "infected", "infected"),
        (&[Created("v1"), Created("v1"), Verdict("v1", "NO_THREATS_FOUND")], "clean", "clean"),
        (&[Created("v1"), Created("v1"), Verdict("v1", "NO_THREATS_FOUND"), Created("v2")], "rejected", "rejected"),
        (&[Created("v1"), Verdict("v1", "THREATS_FOUND"), Created("v1"), Created("v2")], "infected", "infected"),
        (
            &[Created("v1"), Verdict("v1", "UNSUPPORTED"), Verdict("v1", "NO_THREATS_FOUND"), Created("v1")],
            "unscannable",
            "unscannable",
        ),
        (&[Created("v1"), Verdict("v2", "NO_THREATS_FOUND"), Created("v1")], "scanning", "clean"),
        (&[Verdict("v1", "NO_THREATS_FOUND"), Verdict("v1", "NO_THREATS_FOUND")], "pending", "pending"),
    ];
    for (steps, with_scan, without) in cases {
        for order in permutations(steps) {
            for (scan, want) in [(Scan::GuardDuty, with_scan), (Scan::Off, without)] {
                let world = world(scan);
                world.objects.put(KEY, "v2", "text/plain", b"hello world");
                for step in &order {
                    match *step {
                        Created(version) => {
                            world.handle(created("objects", KEY, Some(version))).await.unwrap();
                        }
                        Verdict(version, value) => {
                            let status = if value == "UNSUPPORTED" { "SKIPPED" } else { "COMPLETED" };
                            world.handle(scanned("objects", KEY, Some(version), status, value)).await.unwrap();
                        }
                        Deleted(version) => drop(world.handle(deleted(version)).await.unwrap()),
                    }
                }
                assert_eq!(world.status(), want, "{order:?} {scan:?}");
            }
        }
    }
}

fn permutations(steps: &[Step]) -> Vec<Vec<Step>> {
    if steps.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        let mut rest = steps.to_vec();
        rest.remove(at);
        all.extend(permutations(&rest).into_iter().map(|mut order| {
            order.push(*step);
            order
        }));
    }
    all
}
