//! A refusal of the OAuth endpoints: what the caller is told and what the log knows besides.

use shared::audit::Line;
use shared::port::Fault;

use crate::client::Client;
use crate::oauth::Error;

/// A refusal on its way out, with what the log may know of it.
pub(crate) struct Refused {
    /// What the caller is told.
    pub(crate) error: Error,
    reason: &'static str,
    client: Option<String>,
    fault: Option<Box<Fault>>,
    /// For the `DPoP-Nonce` header.
    pub(crate) nonce: Option<String>,
}

impl Refused {
    /// Says whose request it was.
    pub(crate) fn of(mut self, client: &Client) -> Self {
        self.client = Some(client.client_id.as_str().to_owned());
        self
    }

    /// One line for the log.
    pub(crate) fn log(&self, action: &'static str, request_id: &str) {
        let decision = if self.fault.is_some() { "fault" } else { "deny" };
        let mut line = Line::new("token", action).request(request_id).decision(decision, self.reason);
        if let Some(client) = &self.client {
            line = line.text("client_id", client);
        }
        match &self.fault {
            Some(fault) => line.fault(fault).emit(),
            None => line.emit(),
        }
    }
}

/// A refusal with the reason that the log tells.
pub(crate) fn refused(error: Error, reason: &'static str) -> Refused {
    Refused { error, reason, client: None, fault: None, nonce: None }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        refused(error, error.code)
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self { error: Error::from(&fault), reason: "fault", client: None, fault: Some(Box::new(fault)), nonce: None }
    }
}
