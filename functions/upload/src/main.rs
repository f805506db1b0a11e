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
use shared::port::{Fault, FaultKind};
use sts::{Permission, Sessions, SignerRole};
use upload::{Config, Upload};

fn main() -> ExitCode {
    run(
        |environment| {
            let reader = Reader::new(environment);
            let settings = (Config::read(&reader), AwsSettings::read(&reader), RdsSettings::read(&reader));
            reader.finish().map(|()| settings)
        },
        |(config, aws, database)| {
            let aws = Connector::new(aws);
            let trust = Bucket::new(&aws.service(Service::S3), config.trust_bucket);
            let signer = SignerRole {
                role: config.signer_role,
                permission: Permission::Upload,
                bucket: config.object_bucket.clone(),
                bucket_key: config.bucket_key.clone(),
                reach: config.signer_reach,
            };
            let sessions = Sessions::new(&aws.service(Service::Sts), signer, SystemClock);
            if let Some(moment) = config.revoked_before {
                sessions.revoke_before(moment);
            }
            let parts = Parts::new(&aws.service(Service::S3), config.object_bucket.clone(), config.bucket_key.clone());
            Ok(Api(Upload {
                gate: Gate::new("upload", config.accepts, trust, SystemClock),
                database: Rds::new(database, &aws),
                sessions,
                presign: Presigner::new(aws.signing(), &config.signing_host, config.object_bucket, config.bucket_key)
                    .map_err(|malformed| Fault::new(FaultKind::Invalid, "s3", "Presign").caused_by(malformed))?,
                parts,
                clock: SystemClock,
                entropy: SystemEntropy,
            }))
        },
    )
}
