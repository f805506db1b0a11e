//! The token endpoint in AWS Lambda.

mod signer;

use std::process::ExitCode;
use std::sync::Arc;

use aws::{AwsSettings, Connector, Service};
use cedar::Cedar;
use rds::{Rds, RdsSettings};
use s3::Bucket;
use shared::boot::{self, Api};
use shared::clock::SystemClock;
use shared::config::{Environment, Faults, Reader};
use shared::entropy::SystemEntropy;
use shared::key_store::KeyStore;
use shared::policy::Policing;
use signer::ChosenSigner;
use token::{Token, config::Settings};

struct Config {
    settings: Settings,
    keys: KeyStore,
    aws: AwsSettings,
    rds: RdsSettings,
    trust_bucket: String,
}

fn read(environment: &Environment) -> Result<Config, Faults> {
    let reader = Reader::new(environment);
    let (settings, keys) = (Settings::read(&reader), KeyStore::read(&reader));
    let (aws, rds) = (AwsSettings::read(&reader), RdsSettings::read(&reader));
    let trust_bucket = reader.text("PORTCULLIS_TRUST_BUCKET");
    reader.finish().map(|()| Config { settings, keys, aws, rds, trust_bucket })
}

fn main() -> ExitCode {
    boot::run(read, |config| {
        let aws = Connector::new(config.aws);
        let database = Rds::new(config.rds, &aws);
        let signer = ChosenSigner::open(config.keys, &aws);
        let trust = Bucket::new(&aws.service(Service::S3), config.trust_bucket);
        let policies = Arc::new(Policing::<Cedar, _, _>::new(trust.clone(), SystemClock));
        Ok(Api(Token::new(config.settings, database, signer, trust, policies, SystemClock, SystemEntropy)))
    })
}
