//! The publisher of trust objects in AWS Lambda.

use std::process::ExitCode;

use aws::{AwsSettings, Connector, Service};
use kms::KmsSigningKeys;
use rds::{Rds, RdsSettings};
use s3::Bucket;
use shared::boot;
use shared::clock::SystemClock;
use shared::config::{Environment, Faults, Reader};
use trust::Publisher;
use trust::config::Config;

fn read(environment: &Environment) -> Result<(Config, AwsSettings, RdsSettings), Faults> {
    let reader = Reader::new(environment);
    let settings = (Config::read(&reader), AwsSettings::read(&reader), RdsSettings::read(&reader));
    reader.finish().map(|()| settings)
}

fn main() -> ExitCode {
    boot::run(read, |(config, aws, rds)| {
        let aws = Connector::new(aws);
        Ok(Publisher {
            database: Rds::new(rds, &aws),
            bucket: Bucket::new(&aws.service(Service::S3), config.trust_bucket),
            keys: KmsSigningKeys::new(&aws.service(Service::Kms), config.env),
            clock: SystemClock,
            issues: config.issues,
        })
    })
}
