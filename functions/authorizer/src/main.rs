//! The authorizer in AWS Lambda.

use std::process::ExitCode;

use authorizer::event::HttpAnswer;
use authorizer::{Authorizer, config};
use aws::{AwsSettings, Connector, Service};
use cedar::Cedar;
use s3::Bucket;
use shared::boot;
use shared::clock::SystemClock;
use shared::config::{Environment, Faults, Reader};
use shared::trust::Accepts;

struct Config {
    accepts: Accepts,
    http: HttpAnswer,
    aws: AwsSettings,
    trust_bucket: String,
}

fn read(environment: &Environment) -> Result<Config, Faults> {
    let reader = Reader::new(environment);
    let (accepts, http, aws) = (config::read(&reader), config::http_answer(&reader), AwsSettings::read(&reader));
    let trust_bucket = reader.text("PORTCULLIS_TRUST_BUCKET");
    reader.finish().map(|()| Config { accepts, http, aws, trust_bucket })
}

fn main() -> ExitCode {
    boot::run(read, |config| {
        let aws = Connector::new(config.aws);
        let trust = Bucket::new(&aws.service(Service::S3), config.trust_bucket);
        Ok(Authorizer::<Cedar, _, _>::new(config.accepts, trust, SystemClock).answering(config.http))
    })
}
