//! IAM: identity policies of the template's roles, narrowed by their permissions boundaries, by session policies and by the
//! policies of endpoints, keys and buckets, with a readable trail of decisions.
//!
//! An explicit deny wins, then an allow, otherwise nothing is allowed. The policy of a key or bucket that names a role itself
//! lets it in without an identity policy; a key's policy that names nobody but the account leaves it to identity policies, and one
//! that does neither lets nobody in. What a boundary does not allow, nothing else does either; only a policy that names the one
//! session itself, not its role, reaches beyond it, and not beyond its denials. The operator of the stack stands above policies; only whom a role trusts is asked of it too. What is not understood (element, operator,
//! condition key) is an error when the stack starts, never skipped.

mod condition;
mod context;
mod document;
mod pattern;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use self::context::Context;
pub use self::document::{Effect, Policy, Verdict};

use crate::account::{Principal, PrincipalKind};
use crate::clock::Clock;
use crate::sigv4::Authenticated;
use crate::template::{NetworkSpec, RoleSpec};
use crate::view::Span;
use crate::view::record::Judged;

/// What IAM says about one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Every policy that has a say allows it.
    Allow,
    /// Not allowed.
    Deny {
        /// The end of AWS's sentence, e.g. `because no identity-based policy allows the kms:Decrypt action`.
        reason: String,
    },
}

impl Decision {
    /// True for [`Decision::Allow`].
    pub fn allowed(&self) -> bool {
        matches!(self, Decision::Allow)
    }
}

/// One decision as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrailEntry {
    /// The part before the colon of the action, e.g. `kms`.
    pub service: String,
    /// The action, e.g. `kms:Decrypt`.
    pub action: String,
    /// The caller's ARN.
    pub principal: String,
    /// The resource's ARN, or `*`.
    pub resource: String,
    /// What was known about the call, the global keys included.
    pub context: Context,
    /// The policy that narrowed the caller's session, if one did.
    pub session_policy: Option<Value>,
    /// The outcome.
    pub allowed: bool,
    /// `role/policy number/statement id` of the statement that decided, if one did; `role/boundary/statement id` where the boundary
    /// denied.
    pub statement: Option<String>,
    /// `role/boundary/statement id` of the statement of the caller's permissions boundary within which the call is.
    pub within: Option<String>,
    /// Why.
    pub reason: String,
}

/// Somebody whose rights are asked for.
pub trait Caller {
    /// Who.
    fn principal(&self) -> &Principal;
    /// When the caller's keys were issued, if that is known.
    fn issued_at(&self) -> Option<SystemTime> {
        None
    }
}

impl Caller for Principal {
    fn principal(&self) -> &Principal {
        self
    }
}

impl Caller for Authenticated {
    fn principal(&self) -> &Principal {
        &self.principal
    }
    fn issued_at(&self) -> Option<SystemTime> {
        Some(self.issued_at)
    }
}

#[derive(Debug)]
struct Role {
    arn: String,
    policies: Vec<Policy>,
    trust: Policy,
    boundary: Option<Policy>,
}

/// The policies of one account.
#[derive(Debug)]
pub struct Iam {
    account: String,
    region: String,
    clock: Clock,
    roles: BTreeMap<String, Role>,
    network: NetworkSpec,
    /// The policies of keys and buckets, by ARN.
    held: RwLock<BTreeMap<String, Policy>>,
    /// The policies of endpoints, by service.
    endpoints: RwLock<BTreeMap<String, Policy>>,
    trail: Mutex<Vec<TrailEntry>>,
    /// How many decisions the trail remembers.
    kept: AtomicUsize,
}

