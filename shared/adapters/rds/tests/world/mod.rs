//! A real Postgres behind the two stand-in endpoints, roles to sign as, and a schema to call.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use aws::{AwsSettings, Connector, TimeSource};
use local::account::{Account, Keys};
use local::ca::Ca;
use local::clock::Clock;
use local::policy::Iam;
use local::postgres::Postgres;
use local::rds::{RdsEndpoint, RdsServer};
use local::template::RoleSpec;
use rds::{Mode, Owner, Rds, RdsSettings};
use serde_json::{Value, json};
use shared::config::{Environment, Reader};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub(crate) const PROXY: &str = "prx-0123456789abcdef0";
pub(crate) const DIRECT: &str = "db-ABCDEFGHIJKLMNOPQRSTUVWXYZ";

const SCHEMA: &str = "
    CREATE ROLE token LOGIN NOINHERIT;
    CREATE ROLE upload LOGIN NOINHERIT;
    CREATE ROLE stranger LOGIN NOINHERIT;
    GRANT rds_iam TO token, upload;
    CREATE SCHEMA api;
    GRANT USAGE ON SCHEMA api TO token, upload;
    CREATE TABLE marks (name text NOT NULL);
    CREATE TABLE once (name text PRIMARY KEY);
    CREATE FUNCTION api.mark(p_name text) RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
        AS $$ INSERT INTO marks VALUES (p_name); SELECT jsonb_build_object('count', (SELECT count(*) FROM marks WHERE name = p_name)) $$;
    CREATE FUNCTION api.count_marks(p_name text) RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
        AS $$ SELECT to_jsonb(count(*)) FROM marks WHERE name = p_name $$;
    CREATE FUNCTION api.put_once(p_name text) RETURNS jsonb LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp
        AS $$ INSERT INTO once VALUES (p_name) RETURNING to_jsonb(name) $$;
    CREATE FUNCTION api.who() RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(session_user::text) $$;
    CREATE FUNCTION api.backend() RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(pg_backend_pid()) $$;
    CREATE FUNCTION api.nothing() RETURNS jsonb LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
    CREATE FUNCTION api.slow() RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(true) FROM pg_sleep(30) $$;
    CREATE FUNCTION api.fail(p_state text, p_text text) RETURNS jsonb LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = p_state, MESSAGE = p_text, DETAIL = p_text; END $$;
    CREATE FUNCTION api.types(a text, b text, c uuid, d uuid, e bytea, f bytea, g bigint, h bigint, i boolean, j jsonb, k text[], l uuid[])
        RETURNS jsonb LANGUAGE sql AS $$ SELECT jsonb_build_array(a, b, c, d, encode(e, 'hex'), f, g, h, i, j, to_jsonb(k), to_jsonb(l)) $$;
    CREATE FUNCTION api.secret() RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(1) $$;
    REVOKE ALL ON FUNCTION api.secret() FROM PUBLIC;
";

pub(crate) struct World {
    pub(crate) account: Arc<Account>,
    pub(crate) ca: Ca,
    pub(crate) proxy: Arc<RdsEndpoint>,
    pub(crate) proxy_port: u16,
    pub(crate) direct: Arc<RdsEndpoint>,
    pub(crate) direct_port: u16,
    pub(crate) postgres: Postgres,
    pub(crate) dir: TempDir,
    _servers: Vec<RdsServer>,
}

/// The stack's clock, as the SDK's signer reads it.
#[derive(Debug)]
struct Signing(Clock);

