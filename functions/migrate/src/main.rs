//! The deployment's schema step in AWS Lambda.

mod owned;

use std::process::ExitCode;
use std::time::Duration;

use aws::{AwsSettings, Connector};
use migrate::config::Config;
use migrate::Migrate;
use rds::RdsSettings;
use shared::boot;
use shared::config::{Environment, Faults, Reader};

use crate::owned::Owned;

fn read(environment: &Environment) -> Result<(AwsSettings, RdsSettings), Faults> {
    let reader = Reader::new(environment);
    Config::read(&reader);
    let settings = (AwsSettings::read(&reader), RdsSettings::read(&reader));
    reader.finish().map(|()| settings)
}

fn main() -> ExitCode {
    boot::run(read, |(aws, mut rds)| {
        // A migration may rewrite a table.
        rds.statement_timeout = Duration::from_secs(60);
        Ok(Migrate(Owned::new(rds, Connector::new(aws))))
    })
}
