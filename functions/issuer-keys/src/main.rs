//! The mirror of the issuers' keys in AWS Lambda.

use std::process::ExitCode;

use aws::{AwsSettings, Connector, Service};
use https::Https;
use issuer_keys::Mirror;
use issuer_keys::config::Config;
use s3::Bucket;
use shared::boot;
use shared::clock::SystemClock;
use shared::config::{Environment, Faults, Reader};

fn read(environment: &Environment) -> Result<(Config, AwsSettings), Faults> {
    let reader = Reader::new(environment);
    let settings = (Config::read(&reader), AwsSettings::read(&reader));
    reader.finish().map(|()| settings)
}

fn main() -> ExitCode {
    boot::run(read, |(config, aws)| {
        let fetch = Https::new(aws.trust.clone());
        let aws = Connector::new(aws);
        let bucket = Bucket::new(&aws.service(Service::S3), config.trust_bucket);
        Ok(Mirror { fetch, bucket, clock: SystemClock })
    })
}