impl TimeSource for Signing {
    fn now(&self) -> SystemTime {
        self.0.now()
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
        let postgres = Postgres::start_cached(dir.path(), binaries(), &cache).await.expect("Postgres starts");
        let roles = [
            role("token", &[(PROXY, "token")]),
            role("upload", &[(PROXY, "upload")]),
            role("everybody", &[(PROXY, "*")]),
            role("elsewhere", &[("prx-ffffffffffffffff0", "*")]),
            role("migrate", &[(DIRECT, "portcullis_owner")]),
            role("nothing", &[]),
        ];
        let iam = Iam::new("111122223333", "eu-west-1", Clock::system(), &roles).expect("policies are readable");
        let account = Arc::new(Account::new(iam));
        let ca = Ca::generate().expect("authority");
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).expect("CA file");
        let mut servers = Vec::new();
        let mut open = async |resource_id: &str| {
            let endpoint =
                RdsEndpoint::new(Arc::clone(&account), &ca, resource_id, postgres.socket_dir()).expect("endpoint");
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
            let server = endpoint.serve(listener).await.expect("serves");
            let port = server.addr.port();
            servers.push(server);
            (endpoint, port)
        };
        let (proxy, proxy_port) = open(PROXY).await;
        let (direct, direct_port) = open(DIRECT).await;
        let world = Self { account, ca, proxy, proxy_port, direct, direct_port, postgres, dir, _servers: servers };
        world.owner().await.apply(SCHEMA).await.expect("schema");
        world
    }

    pub(crate) fn keys(&self, role: &str) -> Keys {
        self.account.credentials.issue(self.account.session(role, &format!("portcullis-test-{role}"), None), None)
    }

    pub(crate) fn aws(&self, role: &str) -> Connector {
        let ca = self.dir.path().join("ca.pem");
        self.aws_with(&self.keys(role), Some(ca.to_str().expect("utf-8")))
    }

    pub(crate) fn aws_with(&self, keys: &Keys, ca: Option<&str>) -> Connector {
        let mut pairs = vec![
            ("AWS_REGION", self.account.region.clone()),
            ("AWS_ACCESS_KEY_ID", keys.access_key_id.clone()),
            ("AWS_SECRET_ACCESS_KEY", keys.secret_access_key.clone()),
        ];
        pairs.extend(keys.session_token.clone().map(|token| ("AWS_SESSION_TOKEN", token)));
        pairs.extend(ca.map(|path| ("PORTCULLIS_CA_FILE", path.to_owned())));
        let environment = Environment::from_pairs(pairs);
        let reader = Reader::new(&environment);
        let settings = AwsSettings::read(&reader);
        reader.finish().expect("settings are complete");
        Connector::with_time_source(settings, Signing(self.account.clock.clone()))
    }

    pub(crate) fn settings(&self, user: &str) -> RdsSettings {
        RdsSettings::new("localhost", self.proxy_port, "portcullis", user, Mode::Proxy)
    }

    pub(crate) fn database(&self, user: &str) -> Rds {
        Rds::new(self.settings(user), &self.aws(user))
    }

    pub(crate) async fn owner(&self) -> Owner {
        let settings = RdsSettings::new("localhost", self.direct_port, "portcullis", "portcullis_owner", Mode::Direct);
        Owner::connect(settings, &self.aws("migrate")).await.expect("the owner gets in directly")
    }

    /// Why the last connection was refused.
    pub(crate) fn last_reason(&self) -> String {
        let last = self.proxy.trail().into_iter().rev().find(|entry| !entry.allowed);
        last.map(|entry| entry.reason).unwrap_or_default()
    }
}

/// `PORTCULLIS_TEST_POSTGRES` points the same tests at another installation.
#[expect(clippy::disallowed_methods, reason = "a test parameter")]
fn binaries() -> Option<PathBuf> {
    std::env::var("PORTCULLIS_TEST_POSTGRES").ok().map(PathBuf::from)
}

fn role(name: &str, connects: &[(&str, &str)]) -> RoleSpec {
    let resources: Vec<String> = connects
        .iter()
        .map(|(resource, user)| format!("arn:aws:rds-db:eu-west-1:111122223333:dbuser:{resource}/{user}"))
        .collect();
    let policies: Vec<Value> = (!resources.is_empty())
        .then(|| {
            let statement = json!({"Effect": "Allow", "Action": "rds-db:connect", "Resource": resources});
            json!({"Version": "2012-10-17", "Statement": [statement]})
        })
        .into_iter()
        .collect();
    let service =
        json!({"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"});
    RoleSpec {
        boundary: None,
        name: name.to_owned(),
        arn: format!("arn:aws:iam::111122223333:role/{name}"),
        policies,
        trust: json!({"Version": "2012-10-17", "Statement": [service]}),
    }
}

/// Lets sockets that were closed be noticed.
pub(crate) async fn settle(world: &World) {
    for _ in 0..1_000 {
        if world.proxy.open() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
}
