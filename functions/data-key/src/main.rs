//! `data-key` in AWS Lambda: the real adapters, and nothing else.

use std::process::ExitCode;
use std::sync::Arc;

use aws::{AwsSettings, Connector, Service};
use data_key::{Config, DataKey, Maintained, Maintenance, MaintenanceWorld, Program, Settings, Shredder, World};
use kms::KmsWrapping;
use rds::{Rds, RdsSettings, Target};
use s3::Bucket;
use shared::boot::{Handler, run};
use shared::clock::SystemClock;
use shared::config::Reader;
use shared::entropy::SystemEntropy;

fn main() -> ExitCode {
    run(
        |environment| {
            let reader = Reader::new(environment);
            let databases = (RdsSettings::read(&reader), RdsSettings::read_target(&reader));
            let settings = (Settings::read(&reader), AwsSettings::read(&reader), databases);
            reader.finish().map(|()| settings)
        },
        |(settings, aws, databases)| {
            let aws = Connector::new(aws);
            Ok(match settings {
                Settings::Fields(config) => Program::Fields(fields(*config, &aws, databases)),
                Settings::Shredder => {
                    Program::Shredder(Shredder { database: Rds::new(databases.0, &aws), clock: SystemClock })
                }
            })
        },
    )
}

/// A deployment that answers callers.
fn fields(config: Config, aws: &Connector, databases: (RdsSettings, Option<RdsSettings>)) -> impl Handler + use<> {
    let (database, target) = databases;
    let wrapping = KmsWrapping::new(&aws.service(Service::Kms), config.data_key_arn.clone());
    let database = Arc::new(Rds::new(database, aws));
    let maintenance = config.operations.maintains().then(|| {
        Maintenance::new(MaintenanceWorld {
            wrapping: wrapping.clone(),
            key_arn: config.data_key_arn.clone(),
            database: Arc::clone(&database),
            clock: SystemClock,
            entropy: SystemEntropy,
            target: target.map(|target| Target::new(target, aws)),
        })
    });
    let world = World {
        wrapping,
        // A statement that runs twice reserves messages that nobody uses, and nothing else.
        database: database.idempotent(),
        trust: Bucket::new(&aws.service(Service::S3), config.trust_bucket.clone()),
        clock: SystemClock,
        entropy: SystemEntropy,
    };
    Maintained { fields: DataKey::new(config, world), maintenance }
}
