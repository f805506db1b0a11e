//! Policy as a decision asks for it, whatever engine and bucket are behind it.

use std::future::Future;
use std::pin::Pin;

use super::{Ask, Judged, Policies, Published};
use crate::clock::Clock;
use crate::port::ObjectReader;
use crate::trust::{Cached, Stale};

/// Answers questions by the bundle that is published.
pub trait Judge: Send + Sync + 'static {
    /// Answers one question, after the bundle was read again if that was due.
    fn judge<'a>(&'a self, ask: &'a Ask) -> Pin<Box<dyn Future<Output = Result<Judged, Stale>> + Send + 'a>>;
}

/// The published bundle, read through `reader` and kept, in the engine `P`.
pub struct Policing<P, R, C> {
    kept: Cached<Published<P>>,
    reader: R,
    clock: C,
}

impl<P: Policies, R: ObjectReader, C: Clock> Policing<P, R, C> {
    /// Nothing is read yet.
    pub fn new(reader: R, clock: C) -> Self {
        Self { kept: Cached::default(), reader, clock }
    }
}

impl<P: Policies, R: ObjectReader, C: Clock> Judge for Policing<P, R, C> {
    fn judge<'a>(&'a self, ask: &'a Ask) -> Pin<Box<dyn Future<Output = Result<Judged, Stale>> + Send + 'a>> {
        Box::pin(async move {
            let published = self.kept.current(&self.reader, &self.clock).await?;
            Ok(published.judge(ask))
        })
    }
}
