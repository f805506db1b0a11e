//! The second look: every function behind the gate verifies the token again and demands that the authorizer saw the same.

use uuid::Uuid;

use crate::audit::Line;
use crate::clock::{Clock, Timestamp};
use crate::credential::presented;
use crate::details::{Details, FileAction};
use crate::device::Device;
use crate::dpop::Possession;
use crate::http::Request;
use crate::jwt::{AccessToken, Kind, Reason};
use crate::name::Tenant;
use crate::port::ObjectReader;
use crate::problem::{Code, Problem};
use crate::scope::Scopes;
use crate::trust::{Accepts, Admitted, Refusal, Trust};

/// Who calls, from the verified token and from nowhere else.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    /// The tenant that every statement is bound to.
    pub tenant: Tenant,
    /// `sub`
    pub subject: String,
    /// `client_id`
    pub client_id: String,
    /// `jti`
    pub jti: String,
    /// What the token may do.
    pub scopes: Scopes,
    /// What the token is narrowed to, if it is.
    pub details: Details,
    /// Machine or human.
    pub kind: Kind,
    /// `sid`, people only
    pub session: Option<String>,
    /// `device`, where its posture was known
    pub device: Option<Device>,
    /// When the token ends.
    pub expires_at: Timestamp,
}

impl From<&AccessToken> for Caller {
    fn from(token: &AccessToken) -> Self {
        Self {
            tenant: token.tenant.clone(),
            subject: token.subject.clone(),
            client_id: token.client_id.clone(),
            jti: token.jti.clone(),
            scopes: token.scopes.clone(),
            details: token.details.clone(),
            kind: token.kind,
            session: token.session.clone(),
            device: token.device.clone(),
            expires_at: token.expires_at,
        }
    }
}

/// Which tokens with `authorization_details` a route takes.
#[derive(Clone, Copy)]
enum Narrowed {
    Never,
    ToFile(FileAction),
    AsTheFunctionSays,
}

impl Narrowed {
    fn admits(self, caller: &Caller, request: &Request) -> bool {
        caller.details.is_empty()
            || match self {
                Self::Never => false,
                Self::ToFile(action) => {
                    let file = request.path_parameters.get("id").and_then(|id| Uuid::try_parse(id).ok());
                    file.is_some_and(|file| caller.details.admit_file(action, file))
                }
                Self::AsTheFunctionSays => true,
            }
    }
}

/// The gate of one function.
pub struct Gate<R, C> {
    function: &'static str,
    accepts: Accepts,
    trust: Trust<R, C>,
    possession: Possession,
}

impl<R: ObjectReader, C: Clock> Gate<R, C> {
    /// A gate for `function` that reads the trust objects through `reader`.
    pub fn new(function: &'static str, accepts: Accepts, reader: R, clock: C) -> Self {
        let possession = Possession::new(&accepts.issuer);
        Self { function, accepts, trust: Trust::new(reader, clock), possession }
    }

    /// Admits a request that came through API Gateway: a valid token, an authorizer context for the same `jti` and `sub`,
    /// and one of the `accepted` scopes (none named: not checked here).
    ///
    /// A token that is narrowed by `authorization_details` is refused: a route that looks at them says so by
    /// [`Gate::admit_file`] or [`Gate::admit_narrowed`], and one that does not must not take it for a wide one.
    pub fn admit<'a>(
        &'a self,
        request: &'a Request,
        accepted: &'a [&'a str],
    ) -> impl Future<Output = Result<Caller, Problem>> + Send + 'a {
        self.admitted(request, accepted, Narrowed::Never)
    }

    /// The same for a route about the file whose id is the path's parameter `id`; a narrowed token passes if it names the file.
    pub fn admit_file<'a>(
        &'a self,
        request: &'a Request,
        accepted: &'a [&'a str],
        action: FileAction,
    ) -> impl Future<Output = Result<Caller, Problem>> + Send + 'a {
        self.admitted(request, accepted, Narrowed::ToFile(action))
    }

    /// The same for a route that asks [`Caller::details`] itself about everything it does.
    pub fn admit_narrowed<'a>(
        &'a self,
        request: &'a Request,
        accepted: &'a [&'a str],
    ) -> impl Future<Output = Result<Caller, Problem>> + Send + 'a {
        self.admitted(request, accepted, Narrowed::AsTheFunctionSays)
    }

    async fn admitted(&self, request: &Request, accepted: &[&str], narrowed: Narrowed) -> Result<Caller, Problem> {
        let caller = match self.token_of(request).await {
            Ok(token) => Caller::from(&*token),
            Err(refusal) => return Err(self.refuse(&request.request_id, refusal)),
        };
        let same =
            |context: &crate::http::AuthorizerContext| context.jti == caller.jti && context.subject == caller.subject;
        if !request.authorizer.as_ref().is_some_and(same) {
            return Err(self.deny(&request.request_id, &caller, Code::AuthorizerMissing));
        }
        if !accepted.is_empty() && !accepted.iter().any(|scope| caller.scopes.allows(scope)) {
            return Err(self.deny(&request.request_id, &caller, Code::InsufficientScope));
        }
        if !narrowed.admits(&caller, request) {
            return Err(self.deny(&request.request_id, &caller, Code::Forbidden));
        }
        Ok(caller)
    }

    /// Admits a direct invocation by the `access_token` it carries: Lambda passes no identity of the invoker.
    pub async fn admit_direct(&self, token: &str, request_id: &str) -> Result<Caller, Problem> {
        match self.trust.admit(token, &self.accepts).await {
            // Nor can a proof of possession: a bound token must not pass as an unbound one.
            Ok(token) if token.thumbprint.is_some() => {
                Err(self.refuse(request_id, Refusal::Credential(Reason::UnsupportedBinding)))
            }
            // No header can come along here, and a human's token counts only beside the person's Access assertion, as a machine's
            // does that is registered with a service token.
            Ok(token) if token.kind == Kind::Human || token.service.is_some() => {
                Err(self.refuse(request_id, Refusal::Credential(Reason::AssertionRequired)))
            }
            Ok(token) if !token.details.is_empty() => {
                Err(self.refuse(request_id, Refusal::Credential(Reason::UnsupportedRestriction)))
            }
            Ok(token) => Ok(Caller::from(&*token)),
            Err(refusal) => Err(self.refuse(request_id, refusal)),
        }
    }

    async fn token_of(&self, request: &Request) -> Result<Admitted, Refusal> {
        let presented = presented(&request.headers).map_err(Refusal::Credential)?;
        let token = self.trust.admit(presented.token, &self.accepts).await?;
        let place = (request.method.as_str(), request.path.as_str());
        self.possession
            .check(&token, &presented, &request.headers, place, self.trust.now())
            .map_err(|flaw| Refusal::Credential(Reason::Proof(flaw)))?;
        Ok(token)
    }

    fn refuse(&self, request_id: &str, refusal: Refusal) -> Problem {
        Line::new(self.function, "gate").request(request_id).decision("deny", refusal.as_str()).emit();
        match refusal {
            Refusal::Credential(_) => Code::Unauthorized.into(),
            Refusal::Stale(_) => Code::TrustStale.into(),
        }
    }

    fn deny(&self, request_id: &str, caller: &Caller, code: Code) -> Problem {
        Line::new(self.function, "gate")
            .request(request_id)
            .who(caller.tenant.as_str(), &caller.subject, &caller.jti)
            .decision("deny", code.as_str())
            .emit();
        code.into()
    }
}

#[cfg(test)]
mod tests;
