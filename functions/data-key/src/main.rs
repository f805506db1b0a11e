//! `data-key` in AWS Lambda: the real adapters, and nothing else.

use std::process::ExitCode;
use std::sync::Arc;

use aws::{AwsSettings, Connector, Service};
use data_key::{Config, DataKey, World};
use kms::KmsWrapping;
use rds::{Rds, RdsSettings};
use s3::Bucket;
use shared::boot::run;
use shared::clock::SystemClock;
use shared::config::Reader;
use shared::entropy::SystemEntropy;

fn main() -> ExitCode {
    run(
        |environment| {
            let reader = Reader::new(environment);
            let settings = (Config::read(&reader), AwsSettings::read(&reader), RdsSettings::read(&reader));
            reader.finish().map(|()| settings)
        },
        |(config, aws, database)| {
            let aws = Connector::new(aws);
            let world = World {
                wrapping: KmsWrapping::new(&aws.service(Service::Kms), config.data_key_arn.clone()),
                // A statement that runs twice reserves messages that nobody uses, and nothing else.
                database: Arc::new(Rds::new(database, &aws)).idempotent(),
                trust: Bucket::new(&aws.service(Service::S3), config.trust_bucket.clone()),
                clock: SystemClock,
                entropy: SystemEntropy,
            };
            Ok(DataKey::new(config, world))
        },
    )
}
