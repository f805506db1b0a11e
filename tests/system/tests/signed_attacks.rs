//! `docs/attacks-on-files.md`, its column of the local stand-in.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests")]

use std::sync::Arc;
use std::time::Duration;

use local::account::{Account, Keys};
use local::clock::Clock;
use local::http::bind;
use local::journey::seconds;
use local::kms::{KeySpec, Kms};
use local::policy::Iam;
use local::s3::S3;
use local::template::Template;
use shared::clock::Timestamp;
use shared::object::SignerSession;
use shared::secret::SecretString;
use system::signed_attacks::{Row, Target, attack};

const PAGE: &str = include_str!("../../../docs/attacks-on-files.md");
const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";
const BUCKET: &str = "objects";
const KEY: &str = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

fn iam(clock: Clock) -> Iam {
    let other = |name: &str| format!("arn:aws:kms:us-east-1:111122223333:key/{name}");
    let parameters = [
        ("Env", "test".to_owned()),
        ("Issuer", "https://localhost:1".to_owned()),
        ("Audience", "https://api.example".to_owned()),
        ("TrustBucket", "trust".to_owned()),
        ("ObjectBucket", BUCKET.to_owned()),
        ("DataKeyArn", other("data")),
        ("BucketKeyArn", KEY.to_owned()),
        ("ReceiptKeyArn", other("receipts")),
        ("SigningHost", "http://127.0.0.1:2".to_owned()),
        ("DbHost", "localhost".to_owned()),
        ("DbProxyResourceId", "prx-1".to_owned()),
        ("DbResourceId", "db-1".to_owned()),
        ("DbDirectHost", "127.0.0.1".to_owned()),
        ("Scan", "off".to_owned()),
        ("CodeBucket", "code".to_owned()),
        ("SigningKeyArn", other("signing")),
    ];
    let parameters = parameters.map(|(name, value)| (name.to_owned(), value)).into();
    let template = Template::deployed(&parameters, ACCOUNT, REGION, "api123").unwrap();
    Iam::new(ACCOUNT, REGION, clock, &template.deployment().roles).unwrap()
}

fn now(account: &Account) -> Timestamp {
    Timestamp::from_seconds(seconds(&account.clock).try_into().unwrap())
}

fn session(account: &Account, role: &str) -> SignerSession {
    let ends = account.clock.now() + Duration::from_secs(900);
    let keys: Keys =
        account.credentials.issue(account.session(&format!("portcullis-test-{role}"), "u-acme", None), Some(ends));
    let now = now(account);
    SignerSession {
        access_key_id: keys.access_key_id,
        secret_access_key: SecretString::new(keys.secret_access_key),
        session_token: SecretString::new(keys.session_token.unwrap()),
        issued_at: now,
        expires_at: now.plus_seconds(900),
    }
}

/// The cells of a row: attack, what AWS documents, the local stand-in, MiniStack.
fn table() -> Vec<[&'static str; 4]> {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|line| line.split(" | ").map(str::trim).collect::<Vec<_>>())
        .filter(|cells| !cells[0].starts_with("attack") && cells.len() == 4)
        .map(|cells| [cells[0], cells[1], cells[2], cells[3]])
        .collect()
}

fn cell(row: &Row) -> &str {
    if row.got == row.wanted { "as AWS" } else { &row.got }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attack_on_what_is_signed_ends_as_the_page_says_and_stores_nothing() {
    let account = Arc::new(Account::new(iam(Clock::system())));
    let (sender, _events) = tokio::sync::mpsc::unbounded_channel();
    let root = tempfile::tempdir().unwrap();
    let s3 = S3::new(Arc::clone(&account), vec![BUCKET.to_owned()], root.path().join("s3"), sender);
    // The boundary of the roles knows the deployment's keys by their aliases.
    let kms = Kms::new(Arc::clone(&account));
    let id = KEY.rsplit('/').next().unwrap().parse().unwrap();
    kms.create_key_with_id(id, KeySpec::SymmetricDefault, &[]).unwrap();
    kms.create_alias("alias/portcullis-test-bucket", KEY).unwrap();
    s3.set_kms(kms);
    let server = s3.serve(bind().await.unwrap()).await.unwrap();
    let target = Target {
        endpoint: format!("http://{}", server.addr),
        bucket: BUCKET.to_owned(),
        bucket_key: KEY.to_owned(),
        region: REGION.to_owned(),
        upload: session(&account, "upload-signer"),
        download: session(&account, "download-signer"),
        other: session(&account, "upload-signer"),
        tls: None,
        now: now(&account),
    };
    let rows = attack(&target).await.unwrap();
    for row in &rows {
        assert_eq!(row.got, row.wanted, "{}", row.what);
        assert_eq!(s3.look(BUCKET, &row.key).await.as_deref(), row.keeps, "{}: what is stored", row.what);
        // Where a bent key would lead.
        for other in [row.key.replace("t/acme/", "t/globex/"), row.key.replace("-8000-0000000000", "-8000-ff00000000")]
        {
            if other != row.key {
                assert_eq!(s3.look(BUCKET, &other).await, None, "{}: {other}", row.what);
            }
        }
    }
    let found: Vec<_> = rows.iter().map(|row| [row.what, row.wanted, cell(row)]).collect();
    let told: Vec<_> = table().iter().map(|row| [row[0], row[1], row[2]]).collect();
    assert_eq!(found, told, "docs/attacks-on-files.md");
}

#[test]
fn where_the_other_server_differs_the_page_says_so_and_aws_is_the_truth() {
    let lax: Vec<_> = table().into_iter().filter(|row| row[3] != "as AWS").collect();
    for row in &lax {
        assert!(PAGE.contains(&format!("- **{}**", row[0])), "{}: nothing is said of it", row[0]);
    }
    let said = PAGE.lines().filter(|line| line.starts_with("- **")).count();
    assert_eq!(said, lax.len(), "one line for each difference");
}
