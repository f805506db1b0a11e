//! awsJson1.1 over HTTP: faults, signature, dispatch.

use std::{io::Write as _, sync::Arc};

use serde_json::Value;

use super::{Kms, error::KmsError, keyring::Keyring};
use crate::{
    aws_json,
    faults::Strike,
    http::{Request, Response},
    view::Span,
};

impl Kms {
    /// Answers one request.
    pub(super) async fn answer(self: Arc<Self>, request: Request) -> Response {
        let outcome = self.respond(&request).await;
        self.protocol.answer(outcome)
    }

    async fn respond(self: &Arc<Self>, request: &Request) -> Result<Value, KmsError> {
        let operation = self.protocol.operation(request);
        if let Some(operation) = operation.as_deref().filter(|operation| Keyring::knows(operation)) {
            self.count(operation);
        }
        match self.faults.strike().await {
            Some(Strike::Throttle) => return Err(KmsError::throttled()),
            Some(Strike::Unavailable) => return Err(KmsError::internal()),
            None => {}
        }
        let caller = self.protocol.authenticate(request, &self.account)?;
        let Some(operation) = operation else { return Err(KmsError::unknown_operation()) };
        let input = aws_json::input(request)?;
        // RSA keys take their time to make, and signatures some: not on a thread that others wait for.
        let kms = Arc::clone(self);
        let name = operation.clone();
        let seen = Span::current();
        let outcome =
            tokio::task::spawn_blocking(move || Span::sync_scope(seen, || kms.perform(&caller, None, &name, &input)))
                .await
                .unwrap_or_else(|_| Err(KmsError::internal()));
        if outcome.as_ref().is_err_and(|error| error.code == "UnknownOperationException") {
            // An operation that is missing here must be seen by whoever develops, even if the caller hides the error.
            let _ = writeln!(std::io::stderr(), "kms: unknown operation {operation:?}");
        }
        outcome
    }
}