impl Iam {
    /// Reads all policies of the roles.
    ///
    /// # Errors
    /// All faults of all policies, each with the role's name: unknown elements, operators, condition keys, values.
    pub fn new(account: &str, region: &str, clock: Clock, roles: &[RoleSpec]) -> Result<Iam, Vec<String>> {
        let (mut known, mut faults) = (BTreeMap::new(), Vec::new());
        for role in roles {
            let mut policies = Vec::new();
            for (index, document) in role.policies.iter().enumerate() {
                match Policy::identity(document) {
                    Ok(policy) => policies.push(policy),
                    Err(found) => {
                        faults.extend(found.into_iter().map(|fault| format!("{} policy {index}: {fault}", role.name)));
                    }
                }
            }
            let boundary = role.boundary.as_ref().map(Policy::identity).transpose().unwrap_or_else(|found| {
                faults.extend(found.into_iter().map(|fault| format!("{} permissions boundary: {fault}", role.name)));
                None
            });
            match Policy::trust(&role.trust) {
                Ok(trust) => {
                    let role_entry = Role { arn: role.arn.clone(), policies, trust, boundary };
                    if known.insert(role.name.clone(), role_entry).is_some() {
                        faults.push(format!("{}: defined twice", role.name));
                    }
                }
                Err(found) => {
                    faults.extend(found.into_iter().map(|fault| format!("{} trust policy: {fault}", role.name)));
                }
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let (account, region) = (account.to_owned(), region.to_owned());
        let network = NetworkSpec::default();
        let (held, endpoints, trail) = Default::default();
        let kept = AtomicUsize::new(usize::MAX);
        Ok(Iam { account, region, clock, roles: known, network, held, endpoints, trail, kept })
    }

    /// The same with a network: what its functions call, they call through its endpoints (`aws:SourceVpce`).
    #[must_use]
    pub fn in_network(self, network: NetworkSpec) -> Iam {
        Iam { network, ..self }
    }

    /// Gives a key or a bucket, by its ARN, this policy in place of the one that it had.
    ///
    /// # Errors
    /// All faults found.
    pub fn set_resource_policy(&self, arn: &str, document: &Value) -> Result<(), Vec<String>> {
        let policy = Policy::resource(document)?;
        self.held.write().unwrap_or_else(PoisonError::into_inner).insert(arn.to_owned(), policy);
        Ok(())
    }

    /// Gives the endpoint of a service (`kms`) this policy.
    ///
    /// # Errors
    /// All faults found.
    pub fn set_endpoint_policy(&self, service: &str, document: &Value) -> Result<(), Vec<String>> {
        let policy = Policy::resource(document)?;
        self.endpoints.write().unwrap_or_else(PoisonError::into_inner).insert(service.to_owned(), policy);
        Ok(())
    }

    /// The account id.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Whether a role of this name exists.
    pub fn has_role(&self, name: &str) -> bool {
        self.roles.contains_key(name)
    }

    /// Decides one call and writes it to the trail. `resource` is an ARN, or `*` for actions without resource.
    ///
    /// The global keys (`aws:PrincipalArn`, `aws:SourceIp`, …) are supplied here unless `context` holds them.
    pub fn authorize(&self, caller: &impl Caller, action: &str, resource: &str, context: &Context) -> Decision {
        let principal = caller.principal();
        let context = self.complete(caller, action, context);
        let (allowed, statement, reason) = self.decide(principal, action, resource, &context);
        self.record(principal, action, resource, &context, (allowed, statement), &reason);
        if allowed { Decision::Allow } else { Decision::Deny { reason } }
    }

    /// Decides `sts:AssumeRole`: the role's trust policy must name the caller, itself or by its account. Whom it names only by its
    /// account needs a policy of its own that allows it besides.
    pub fn assume(&self, caller: &impl Caller, role_arn: &str, context: &Context) -> Decision {
        const ACTION: &str = "sts:AssumeRole";
        let principal = caller.principal();
        let context = self.complete(caller, ACTION, context);
        let (allowed, statement, reason) =
            match self.trust_holds(role_arn, TrustedBy::Arn(&principal.arn), ACTION, &context) {
                false => (false, None, format!("because no trust policy allows the {ACTION} action")),
                true => self.decide(principal, ACTION, role_arn, &context),
            };
        let silent = !allowed && reason == format!("because no identity-based policy allows the {ACTION} action");
        let named = || {
            self.trust_holds(role_arn, TrustedBy::Named(&principal.arn), ACTION, &context)
                && !matches!(self.bounded(principal, ACTION, role_arn, &context), Bound::Denies(_) | Bound::Outside)
        };
        let (allowed, reason) =
            if silent && named() { (true, "named by the trust policy".to_owned()) } else { (allowed, reason) };
        self.record(principal, ACTION, role_arn, &context, (allowed, statement), &reason);
        if allowed { Decision::Allow } else { Decision::Deny { reason } }
    }

    /// Whether the role's trust policy lets this principal (role, session or account root ARN) assume it.
    pub fn trusts(&self, role_arn: &str, principal_arn: &str) -> bool {
        let context = Context::new().with("aws:PrincipalArn", role_of(principal_arn));
        self.trust_holds(role_arn, TrustedBy::Arn(principal_arn), "sts:AssumeRole", &context)
    }

    /// Whether the role's trust policy lets this service (`lambda.amazonaws.com`) assume it.
    pub fn trusts_service(&self, role_arn: &str, service: &str) -> bool {
        let context = Context::new().with("aws:SourceAccount", &self.account);
        self.trust_holds(role_arn, TrustedBy::Service(service), "sts:AssumeRole", &context)
    }

    /// All decisions so far, oldest first.
    pub fn trail(&self) -> Vec<TrailEntry> {
        self.trail.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on the trail remembers so many decisions, and for a while twice as many: for a stack that nobody reads to the end.
    pub fn keep_last(&self, kept: usize) {
        self.kept.store(kept, Ordering::Relaxed);
    }

    /// Adds a decision that another part made (a bucket policy, a database proxy).
    pub fn note(&self, entry: TrailEntry) {
        if let Some(seen) = Span::current() {
            seen.judged(Judged::of(&entry));
        }
        let (mut trail, kept) =
            (self.trail.lock().unwrap_or_else(PoisonError::into_inner), self.kept.load(Ordering::Relaxed));
        trail.push(entry);
        if trail.len() / 2 > kept {
            let surplus = trail.len() - kept;
            trail.drain(..surplus);
        }
    }

    /// The allow statements of all roles that no decision so far has used: the measure of a minimal policy.
    pub fn unused(&self) -> Vec<String> {
        let trail = self.trail.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unused = Vec::new();
        for (name, role) in &self.roles {
            for (index, policy) in role.policies.iter().enumerate() {
                for sid in policy.allow_statements() {
                    let label = format!("{name}/{index}/{sid}");
                    if !trail.iter().any(|entry| entry.statement.as_deref() == Some(label.as_str())) {
                        unused.push(label);
                    }
                }
            }
        }
        unused
    }

    fn decide(
        &self,
        principal: &Principal,
        action: &str,
        resource: &str,
        context: &Context,
    ) -> (bool, Option<String>, String) {
        let PrincipalKind::Role { role_name, session_policy, .. } = &principal.kind else {
            return (true, None, "the operator may do everything".to_owned());
        };
        let nobody = |kind: &str| (false, None, format!("because no {kind} allows the {action} action"));
        if !self.lets_through(&principal.arn, action, resource, context) {
            return nobody("VPC endpoint policy");
        }
        let bound = self.bounded(principal, action, resource, context);
        if let Bound::Denies(label) = bound {
            return (false, Some(label), "with an explicit deny in a permissions boundary".to_owned());
        }
        let held = self.held(&principal.arn, action, resource, context);
        if held == Held::Denies {
            return (false, None, "with an explicit deny in a resource-based policy".to_owned());
        }
        let mut allow = None;
        let policies = self.roles.get(role_name).map_or(&[][..], |role| role.policies.as_slice());
        for (index, policy) in policies.iter().enumerate() {
            match policy.evaluate(action, resource, context) {
                Verdict::Deny(sid) => {
                    let reason = "with an explicit deny in an identity-based policy".to_owned();
                    return (false, Some(format!("{role_name}/{index}/{sid}")), reason);
                }
                Verdict::Allow(sid) => {
                    allow.get_or_insert_with(|| format!("{role_name}/{index}/{sid}"));
                }
                Verdict::Silent => {}
            }
        }
        let session = match session_policy.as_ref().map(Policy::identity) {
            None => Verdict::Allow(String::new()),
            Some(Ok(policy)) => policy.evaluate(action, resource, context),
            Some(Err(_)) => Verdict::Silent,
        };
        let allow = match &held {
            Held::Names(label) | Held::NamesSession(label) => allow.or_else(|| Some(label.clone())),
            _ => allow,
        };
        let outside = bound == Bound::Outside && !matches!(held, Held::NamesSession(_));
        match (session, allow, held) {
            (Verdict::Deny(_), ..) => (false, None, "with an explicit deny in a session policy".to_owned()),
            (_, Some(_), Held::Closed) => nobody("resource-based policy"),
            (_, None, _) => nobody("identity-based policy"),
            (_, Some(_), _) if outside => nobody("permissions boundary"),
            (Verdict::Silent, ..) => nobody("session policy"),
            (Verdict::Allow(_), Some(label), _) => (true, Some(label), "allowed".to_owned()),
        }
    }

    /// What the policy of the key or bucket that `resource` belongs to says.
    fn held(&self, principal: &str, action: &str, resource: &str, context: &Context) -> Held {
        let bucket = || resource.starts_with("arn:aws:s3:::").then(|| resource.split('/').next()).flatten();
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let Some((arn, policy)) = held.get_key_value(bucket().unwrap_or(resource)) else { return Held::Leaves };
        let says = |by| policy.evaluate_for(by, action, resource, context);
        let asked =
            (says(TrustedBy::Arn(principal)), says(TrustedBy::Session(principal)), says(TrustedBy::Named(principal)));
        match asked {
            (Verdict::Deny(_), ..) => Held::Denies,
            (_, Verdict::Allow(sid), _) => Held::NamesSession(format!("{arn}/{sid}")),
            (.., Verdict::Allow(sid)) => Held::Names(format!("{arn}/{sid}")),
            // To a bucket its account has access by identity policies alone; to a key only if the key's policy says so.
            (Verdict::Silent, ..) if bucket().is_none() => Held::Closed,
            _ => Held::Leaves,
        }
    }

    /// What the permissions boundary of the caller's role says.
    fn bounded(&self, principal: &Principal, action: &str, resource: &str, context: &Context) -> Bound {
        let PrincipalKind::Role { role_name, .. } = &principal.kind else { return Bound::Without };
        let Some(boundary) = self.roles.get(role_name).and_then(|role| role.boundary.as_ref()) else {
            return Bound::Without;
        };
        match boundary.evaluate(action, resource, context) {
            Verdict::Deny(sid) => Bound::Denies(format!("{role_name}/boundary/{sid}")),
            Verdict::Allow(sid) => Bound::Within(format!("{role_name}/boundary/{sid}")),
            Verdict::Silent => Bound::Outside,
        }
    }

    /// Whether the policy of the endpoint through which a call comes lets it through.
    fn lets_through(&self, principal: &str, action: &str, resource: &str, context: &Context) -> bool {
        let service = action.split(':').next().unwrap_or_default();
        let endpoints = self.endpoints.read().unwrap_or_else(PoisonError::into_inner);
        match (context.values("aws:SourceVpce"), endpoints.get(service)) {
            (Some(_), Some(policy)) => {
                let said = policy.evaluate_for(TrustedBy::Arn(principal), action, resource, context);
                matches!(said, Verdict::Allow(_))
            }
            _ => true,
        }
    }

    fn trust_holds(&self, role_arn: &str, by: TrustedBy<'_>, action: &str, context: &Context) -> bool {
        self.roles
            .values()
            .find(|role| role.arn == role_arn)
            .is_some_and(|role| matches!(role.trust.trusts(by, action, context), Verdict::Allow(_)))
    }

    fn complete(&self, caller: &impl Caller, action: &str, context: &Context) -> Context {
        let principal = caller.principal();
        let now = self.clock.now();
        let mut full = Context::new()
            .with("aws:PrincipalArn", role_of(&principal.arn))
            .with("aws:PrincipalAccount", &self.account)
            .with("aws:RequestedRegion", &self.region)
            .with("aws:SourceIp", "127.0.0.1")
            .with("aws:SecureTransport", "true")
            .with("aws:CurrentTime", rfc3339(now))
            .with("aws:EpochTime", epoch(now).to_string());
        if let Some(issued) = caller.issued_at() {
            full = full.with("aws:TokenIssueTime", rfc3339(issued));
        }
        if let PrincipalKind::Role { function_arn: Some(function), .. } = &principal.kind {
            full = full.with("lambda:SourceFunctionArn", function);
            // A service that acts in the caller's name comes through no endpoint of ours.
            let service = action.split(':').next().unwrap_or_default();
            let through = self.network.endpoints.get(service).filter(|_| self.network.functions.contains(function));
            if let Some(endpoint) = through.filter(|_| context.values("kms:ViaService").is_none()) {
                full = full.with("aws:SourceVpce", endpoint);
            }
        }
        full.overlaid(context)
    }

    fn record(
        &self,
        principal: &Principal,
        action: &str,
        resource: &str,
        context: &Context,
        (allowed, statement): (bool, Option<String>),
        reason: &str,
    ) {
        let session_policy = match &principal.kind {
            PrincipalKind::Role { session_policy, .. } => session_policy.clone(),
            PrincipalKind::Operator => None,
        };
        let within = match self.bounded(principal, action, resource, context) {
            Bound::Within(label) => Some(label),
            Bound::Without | Bound::Denies(_) | Bound::Outside => None,
        };
        self.note(TrailEntry {
            service: action.split(':').next().unwrap_or_default().to_owned(),
            action: action.to_owned(),
            principal: principal.arn.clone(),
            resource: resource.to_owned(),
            context: context.clone(),
            session_policy,
            allowed,
            statement,
            within,
            reason: reason.to_owned(),
        });
    }
}

/// What the policy of a key or bucket says about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    /// Denied explicitly.
    Denies,
    /// Allowed to the caller by name, its role's or anybody's, by this statement.
    Names(String),
    /// Allowed to this one session by name.
    NamesSession(String),
    /// Left to identity policies.
    Leaves,
    /// Not even left to identity policies.
    Closed,
}

/// What the boundary of a role says about a call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Bound {
    /// There is none.
    Without,
    /// Denied explicitly, by this statement.
    Denies(String),
    /// Allowed, by this statement, to whom something else allows it.
    Within(String),
    /// Not allowed.
    Outside,
}

/// Whom a trust or resource policy is asked about.
#[derive(Clone, Copy, Debug)]
pub enum TrustedBy<'a> {
    /// A role, session, user or account-root ARN, covered also by whoever names its account.
    Arn(&'a str),
    /// The same, but covered only where the policy names it itself, or anybody: what needs no identity policy besides.
    Named(&'a str),
    /// A session ARN, covered only where the policy names that session.
    Session(&'a str),
    /// A service principal.
    Service(&'a str),
}

/// AWS's sentence for a denial.
pub fn denial(principal: &Principal, action: &str, resource: &str, reason: &str) -> String {
    format!("User: {} is not authorized to perform: {action} on resource: {resource} {reason}", principal.arn)
}

/// Checks a policy handed to `AssumeRole`.
///
/// # Errors
/// All faults found.
pub fn check_session_policy(document: &Value) -> Result<(), Vec<String>> {
    Policy::identity(document).map(|_| ())
}

/// Whether `text` fits a pattern with `*` and `?`, case counting.
pub fn wildcard_matches(pattern: &str, text: &str) -> bool {
    pattern::wildcard_matches(pattern, text)
}

/// The role ARN behind a session ARN; any other ARN as it is.
fn role_of(arn: &str) -> String {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    if let ["arn", partition, "sts", _, account, rest] = parts.as_slice()
        && let Some(role) = rest.strip_prefix("assumed-role/").and_then(|rest| rest.split('/').next())
    {
        return format!("arn:{partition}:iam::{account}:role/{role}");
    }
    arn.to_owned()
}

fn rfc3339(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(&Rfc3339).unwrap_or_default()
}

fn epoch(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map(|passed| passed.as_secs()).unwrap_or_default()
}
