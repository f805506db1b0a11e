//! The publisher of trust objects in AWS Lambda.

mod keys;

use std::process::ExitCode;

use aws::{AwsSettings, Connector, Service};
use keys::{ChosenKeys, Place};
use rds::{Rds, RdsSettings};
use s3::Bucket;
use shared::boot;
use shared::clock::SystemClock;
use shared::config::{Environment, Faults, Reader};
use trust::Publisher;
use trust::config::Config;

fn read(environment: &Environment) -> Result<(Config, Place, AwsSettings, RdsSettings), Faults> {
    let reader = Reader::new(environment);
    let (config, place) = (Config::read(&reader), Place::read(&reader));
    let (aws, rds) = (AwsSettings::read(&reader), RdsSettings::read(&reader));
    reader.finish().map(|()| (config, place, aws, rds))
}

fn main() -> ExitCode {
    boot::run(read, |(config, place, aws, rds)| {
        let aws = Connector::new(aws);
        Ok(Publisher {
            database: Rds::new(rds, &aws),
            bucket: Bucket::new(&aws.service(Service::S3), config.trust_bucket),
            keys: ChosenKeys::open(place, config.env, &aws),
            clock: SystemClock,
            issues: config.issues,
            policy: config.policy,
        })
    })
}
