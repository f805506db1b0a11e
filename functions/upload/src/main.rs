//! `upload` in AWS Lambda: the real adapters, and nothing else.

use std::process::ExitCode;

use aws::{AwsSettings, Connector, Service};
use rds::{Rds, RdsSettings};
use s3::{Bucket, Parts, Presigner};
use shared::boot::{Api, run};
use shared::clock::SystemClock;
use shared::config::Reader;
use shared::entropy::SystemEntropy;
use shared::gate::Gate;
use shared::object::SigningSettings;
use sts::{Permission, Sessions};
use upload::{SIGNER_ROLE, Upload};

fn main() -> ExitCode {
    run(
        |environment| {
            let reader = Reader::new(environment);
            let signing = SigningSettings::read(&reader, SIGNER_ROLE);
            let settings = (signing, AwsSettings::read(&reader), RdsSettings::read(&reader));
            reader.finish().map(|()| settings)
        },
        |(signing, aws, database)| {
            let aws = Connector::new(aws);
            Ok(Api(Upload {
                sessions: Sessions::of(&aws.service(Service::Sts), &signing, Permission::Upload, SystemClock),
                presign: Presigner::of(aws.signing(), &signing)?,
                parts: Parts::new(&aws.service(Service::S3), signing.object_bucket, signing.bucket_key),
                gate: Gate::new(
                    "upload",
                    signing.accepts,
                    Bucket::new(&aws.service(Service::S3), signing.trust_bucket),
                    SystemClock,
                ),
                database: Rds::new(database, &aws),
                clock: SystemClock,
                entropy: SystemEntropy,
            }))
        },
    )
}
