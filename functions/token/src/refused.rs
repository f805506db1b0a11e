//! A refusal of the OAuth endpoints: what the caller is told and what the log knows besides.

use shared::audit::Line;
use shared::federation::Workload;
use shared::port::Fault;

use crate::client::Client;
use crate::oauth::Error;

/// A refusal on its way out, with what the log may know of it.
pub(crate) struct Refused {
    /// What the caller is told.
    pub(crate) error: Error,
    reason: &'static str,
    client: Option<Box<str>>,
    workload: Option<Box<(String, String)>>,
    fault: Option<Box<Fault>>,
    /// For the `DPoP-Nonce` header.
    pub(crate) nonce: Option<String>,
    /// Whether it would be the same whatever the client's row said.
    pub(crate) settled: bool,
}

impl Refused {
    /// Says whose request it was.
    pub(crate) fn of(mut self, client: &Client) -> Self {
        self.client = Some(client.client_id.as_str().into());
        self
    }

    /// Says which workload asked.
    pub(crate) fn by(mut self, workload: &Workload) -> Self {
        self.workload = Some(Box::new((workload.issuer().to_string(), workload.describe())));
        self
    }

    /// The refusal does not hang on the client's row.
    pub(crate) fn settled(mut self) -> Self {
        self.settled = true;
        self
    }

    /// One line for the log.
    pub(crate) fn log(&self, action: &'static str, request_id: &str) {
        let decision = if self.fault.is_some() { "fault" } else { "deny" };
        let mut line = Line::new("token", action).request(request_id).decision(decision, self.reason);
        if let Some(client) = &self.client {
            line = line.text("client_id", client);
        }
        if let Some((issuer, workload)) = self.workload.as_deref() {
            line = line.text("issuer", issuer).text("workload", workload);
        }
        match &self.fault {
            Some(fault) => line.fault(fault).emit(),
            None => line.emit(),
        }
    }
}

/// A refusal with the reason that the log tells.
pub(crate) fn refused(error: Error, reason: &'static str) -> Refused {
    Refused { error, reason, client: None, workload: None, fault: None, nonce: None, settled: false }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        refused(error, error.code)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        let refused = refused(Error::from(&fault), "fault").settled();
        Self { fault: Some(Box::new(fault)), ..refused }
    }
}
