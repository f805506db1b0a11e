//! What an operator is told when an act is refused.

use serde_json::{Value, json};
use shared::policy::Unfit;

/// Why an act was refused. The names are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Code {
    /// The body is no JSON object.
    MalformedBody,
    /// This build has no such operation.
    UnsupportedOperation,
    /// A field that must be there is not.
    MissingField,
    /// A field has another JSON type than it must have.
    WrongType,
    /// A field that the operation does not know.
    UnknownField,
    /// `operator` is not 1–128 printable ASCII characters.
    InvalidOperator,
    /// `tenant` does not match `[a-z0-9][a-z0-9-]{0,47}`.
    InvalidTenant,
    /// `client_id` does not match `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    InvalidClientId,
    /// `name` is not 1–200 characters without control characters.
    InvalidName,
    /// `jwks` holds anything but strong public signature keys, each with a `kid` and exactly one allowed algorithm.
    InvalidJwks,
    /// `algorithms` is empty, repeats one, or names another than the operation takes.
    InvalidAlgorithms,
    /// `scopes` is empty, unknown, repeated or longer than a token may carry.
    InvalidScopes,
    /// `ttl_seconds` is not within 30–900.
    InvalidTtl,
    /// `limit` is not within 1–500.
    InvalidLimit,
    /// `subject` is not 1–255 printable ASCII characters.
    InvalidSubject,
    /// A quota is below zero.
    InvalidQuota,
    /// `kind` is none of those that the operation knows.
    InvalidKind,
    /// `value` is no value of its kind.
    InvalidValue,
    /// `at` or `exp` lies where no living token could be hit, or too far ahead.
    InvalidTime,
    /// `id` does not match `[a-z0-9][a-z0-9-]{0,47}`, or is `own`.
    InvalidIssuerId,
    /// `issuer` is no https URL without query, or for SPIFFE not `spiffe://` and a trust domain.
    InvalidIssuer,
    /// `audience` is not 1–255 printable ASCII characters, for Cloudflare Access not the application's 64-digit tag, or given for an
    /// issuer of workloads; `audiences` holds what is no absolute URI without fragment, one twice, or more than 16.
    InvalidAudience,
    /// `jwks_url` is no https URL.
    InvalidJwksUrl,
    /// `token_endpoint_auth_method` is neither `private_key_jwt` nor `none`.
    InvalidAuthMethod,
    /// A public client's tokens must be bound to a key.
    InvalidDpop,
    /// `match` is none of `subject`, `email`, `domain` and `group`.
    InvalidMatch,
    /// `groups` holds a name outside `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`, one twice, or more than 32 or 1,024 bytes of them.
    InvalidGroups,
    /// Another tenant has a row for the same issuer, kind and value.
    IdentityTaken,
    /// The tenant has no such row.
    IdentityUnknown,
    /// There is no such tenant.
    TenantUnknown,
    /// The client id belongs to another tenant.
    ClientIdTaken,
    /// The tenant has no such client.
    ClientUnknown,
    /// Another id stands for the same issuer and audience.
    IssuerTaken,
    /// There are as many issuers as one run of their mirror can ask.
    IssuerLimit,
    /// There is no such issuer.
    IssuerUnknown,
    /// `federation` is empty, repeats a rule, holds over 16, or one that does not name one issuer and exact values of its kind.
    InvalidFederation,
    /// A rule of `federation` names an issuer that is not there, or values of another kind of issuer.
    FederationIssuerUnknown,
    /// A workload of `federation` could be another client as well.
    FederationTaken,
    /// `kid` is not 43 characters of base64url.
    InvalidKid,
    /// There is no such signing key, or none is active.
    SigningKeyUnknown,
    /// Without this key nobody could sign for a while; `confirm` says that this is known.
    NobodySigns,
    /// The bundle is not one that verifiers would use; `detail` says what is wrong where.
    InvalidPolicy,
    /// `service` is not 32 hexadecimal digits and `.access`.
    InvalidService,
    /// `devices` is not 1 to 500 devices, each once, of known members and in the form that tokens have, or looked at in the future; or what
    /// names a device is no id of one.
    InvalidDevice,
    /// A key would be on two devices of the tenant.
    DeviceKeyTaken,
    /// There are as many devices as verifiers hold.
    DeviceLimit,
    /// The tenant has no such device.
    DeviceUnknown,
    /// `hash` is not 64 hexadecimal digits.
    InvalidHash,
    /// No candidate has this hash, and none with it has ever decided.
    PolicyUnknown,
}

