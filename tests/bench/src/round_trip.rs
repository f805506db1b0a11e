//! One round trip to the database with nothing around it, by the adapter that the functions have.

use std::collections::BTreeMap;
use std::io;

use aws::{AwsSettings, Connector};
use rds::{Rds, RdsSettings};
use shared::config::{Environment, Reader};
use shared::port::{Database as _, Parameter};

/// A connection of the token function's login.
pub(crate) struct RoundTrips(Rds);

impl RoundTrips {
    /// Opens nothing yet. `environment` is that of the token function.
    pub(crate) fn new(environment: &BTreeMap<String, String>) -> io::Result<Self> {
        // What nobody asks for is a fault, and what else the function is told nobody asks for here.
        let ours = |name: &&String| name.starts_with("PORTCULLIS_DB_") || *name == "PORTCULLIS_CA_FILE";
        let told = environment.iter().filter(|(name, _)| !name.starts_with("PORTCULLIS_") || ours(name));
        let pairs = told.map(|(name, value)| (name.as_str(), value.as_str()));
        let environment = Environment::from_pairs(pairs);
        let reader = Reader::new(&environment);
        let (aws, rds) = (AwsSettings::read(&reader), RdsSettings::read(&reader));
        reader.finish().map_err(|_| io::Error::other("the token function has no database"))?;
        Ok(Self(Rds::new(rds, &Connector::new(aws))))
    }

    /// Microseconds on a processor for one of `count`: what this thread spends, which drives the connection too.
    pub(crate) async fn take(&self, count: u32) -> io::Result<f64> {
        self.ask().await?;
        let before = processor()?;
        for _ in 0..count {
            self.ask().await?;
        }
        Ok(processor()?.saturating_sub(before) as f64 / 1e3 / f64::from(count))
    }

    /// The cheapest question that this login may ask.
    async fn ask(&self) -> io::Result<()> {
        let nobody = vec![Parameter::Text("nobody".to_owned())];
        let answer = self.0.call("api.client_for_token", nobody).await;
        answer.map(drop).map_err(|fault| io::Error::other(fault.to_string()))
    }
}

/// Nanoseconds that this thread was on a processor.
fn processor() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split(' ').next().and_then(|first| first.parse().ok());
    first.ok_or_else(|| io::Error::other("no schedstat"))
}
