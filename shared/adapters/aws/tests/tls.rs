//! Whom a client built here believes, asked over real TLS.

#![allow(clippy::expect_used, reason = "a test whose world cannot be made has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws::{AwsSettings, Connector, Service};
use local::ca::Ca;
use shared::config::{Environment, Reader};

const ANSWER: &str = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
    <Arn>arn:aws:sts::111122223333:assumed-role/r/s</Arn><UserId>x</UserId><Account>111122223333</Account>\
    </GetCallerIdentityResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></GetCallerIdentityResponse>";

async fn identity(endpoint: &str, ca: Option<&str>) -> Result<Option<String>, String> {
    let mut pairs = vec![
        ("AWS_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_ENDPOINT_URL_STS", endpoint),
    ];
    pairs.extend(ca.map(|path| ("PORTCULLIS_CA_FILE", path)));
    let environment = Environment::from_pairs(pairs);
    let reader = Reader::new(&environment);
    let settings = AwsSettings::read(&reader);
    reader.finish().expect("settings are complete");
    let client = aws_sdk_sts::Client::new(&Connector::new(settings).service(Service::Sts));
    client
        .get_caller_identity()
        .send()
        .await
        .map(|answer| answer.arn().map(str::to_owned))
        .map_err(|error| aws_sdk_sts::error::DisplayErrorContext(error).to_string())
}

#[tokio::test]
async fn only_the_configured_authority_is_believed() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let ca = Ca::generate().expect("authority");
    let file = |name: &str, pem: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).expect("CA file");
        path.to_str().expect("utf-8").to_owned()
    };
    let own = file("own.pem", ca.pem());
    let foreign = file("foreign.pem", Ca::generate().expect("authority").pem());

    let served = Arc::new(AtomicUsize::new(0));
    let serve = async |names: &[&str]| {
        let served = Arc::clone(&served);
        let tls = ca.server_config(names).expect("leaf");
        let listener = local::http::bind().await.expect("port");
        let handler = move |_| {
            served.fetch_add(1, Ordering::SeqCst);
            async { local::http::answer(http::StatusCode::OK, &[("content-type", "text/xml")], ANSWER) }
        };
        local::http::serve(listener, Some(tls), 65_536, handler).await.expect("serves")
    };
    let right = serve(&["localhost"]).await;
    let misnamed = serve(&["elsewhere.example"]).await;

    let url = format!("https://localhost:{}", right.addr.port());
    let arn = identity(&url, Some(&own)).await.expect("believed");
    assert_eq!(arn.as_deref(), Some("arn:aws:sts::111122223333:assumed-role/r/s"));
    assert_eq!(served.load(Ordering::SeqCst), 1);

    let wrong_name = format!("https://localhost:{}", misnamed.addr.port());
    for (what, url, trusted) in [
        ("another authority", &url, Some(foreign.as_str())),
        ("the Amazon roots", &url, None),
        ("another name", &wrong_name, Some(own.as_str())),
    ] {
        let error = identity(url, trusted).await.expect_err(what);
        assert!(error.contains("certificate"), "{what}: {error}");
    }
    assert_eq!(served.load(Ordering::SeqCst), 1, "no request left for whom nobody believes");
}
