//! `download` in AWS Lambda: the real adapters, and nothing else.

use std::process::ExitCode;

use aws::{AwsSettings, Connector, Service};
use download::{Config, Download, Receipts};
use kms::KmsSigner;
use rds::{Rds, RdsSettings};
use s3::{Bucket, Presigner};
use shared::boot::{Api, run};
use shared::clock::SystemClock;
use shared::config::Reader;
use shared::entropy::SystemEntropy;
use shared::gate::Gate;
use sts::{Permission, Sessions};

fn main() -> ExitCode {
    run(
        |environment| {
            let reader = Reader::new(environment);
            let settings = (Config::read(&reader), AwsSettings::read(&reader), RdsSettings::read(&reader));
            reader.finish().map(|()| settings)
        },
        |(Config { signing, receipt_key, scan }, aws, database)| {
            let aws = Connector::new(aws);
            Ok(Api(Download {
                sessions: Sessions::of(&aws.service(Service::Sts), &signing, Permission::Download, SystemClock),
                presign: Presigner::of(aws.signing(), &signing)?,
                base: signing.accepts.issuer.clone(),
                gate: Gate::new(
                    "download",
                    signing.accepts,
                    Bucket::new(&aws.service(Service::S3), signing.trust_bucket),
                    SystemClock,
                ),
                database: Rds::new(database, &aws),
                receipts: Receipts::new(KmsSigner::new(&aws.service(Service::Kms)), receipt_key),
                clock: SystemClock,
                entropy: SystemEntropy,
                scan,
            }))
        },
    )
}
