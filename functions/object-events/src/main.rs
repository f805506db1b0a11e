//! `object-events` in AWS Lambda: the real adapters, and nothing else.

use std::process::ExitCode;

use aws::{AwsSettings, Connector, Service};
use object_events::{Config, ObjectEvents};
use rds::{Rds, RdsSettings};
use s3::Bucket;
use shared::boot::run;
use shared::clock::SystemClock;
use shared::config::Reader;

fn main() -> ExitCode {
    run(
        |environment| {
            let reader = Reader::new(environment);
            let settings = (Config::read(&reader), AwsSettings::read(&reader), RdsSettings::read(&reader));
            reader.finish().map(|()| settings)
        },
        |(config, aws, database)| {
            let aws = Connector::new(aws);
            Ok(ObjectEvents {
                database: Rds::new(database, &aws),
                objects: Bucket::new(&aws.service(Service::S3), config.object_bucket.clone()),
                clock: SystemClock,
                config,
            })
        },
    )
}
