//! The recipe for Rust, run as an application would: the gateway, the client and the database are its arguments, what came of it is
//! one line of JSON.

use std::error::Error;
use std::io::{Write as _, stdout};
use std::sync::Arc;

use postgres::NoTls;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

#[path = "../../../docs/fields/users.rs"]
#[allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "a page for readers, who have other lints; indexing a JSON value answers null and does not panic"
)]
mod users;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [gateway, client, key_file, kid, ca_file, database] = arguments.as_slice() else {
        return Err("usage: recipe-users GATEWAY CLIENT KEY.PEM KID CA.PEM DATABASE_URL".into());
    };
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from_pem_file(key_file)?;
    let mut database = postgres::Client::connect(database, NoTls)?;
    let mut fields = users::Fields::new(agent(&std::fs::read(ca_file)?)?, gateway, client, key.secret_pkcs8_der(), kid);

    let grace = users::create(&mut database, &mut fields, "Grace", "Grace@Example.org")?;
    let back = users::email(&mut database, &mut fields, grace)?;
    let found = users::find(&mut database, &mut fields, "GRACE@example.ORG")? == [grace];
    users::change(&mut database, &mut fields, grace, "hopper@example.org")?;
    let by_the_old = users::find(&mut database, &mut fields, "grace@example.org")?.len();
    let by_the_new = users::find(&mut database, &mut fields, "Hopper@example.org")? == [grace];
    // More than a batch, in order; and one that was put into somebody else's row.
    let values: Vec<String> = (0..601).map(|n| format!("User{n}@Example.org")).collect();
    let pairs: Vec<(i64, &str)> = (0..).zip(values.iter().map(String::as_str)).collect();
    let records = fields.encrypt(&pairs)?;
    let sealed: Vec<(i64, Vec<u8>)> = (0..).zip(records.iter().cloned()).collect();
    let whole = fields.decrypt(&sealed)? == values;
    let swapped = match records.first() {
        Some(record) => fields.decrypt(&[(1, record.clone())]).err().map(|error| error.to_string()),
        None => None,
    };
    writeln!(stdout(), "{}", json!([grace, back, found, by_the_old, by_the_new, whole, swapped]))?;
    Ok(())
}

/// Trusts the stack's authority and no other.
fn agent(ca: &[u8]) -> Result<Agent, ureq::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = RootCerts::new_with_certs(&[Certificate::from_pem(ca)?]);
    let tls = TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build();
    Ok(users::agent(tls))
}
