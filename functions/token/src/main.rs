//! The token endpoint in AWS Lambda.

use std::process::ExitCode;

use aws::{AwsSettings, Connector, Service};
use kms::KmsSigner;
use rds::{Rds, RdsSettings};
use s3::Bucket;
use shared::boot::{self, Api};
use shared::clock::SystemClock;
use shared::config::{Environment, Faults, Reader};
use shared::entropy::SystemEntropy;
use token::{Token, config::Settings};

struct Config {
    settings: Settings,
    aws: AwsSettings,
    rds: RdsSettings,
    trust_bucket: String,
}

fn read(environment: &Environment) -> Result<Config, Faults> {
    let reader = Reader::new(environment);
    let settings = Settings::read(&reader);
    let (aws, rds) = (AwsSettings::read(&reader), RdsSettings::read(&reader));
    let trust_bucket = reader.text("PORTCULLIS_TRUST_BUCKET");
    reader.finish().map(|()| Config { settings, aws, rds, trust_bucket })
}

fn main() -> ExitCode {
    boot::run(read, |config| {
        let aws = Connector::new(config.aws);
        let database = Rds::new(config.rds, &aws);
        let signer = KmsSigner::new(&aws.service(Service::Kms));
        let trust = Bucket::new(&aws.service(Service::S3), config.trust_bucket);
        Ok(Api(Token::new(config.settings, database, signer, trust, SystemClock, SystemEntropy)))
    })
}