impl Code {
    /// The stable name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MalformedBody => "malformed_body",
            Self::UnsupportedOperation => "unsupported_operation",
            Self::MissingField => "missing_field",
            Self::WrongType => "wrong_type",
            Self::UnknownField => "unknown_field",
            Self::InvalidOperator => "invalid_operator",
            Self::InvalidTenant => "invalid_tenant",
            Self::InvalidClientId => "invalid_client_id",
            Self::InvalidName => "invalid_name",
            Self::InvalidJwks => "invalid_jwks",
            Self::InvalidAlgorithms => "invalid_algorithms",
            Self::InvalidScopes => "invalid_scopes",
            Self::InvalidTtl => "invalid_ttl",
            Self::InvalidLimit => "invalid_limit",
            Self::InvalidSubject => "invalid_subject",
            Self::InvalidQuota => "invalid_quota",
            Self::InvalidKind => "invalid_kind",
            Self::InvalidValue => "invalid_value",
            Self::InvalidTime => "invalid_time",
            Self::InvalidIssuerId => "invalid_issuer_id",
            Self::InvalidIssuer => "invalid_issuer",
            Self::InvalidAudience => "invalid_audience",
            Self::InvalidJwksUrl => "invalid_jwks_url",
            Self::InvalidAuthMethod => "invalid_auth_method",
            Self::InvalidDpop => "invalid_dpop",
            Self::InvalidMatch => "invalid_match",
            Self::InvalidGroups => "invalid_groups",
            Self::IdentityTaken => "identity_taken",
            Self::IdentityUnknown => "identity_unknown",
            Self::TenantUnknown => "tenant_unknown",
            Self::ClientIdTaken => "client_id_taken",
            Self::ClientUnknown => "client_unknown",
            Self::IssuerTaken => "issuer_taken",
            Self::IssuerLimit => "issuer_limit",
            Self::IssuerUnknown => "issuer_unknown",
            Self::InvalidFederation => "invalid_federation",
            Self::FederationIssuerUnknown => "federation_issuer_unknown",
            Self::FederationTaken => "federation_taken",
            Self::InvalidKid => "invalid_kid",
            Self::SigningKeyUnknown => "signing_key_unknown",
            Self::NobodySigns => "nobody_signs",
            Self::InvalidPolicy => "invalid_policy",
            Self::InvalidService => "invalid_service",
            Self::InvalidDevice => "invalid_device",
            Self::DeviceKeyTaken => "device_key_taken",
            Self::DeviceLimit => "device_limit",
            Self::DeviceUnknown => "device_unknown",
            Self::InvalidHash => "invalid_hash",
            Self::PolicyUnknown => "policy_unknown",
        }
    }
}

/// A refused act: nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub code: Code,
    /// The field it is about.
    pub field: Option<String>,
    /// What is wrong with a bundle, made of the bundle alone.
    pub unfit: Option<Unfit>,
}

impl Refusal {
    pub(crate) fn new(code: Code) -> Self {
        Self { code, field: None, unfit: None }
    }

    pub(crate) fn of(code: Code, field: &'static str) -> Self {
        Self::of_field(code, field.to_owned())
    }

    pub(crate) fn of_field(code: Code, field: String) -> Self {
        Self { code, field: Some(field), unfit: None }
    }

    pub(crate) fn of_bundle(unfit: Unfit) -> Self {
        Self { code: Code::InvalidPolicy, field: Some("bundle".to_owned()), unfit: Some(unfit) }
    }

    /// `{"error":{"code","field"?,"why"?,"at"?,"detail"?}}`
    pub fn into_value(self) -> Value {
        let mut error = json!({ "code": self.code.as_str() });
        let mut put = |name: &str, value: Option<String>| {
            if let (Some(value), Some(members)) = (value, error.as_object_mut()) {
                members.insert(name.to_owned(), Value::String(value));
            }
        };
        put("field", self.field);
        if let Some(unfit) = self.unfit {
            put("why", Some(unfit.why.as_str().to_owned()));
            put("at", unfit.at);
            put("detail", Some(unfit.detail));
        }
        json!({ "error": error })
    }
}
