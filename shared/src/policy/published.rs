//! `trust/policies.json`: the active bundle, and beside it the one that may follow.

use std::sync::Arc;

use serde_json::Value;

use super::{Ask, Bundle, Decision, Expected, Policies, Reads, Reason, Release, Unfit, Why};
use crate::audit::Line;
use crate::name::Malformed;
use crate::trust::TrustObject;

const SECOND: i64 = 1_000;

/// A bundle that compiled and decides its own examples as it must.
pub struct Loaded<P> {
    /// Which publication it was.
    pub version: i64,
    /// The bundle's hash, which every decision names.
    pub hash: String,
    policies: Arc<P>,
}

impl<P: Policies> Loaded<P> {
    /// Compiles a release and runs its examples.
    pub fn load(release: Release) -> Result<Self, Unfit> {
        let policies = P::compile(&release.bundle)?;
        run_examples(&release.bundle, &policies)?;
        Ok(Self { version: release.version, hash: release.hash, policies: Arc::new(policies) })
    }

    /// What of a question it could look at.
    pub fn reads(&self) -> Reads {
        self.policies.reads()
    }

    /// Answers one question.
    pub fn decide(&self, ask: &Ask) -> Decision {
        self.policies.decide(ask)
    }
}

/// A bundle that permits must show what it permits and what it does not: a `permit` that should have been a `forbid` is the easiest
/// mistake to make and the hardest to see.
fn run_examples<P: Policies>(bundle: &Bundle, policies: &P) -> Result<(), Unfit> {
    let shows = |expected| bundle.examples.iter().any(|example| example.expect == expected);
    if !(bundle.is_empty() || shows(Expected::Allow) && shows(Expected::Deny)) {
        return Err(Unfit::new(Why::Example, "the examples must show what is allowed and what is denied"));
    }
    for example in &bundle.examples {
        let decision = policies.decide(&example.ask);
        let as_expected = match example.expect {
            Expected::Allow => decision.allows(),
            Expected::Deny => matches!(decision.reason, Reason::NotPermitted | Reason::Forbidden),
        };
        let by_whom = example.policies.as_ref().is_none_or(|named| {
            let mut named = named.clone();
            named.sort_unstable();
            named == decision.policies
        });
        if !as_expected || !by_whom {
            let found = format!("{} by [{}]", decision.reason.as_str(), decision.policies.join(", "));
            return Err(Unfit::new(Why::Example, found).at(&example.name));
        }
    }
    Ok(())
}

/// What is published: the bundle that decides, and the one whose decisions are only compared.
pub struct Published<P> {
    /// The bundle that decides.
    pub active: Arc<Loaded<P>>,
    /// The bundle that may become active. One that is unfit is none: it must not keep the active one from serving.
    pub candidate: Option<Arc<Loaded<P>>>,
}

/// One question, judged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Judged {
    /// What holds.
    pub decision: Decision,
    /// The hash of the bundle that decided.
    pub hash: String,
    /// What the candidate would have decided, where that is something else, and the candidate's hash.
    pub shadow: Option<(Decision, String)>,
}

impl<P: Policies> Published<P> {
    /// What of a question the bundle that decides, or its candidate, could look at.
    pub fn reads(&self) -> Reads {
        let candidate = self.candidate.as_ref().map(|candidate| candidate.reads());
        self.active.reads().or(candidate.unwrap_or_default())
    }

    /// Answers one question. The candidate is asked too and never heeded.
    pub fn judge(&self, ask: &Ask) -> Judged {
        let decision = self.active.decide(ask);
        let shadow = self.candidate.as_ref().and_then(|candidate| {
            let other = candidate.decide(ask);
            let differs = other.allows() != decision.allows()
                || (other.reason == Reason::PolicyError) != (decision.reason == Reason::PolicyError);
            differs.then(|| (other, candidate.hash.clone()))
        });
        Judged { decision, hash: self.active.hash.clone(), shadow }
    }

    fn read(held: Option<&Self>, body: &Value) -> Result<Self, Malformed> {
        const BAD: Malformed = Malformed("policies");
        let members = body.as_object().ok_or(BAD)?;
        if members.keys().any(|name| name != "active" && name != "candidate") {
            return Err(BAD);
        }
        let known = |hash: &str| {
            let held = held?;
            let mut loaded = std::iter::once(&held.active).chain(&held.candidate);
            loaded.find(|loaded| loaded.hash == hash)
        };
        let load = |which: &'static str, release: &Value| {
            let loaded = Release::parse(release).and_then(|release| match known(&release.hash) {
                // Published again, or promoted: compiled once is enough.
                Some(known) => {
                    let policies = Arc::clone(&known.policies);
                    Ok(Loaded { version: release.version, hash: release.hash, policies })
                }
                None => Loaded::load(release),
            });
            loaded.map(Arc::new).inspect_err(|unfit| refused(which, unfit))
        };
        let active = load("active", members.get("active").ok_or(BAD)?).map_err(|_| BAD)?;
        let candidate = members.get("candidate").filter(|candidate| !candidate.is_null());
        let candidate = candidate.and_then(|candidate| load("candidate", candidate).ok());
        Ok(Self { active, candidate })
    }
}

/// The one sign of a bundle that this verifier does not take; without it an operator would see only that nothing changes.
fn refused(which: &'static str, unfit: &Unfit) {
    Line::new("policy", "bundle_refused")
        .text("level", "ERROR")
        .text("which", which)
        .text("why", unfit.why.as_str())
        .text("at", unfit.at.as_deref().unwrap_or_default())
        .text("detail", &unfit.detail)
        .emit();
}

impl<P: Policies> TrustObject for Published<P> {
    const KEY: &'static str = "trust/policies.json";
    const FRESH: i64 = 60 * SECOND;
    const LAST_GOOD: i64 = 3_600 * SECOND;

    fn parse(body: &Value) -> Result<Self, Malformed> {
        Self::read(None, body)
    }

    fn follow(&self, body: &Value) -> Result<Self, Malformed> {
        Self::read(Some(self), body)
    }
}

impl Judged {
    /// Adds the bundle's hash and the determining policies to a decision's line.
    pub fn explain(&self, line: Line) -> Line {
        line.text("policy", &self.hash).list("policies", self.decision.policies.iter().take(NAMED).cloned())
    }

    /// The difference the candidate would make, as a line of its own about the same request.
    pub fn shadow_line(&self, function: &'static str, ask: &Ask, request_id: &str) -> Option<Line> {
        let (decision, hash) = self.shadow.as_ref()?;
        let effect = |decision: &Decision| if decision.allows() { "allow" } else { "deny" };
        Some(
            Line::new(function, "policy_shadow")
                .request(request_id)
                .text("policy", &self.hash)
                .text("active", effect(&self.decision))
                .text("candidate_policy", hash)
                .text("candidate", effect(decision))
                .text("candidate_reason", decision.reason.as_str())
                .list("candidate_policies", decision.policies.iter().take(NAMED).cloned())
                .ask(ask),
        )
    }
}

/// How many determining policies a line names.
const NAMED: usize = 16;
