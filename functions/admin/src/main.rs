//! Operators' acts in AWS Lambda.

use std::process::ExitCode;

use admin::Admin;
use admin::config::Config;
use aws::{AwsSettings, Connector, Service};
use cedar::Cedar;
use rds::{Rds, RdsSettings};
use s3::Bucket;
use shared::boot;
use shared::clock::SystemClock;
use shared::config::{Environment, Faults, Reader};
use shared::entropy::SystemEntropy;
use shared::policy::check;

fn read(environment: &Environment) -> Result<(Config, AwsSettings, RdsSettings), Faults> {
    let reader = Reader::new(environment);
    let settings = (Config::read(&reader), AwsSettings::read(&reader), RdsSettings::read(&reader));
    reader.finish().map(|()| settings)
}

fn main() -> ExitCode {
    boot::run(read, |(config, aws, rds)| {
        let aws = Connector::new(aws);
        Ok(Admin {
            database: Rds::new(rds, &aws),
            inbox: Bucket::new(&aws.service(Service::S3), config.trust_bucket),
            clock: SystemClock,
            entropy: SystemEntropy,
            check: check::<Cedar>,
        })
    })
}
