//! Policy: who may be given which token, and what a token may do. Questions, answers and the bundle of rules; the engine that
//! judges is an adapter behind [`Policies`].
//!
//! Deny by default: a question that no policy permits, that a policy forbids, or at which any policy fails, is denied.

mod ask;
mod bundle;
pub mod caching;
mod os_version;
mod published;
mod reader;

pub use ask::{Ask, Invoke, Mint, Net, Principal, What};
pub use bundle::{Bundle, Example, Expected, Policy, Release, SCHEMA, Unfit, Why};
pub use os_version::os_version;
pub use published::{Judged, Loaded, Published};
pub use reader::{Judge, Policing};

/// An engine with one bundle in it.
pub trait Policies: Sized + Send + Sync + 'static {
    /// Reads a bundle's policies and validates them strictly against its schema. Runs no examples: [`Loaded::load`] does.
    fn compile(bundle: &Bundle) -> Result<Self, Unfit>;

    /// Answers one question. It cannot fail: what goes wrong is a denial with [`Reason::PolicyError`].
    fn decide(&self, ask: &Ask) -> Decision;

    /// What of a question the policies could look at.
    fn reads(&self) -> Reads;
}

/// What of a question policies could look at that may be something else for the same token a moment later.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Reads {
    /// The time, or the age of a token.
    pub time: bool,
    /// The address or the country.
    pub net: bool,
    /// The device.
    pub device: bool,
}

impl Reads {
    /// All there is.
    pub const ALL: Self = Self { time: true, net: true, device: true };

    /// What one of the two reads.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self { time: self.time || other.time, net: self.net || other.net, device: self.device || other.device }
    }
}

/// Judges a bundle as verifiers will before they use it.
pub type Check = fn(Bundle) -> Result<(), Unfit>;

/// The [`Check`] of an engine.
pub fn check<P: Policies>(bundle: Bundle) -> Result<(), Unfit> {
    Loaded::<P>::load(Release { version: 0, hash: String::new(), bundle }).map(|_| ())
}

/// What policy says to one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Why, and so whether.
    pub reason: Reason,
    /// The policies that determined it, sorted; those that failed, where one did. A tenant's own are named `tenant:policy`.
    pub policies: Vec<String>,
}

impl Decision {
    /// Whether the deed may be done.
    pub const fn allows(&self) -> bool {
        matches!(self.reason, Reason::Permitted)
    }

    /// A denial because something went wrong while deciding.
    pub const fn error() -> Self {
        Self { reason: Reason::PolicyError, policies: Vec::new() }
    }
}

/// Why a question was answered as it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// A policy permits it, none forbids it and none failed.
    Permitted,
    /// No policy permits it.
    NotPermitted,
    /// A policy forbids it.
    Forbidden,
    /// A policy failed, or the question could not be put. An engine that skips what fails would skip the very policy that forbids.
    PolicyError,
    /// Where the request comes from is unknown, and a policy could need it.
    NetUnknown,
}

impl Reason {
    /// The stable name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::NotPermitted => "not_permitted",
            Self::Forbidden => "forbidden",
            Self::PolicyError => "policy_error",
            Self::NetUnknown => "net_unknown",
        }
    }
}

#[cfg(test)]
mod tests;
