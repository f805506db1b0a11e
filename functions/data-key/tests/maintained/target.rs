//! Somebody else's database: a table of its own on the same server, reached by the real adapter through TLS and an IAM token.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use aws::{AwsSettings, Connector, TimeSource};
use local::account::{Account, Keys};
use local::ca::Ca;
use local::clock::Clock;
use local::policy::Iam;
use local::rds::{RdsEndpoint, RdsServer};
use local::template::RoleSpec;
use rds::{Mode, RdsSettings};
use serde_json::json;
use shared::config::{Environment, Reader};
use shared::port::{Column, ColumnChange, ColumnPlace, ColumnRow, ColumnShape, Fault};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::{Server, Steps};

const RESOURCE: &str = "db-ABCDEFGHIJKLMNOPQRSTUVWXYZ";
pub(crate) const LOGIN: &str = "portcullis";

#[derive(Debug)]
struct Signing(Clock);

impl TimeSource for Signing {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
}

/// The adapter, struck at the same steps as everything else.
#[derive(Clone)]
pub(crate) struct Target {
    inner: Arc<rds::Target>,
    server: Server,
    steps: Steps,
    _held: Arc<(RdsServer, TempDir)>,
}

impl Target {
    /// The target `shop` on the server, for a login that may do what is granted to it there.
    pub(crate) async fn start(server: &Server, steps: &Steps) -> Self {
        let directory = TempDir::new().unwrap();
        let iam = Iam::new("111122223333", "eu-west-1", Clock::system(), &[role()]).unwrap();
        let account = Arc::new(Account::new(iam));
        let ca = Ca::generate().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, ca.pem()).unwrap();
        let endpoint = RdsEndpoint::new(Arc::clone(&account), &ca, RESOURCE, &server.socket).unwrap();
        let served = endpoint.serve(TcpListener::bind("127.0.0.1:0").await.unwrap()).await.unwrap();
        let settings = RdsSettings::new("localhost", served.addr.port(), "shop", LOGIN, Mode::Direct);
        let inner = Arc::new(rds::Target::new(settings, &connector(&account, &ca_file)));
        Self { inner, server: server.clone(), steps: steps.clone(), _held: Arc::new((served, directory)) }
    }
}

fn role() -> RoleSpec {
    let resource = format!("arn:aws:rds-db:eu-west-1:111122223333:dbuser:{RESOURCE}/{LOGIN}");
    let statement = json!({"Effect": "Allow", "Action": "rds-db:connect", "Resource": resource});
    let lambda =
        json!({"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"});
    RoleSpec {
        boundary: None,
        name: "maintain".to_owned(),
        arn: "arn:aws:iam::111122223333:role/maintain".to_owned(),
        policies: vec![json!({"Version": "2012-10-17", "Statement": [statement]})],
        trust: json!({"Version": "2012-10-17", "Statement": [lambda]}),
    }
}

fn connector(account: &Account, ca_file: &Path) -> Connector {
    let keys: Keys = account.credentials.issue(account.session("maintain", "portcullis-test-maintain", None), None);
    let mut pairs = vec![
        ("AWS_REGION", account.region.clone()),
        ("AWS_ACCESS_KEY_ID", keys.access_key_id.clone()),
        ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.clone()),
        ("PORTCULLIS_CA_FILE", ca_file.to_str().unwrap().to_owned()),
    ];
    pairs.extend(keys.session_token.clone().map(|token| ("AWS_SESSION_TOKEN", token)));
    let environment = Environment::from_pairs(pairs);
    let reader = Reader::new(&environment);
    let settings = AwsSettings::read(&reader);
    reader.finish().unwrap();
    Connector::with_time_source(settings, Signing(account.clock.clone()))
}

impl Column for Target {
    async fn shape(&self, place: &ColumnPlace) -> Result<Option<ColumnShape>, Fault> {
        self.steps.take(&self.server, self.inner.shape(place)).await
    }

    async fn page(
        &self,
        place: &ColumnPlace,
        shape: &ColumnShape,
        after: Option<&str>,
        limit: i64,
        longest: i64,
    ) -> Result<Vec<ColumnRow>, Fault> {
        self.steps.take(&self.server, self.inner.page(place, shape, after, limit, longest)).await
    }

    async fn seal(&self, place: &ColumnPlace, shape: &ColumnShape, changes: Vec<ColumnChange>) -> Result<u64, Fault> {
        self.steps.take(&self.server, self.inner.seal(place, shape, changes)).await
    }

    async fn clear(&self, place: &ColumnPlace, shape: &ColumnShape, changes: Vec<ColumnChange>) -> Result<u64, Fault> {
        self.steps.take(&self.server, self.inner.clear(place, shape, changes)).await
    }
}
