//! Public clients: programs in the hands of people, which hold no key of their own (RFC 6749 §2.1). They name themselves and prove
//! nothing by it; what they get is bound to a key of the moment and to the person.

use shared::http::Request;
use shared::port::Database;

use crate::client::{self, Client};
use crate::form::Form;
use crate::oauth::Error;
use crate::refused::{Refused, refused};
use shared::name::ClientId;

/// Whether the request says in any way that its client can authenticate.
pub(crate) fn is_authenticated(request: &Request, form: &Form) -> bool {
    let named = ["client_assertion", "client_assertion_type", "client_secret"];
    named.iter().any(|name| form.find(name).is_some()) || request.headers.all("authorization").next().is_some()
}

/// The public client that the form names; `None` for a confidential one, which does not get by with its name.
pub(crate) async fn named<D: Database>(database: &D, form: &Form) -> Result<Option<Client>, Refused> {
    let Some(id) = form.find("client_id") else { return Ok(None) };
    let id = ClientId::parse(id).map_err(|_| refused(Error::INVALID_CLIENT, "client_unknown"))?;
    let found = client::find(database, &id).await?;
    let found = found.ok_or_else(|| refused(Error::INVALID_CLIENT, "client_unknown"))?;
    Ok(Some(found).filter(|client| client.public))
}

/// The public client that asks for a person.
pub(crate) async fn client<D: Database>(database: &D, form: &Form) -> Result<Client, Refused> {
    named(database, form).await?.ok_or_else(|| refused(Error::INVALID_CLIENT, "assertion_missing"))
}
