#![doc = include_str!("../README.md")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a target says that something does not hold by panicking"
)]

mod events;
mod formats;
mod keys;
mod names;
mod policies;
mod tokens;
mod trust;

/// Parsers of the functions that only their function sees: their own sources, compiled here a second time, so that a target needs
/// neither another visibility than they have nor the SDKs that their function links. A module keeps the name by which the others
/// of its function call it.
macro_rules! of_functions {
    ($($path:literal $name:ident;)*) => {
        $(
            #[path = $path]
            #[allow(dead_code, unused_imports, unreachable_pub, clippy::all, clippy::pedantic, reason = "judged where it belongs")]
            pub(crate) mod $name;
        )*
    };
}

of_functions! {
    "../../../functions/authorizer/src/event/mod.rs" event;
    "../../../functions/authorizer/src/routes.rs" routes;
    "../../../functions/data-key/src/batch.rs" batch;
    "../../../functions/data-key/src/config.rs" config;
    "../../../functions/data-key/src/refusal.rs" refusal;
    "../../../functions/data-key/src/scope.rs" scope;
    "../../../functions/issuer-keys/src/key_set.rs" key_set;
    "../../../functions/object-events/src/event.rs" storage;
    "../../../functions/token/src/form.rs" form;
    "../../../functions/token/src/oauth.rs" oauth;
    "../../../functions/upload/src/request.rs" upload;
    "../../../shared/adapters/kms/src/der.rs" der;
    "../../../shared/adapters/ssm/src/pem.rs" pem;
}

mod maintain;

/// A target: its name, and what it does with one input. It panics where something does not hold.
pub type Target = (&'static str, fn(&[u8]));

macro_rules! targets {
    ($($group:ident: $($target:ident)*;)*) => {
        $($(pub use $group::$target;)*)*

        /// Every target, in the order of `docs/fuzzing.md`.
        pub const TARGETS: &[Target] = &[$($((stringify!($target), $group::$target),)*)*];
    };
}

targets! {
    tokens: access_token any_token client_assertion access_assertion workload_assertion proof proof_url;
    trust: json key_set public_key trust_object revocations;
    policies: policy policy_bundle;
    events: authorizer_event proxy_event storage_event upload_request token_form field_batch maintenance;
    formats: record esdk_message blind_index;
    names: scopes details url file_name name;
}

/// The target of this name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(held, _)| *held == name).map(|(_, run)| *run)
}

/// The input's first byte, which chooses among what a target does, and the rest.
fn choice(data: &[u8]) -> (u8, &[u8]) {
    data.split_first().map_or((0, &[][..]), |(first, rest)| (*first, rest))
}
