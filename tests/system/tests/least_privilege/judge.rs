//! Two judges of single policies, and how what policies say becomes a decision.

use std::collections::{BTreeMap, BTreeSet};

use local::policy::{self, Policy, TrustedBy, Verdict};
use serde_json::{Value, json};

use crate::mutants::texts;
use crate::policies::{ACCOUNT, Policies, REGION, default_key_policy};
use crate::world::{Cell, Context, Known, Matrix, principal};

/// Which of a role's documents is meant.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Identity(usize),
    Trust,
}

/// What one policy says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    Deny,
    Allow,
    Nothing,
}

/// Whom a policy with a principal is asked about.
#[derive(Clone, Copy, Debug)]
pub enum By<'a> {
    /// Named itself, or as anybody.
    Name(&'a str),
    /// As one of its account.
    Account(&'a str),
    /// A service of AWS.
    Service(&'a str),
}

/// A reader of policies.
pub trait Judge {
    type Policy;
    fn identity(document: &Value) -> Self::Policy;
    fn trust(document: &Value) -> Self::Policy;
    fn resource(document: &Value) -> Self::Policy;
    fn says(policy: &Self::Policy, action: &str, arn: &str, context: &Known) -> Says;
    fn says_of(policy: &Self::Policy, by: By<'_>, action: &str, arn: &str, context: &Known) -> Says;
}

/// The evaluator of the local stack.
pub enum Own {}

impl Judge for Own {
    type Policy = Policy;

    fn identity(document: &Value) -> Policy {
        Policy::identity(document).unwrap()
    }

    fn trust(document: &Value) -> Policy {
        Policy::trust(document).unwrap()
    }

    fn resource(document: &Value) -> Policy {
        Policy::resource(document).unwrap()
    }

    fn says(policy: &Policy, action: &str, arn: &str, context: &Known) -> Says {
        said(policy.evaluate(action, arn, context.own()))
    }

    fn says_of(policy: &Policy, by: By<'_>, action: &str, arn: &str, context: &Known) -> Says {
        let by = match by {
            By::Name(arn) => TrustedBy::Named(arn),
            By::Account(arn) => TrustedBy::Arn(arn),
            By::Service(name) => TrustedBy::Service(name),
        };
        if action.starts_with("sts:") {
            return said(policy.trusts(by, action, context.own()));
        }
        said(policy.evaluate_for(by, action, arn, context.own()))
    }
}

fn said(verdict: Verdict) -> Says {
    match verdict {
        Verdict::Deny(_) => Says::Deny,
        Verdict::Allow(_) => Says::Allow,
        Verdict::Silent => Says::Nothing,
    }
}

/// A context as the evaluator of the local stack reads it.
pub fn known(context: &Context) -> policy::Context {
    let with = |known: policy::Context, (key, values): (&String, &Vec<String>)| {
        values.iter().fold(known, |known, value| known.with(key, value))
    };
    context.iter().fold(policy::Context::new(), with)
}

/// The crate `iam-rs`: whatever it does not understand it does not allow.
pub enum Second {}

impl Judge for Second {
    type Policy = iam_rs::PolicyEvaluator;

    fn identity(document: &Value) -> Self::Policy {
        let policy = iam_rs::IAMPolicy::from_json(&document.to_string()).expect("the second judge reads the policy");
        iam_rs::PolicyEvaluator::with_policies(vec![policy])
    }

    /// It wants a resource in every statement, which a trust policy has not.
    fn trust(document: &Value) -> Self::Policy {
        let mut document = document.clone();
        let statements = match &mut document["Statement"] {
            Value::Array(statements) => statements.iter_mut().collect(),
            one => vec![one],
        };
        for statement in statements {
            statement["Resource"] = json!("*");
        }
        Self::identity(&document)
    }

    fn resource(document: &Value) -> Self::Policy {
        Self::identity(document)
    }

    fn says(policy: &Self::Policy, action: &str, arn: &str, context: &Known) -> Says {
        let anybody = format!("arn:aws:iam::{ACCOUNT}:role/somebody");
        Self::says_of(policy, By::Name(&anybody), action, arn, context)
    }

    fn says_of(policy: &Self::Policy, by: By<'_>, action: &str, arn: &str, context: &Known) -> Says {
        let id = |text: String| iam_rs::PrincipalId::String(text);
        let principal = match by {
            By::Name(arn) => iam_rs::Principal::Aws(id(arn.to_owned())),
            By::Account(arn) => {
                let account = arn.split(':').nth(4).unwrap_or_default();
                iam_rs::Principal::Aws(id(format!("arn:aws:iam::{account}:root")))
            }
            By::Service(name) => iam_rs::Principal::Service(id(name.to_owned())),
        };
        // A call without a resource: nothing but `*` covers it.
        let nowhere = format!("arn:aws:{}:{REGION}:{ACCOUNT}:*", action.split(':').next().unwrap_or_default());
        let arn = iam_rs::Arn::parse(if arn == "*" { &nowhere } else { arn }).expect(arn);
        let request = iam_rs::IAMRequest::new_with_context(principal, action, arn, context.second().clone());
        match policy.evaluate(&request).map(|result| result.decision) {
            Ok(iam_rs::Decision::Allow) => Says::Allow,
            Ok(iam_rs::Decision::NotApplicable) => Says::Nothing,
            Ok(iam_rs::Decision::Deny) | Err(_) => Says::Deny,
        }
    }
}

/// A context as `iam-rs` reads it.
pub fn known_second(context: &Context) -> iam_rs::Context {
    let mut values = iam_rs::Context::new();
    for (key, list) in context {
        values.insert(key.clone(), value(key, list));
    }
    values
}

fn value(key: &str, list: &[String]) -> iam_rs::ContextValue {
    let first = list.first().cloned().unwrap_or_default();
    match key {
        "kms:EncryptionContextKeys" | "kms:ResourceAliases" | "aws:TagKeys" => {
            iam_rs::ContextValue::StringList(list.to_vec())
        }
        "aws:SecureTransport" | "kms:ReEncryptOnSameKey" | "s3:ObjectCreationOperation" => {
            iam_rs::ContextValue::Boolean(first == "true")
        }
        "s3:signatureAge" => iam_rs::ContextValue::Number(first.parse().expect(&first)),
        _ => iam_rs::ContextValue::String(first),
    }
}

/// A policy read in parts, one a service: most of a policy is not about an action, and need not be asked.
struct Parts<P> {
    by_service: BTreeMap<String, P>,
    /// Of services that it does not name, for what names them all.
    other: Option<P>,
    /// Whether it lets anybody in by name, without the policies of his own.
    names_somebody: bool,
}

impl<P> Parts<P> {
    fn read(document: &Value, read: impl Fn(&Value) -> P) -> Self {
        let statements = match &document["Statement"] {
            Value::Array(all) => all.clone(),
            one => vec![one.clone()],
        };
        let about = |statement: &Value, service: &str| {
            let mut actions = texts(&statement["Action"]).into_iter();
            actions.any(|action| action == "*" || action.split(':').next().is_some_and(|one| one == service))
        };
        let part = |service: &str| {
            let some: Vec<_> = statements.iter().filter(|statement| about(statement, service)).collect();
            (!some.is_empty()).then(|| read(&json!({"Version": document["Version"], "Statement": some})))
        };
        let actions = statements.iter().flat_map(|statement| texts(&statement["Action"]));
        let services: BTreeSet<String> =
            actions.filter_map(|action| Some(action.split_once(':')?.0.to_owned())).collect();
        assert!(services.iter().all(|service| !service.contains('*')), "{services:?}");
        let by_service = services.iter().filter_map(|service| Some((service.clone(), part(service)?))).collect();
        let names_somebody = statements.iter().any(|statement| {
            let named = texts(statement.pointer("/Principal/AWS").unwrap_or(&statement["Principal"]));
            statement["Effect"] == "Allow" && named.iter().any(|name| !name.ends_with(":root"))
        });
        Self { by_service, other: part(""), names_somebody }
    }

    fn about(&self, service: &str) -> Option<&P> {
        self.by_service.get(service).or(self.other.as_ref())
    }
}

/// All policies, read by one judge.
pub struct Court<J: Judge> {
    identity: BTreeMap<String, Vec<Parts<J::Policy>>>,
    trust: BTreeMap<String, J::Policy>,
    boundaries: BTreeMap<String, Parts<J::Policy>>,
    resources: BTreeMap<String, Parts<J::Policy>>,
    endpoints: BTreeMap<String, Parts<J::Policy>>,
    sessions: BTreeMap<String, J::Policy>,
    default_key: Parts<J::Policy>,
}

impl<J: Judge> Court<J> {
    pub fn new(policies: &Policies, sessions: &BTreeMap<String, Value>) -> Self {
        let all = |documents: &BTreeMap<String, Value>| {
            let read = |(name, document): (&String, &Value)| (name.clone(), Parts::read(document, J::resource));
            documents.iter().map(read).collect::<BTreeMap<_, _>>()
        };
        let mut court = Self {
            identity: BTreeMap::new(),
            trust: BTreeMap::new(),
            boundaries: BTreeMap::new(),
            resources: all(&policies.resources),
            endpoints: all(&policies.endpoints),
            sessions: sessions.iter().map(|(who, policy)| (who.clone(), J::identity(policy))).collect(),
            default_key: Parts::read(&default_key_policy(), J::resource),
        };
        for role in &policies.roles {
            court.swap(&role.name, &role.identity, &role.trust);
            if let Some(boundary) = &role.boundary {
                court.boundaries.insert(role.name.clone(), Parts::read(boundary, J::identity));
            }
        }
        court
    }

    /// Other policies for a role.
    pub fn swap(&mut self, role: &str, identity: &[Value], trust: &Value) {
        let read = |document| Parts::read(document, J::identity);
        self.identity.insert(role.to_owned(), identity.iter().map(read).collect());
        self.trust.insert(role.to_owned(), J::trust(trust));
    }

    /// What `judged` answers with one of a role's documents in place of its own.
    pub fn with<T>(&mut self, role: &str, place: Place, document: &Value, judged: impl FnOnce(&Self) -> T) -> T {
        match place {
            Place::Identity(index) => {
                let other = Parts::read(document, J::identity);
                let own = std::mem::replace(&mut self.identity.get_mut(role).unwrap()[index], other);
                let answer = judged(self);
                self.identity.get_mut(role).unwrap()[index] = own;
                answer
            }
            Place::Trust => {
                let own = self.trust.insert(role.to_owned(), J::trust(document)).unwrap();
                let answer = judged(self);
                self.trust.insert(role.to_owned(), own);
                answer
            }
        }
    }

    /// An explicit deny anywhere is a denial; otherwise the identity's policies and the session's must allow, unless the
    /// policy of a key or a bucket names somebody itself. A key's policy must allow in any case, and so must the trust policy
    /// of a role (AWS would let that one alone suffice inside an account: here both sides must say yes).
    pub fn allows(&self, matrix: &Matrix, cell: &Cell) -> bool {
        let resource = &matrix.resources[&*cell.resource];
        let caller = Caller::of(&cell.who);
        let (action, arn, context) = (&*cell.action, resource.arn.as_str(), &*cell.context);

        let mut identity = self.identity(&caller, cell, arn);
        if let Some(policy) = self.sessions.get(&*cell.who).filter(|_| identity == Says::Allow) {
            identity = both(identity, J::says(policy, action, arn, context));
        }
        let resources = match cell.service() {
            // What is elsewhere, or another deployment's, has its own policy, of which nothing is known here.
            "kms" if arn.starts_with(&format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/")) => {
                Some(self.resources.get(arn).unwrap_or(&self.default_key))
            }
            "s3" => self.resources.get(arn.split('/').next().unwrap_or_default()),
            _ => None,
        };
        let alone = resources.is_none_or(|policy| !policy.names_somebody) && cell.service() != "sts";
        if (alone && identity != Says::Allow) || !self.endpoint_lets(&caller, cell, arn) {
            return false;
        }
        let target = arn.rsplit("role/portcullis-local-").next().filter(|_| cell.service() == "sts");
        let trust = target.and_then(|role| self.trust.get(role));
        let Some(policy) = trust.or_else(|| resources.and_then(|policy| policy.about(cell.service()))) else {
            // A role that is not ours does not trust ours; elsewhere whoever is foreign has no say at all.
            return caller.own() && cell.service() != "sts" && identity == Says::Allow;
        };
        let by_name = J::says_of(policy, caller.name(), action, arn, context);
        let by_account = caller.account().map(|by| J::says_of(policy, by, action, arn, context));
        if [Some(identity), Some(by_name), by_account].contains(&Some(Says::Deny)) {
            return false;
        }
        let (named, as_account) = (by_name == Says::Allow, by_account == Some(Says::Allow));
        match cell.service() {
            "sts" if !caller.own() || caller.is_service() => named || as_account,
            "sts" => (named || as_account) && identity == Says::Allow,
            "kms" => named || (as_account && identity == Says::Allow),
            _ => named || (caller.own() && identity == Says::Allow),
        }
    }

    /// What the role's own policies say, were they all that stands between it and the resource.
    pub fn role_allows(&self, matrix: &Matrix, cell: &Cell) -> bool {
        let arn = &matrix.resources[&*cell.resource].arn;
        let Some(policies) = self.identity.get(&*cell.who) else { return false };
        let about = policies.iter().filter_map(|policy| policy.about(cell.service()));
        let said: Vec<Says> = about.map(|policy| J::says(policy, &cell.action, arn, &cell.context)).collect();
        said.contains(&Says::Allow) && !said.contains(&Says::Deny)
    }

    /// What the trust policy of the role says that is to be taken on, were it all.
    pub fn trust_allows(&self, matrix: &Matrix, cell: &Cell) -> bool {
        let arn = &matrix.resources[&*cell.resource].arn;
        let trust = arn.rsplit("role/portcullis-local-").next().and_then(|role| self.trust.get(role));
        let Some(policy) = trust.filter(|_| arn.contains(ACCOUNT)) else { return false };
        let caller = Caller::of(&cell.who);
        let by = [Some(caller.name()), caller.account()].into_iter().flatten();
        let said: Vec<Says> = by.map(|by| J::says_of(policy, by, &cell.action, arn, &cell.context)).collect();
        said.contains(&Says::Allow) && !said.contains(&Says::Deny)
    }

    /// Whether the endpoint that a call comes through, if it does, lets it pass.
    fn endpoint_lets(&self, caller: &Caller, cell: &Cell, arn: &str) -> bool {
        let through = cell.context.get("aws:SourceVpce").filter(|_| !caller.is_service());
        let endpoint = through.and_then(|ids| self.endpoints.get(ids.first()?));
        endpoint.is_none_or(|policy| {
            policy.about(cell.service()).is_some_and(|policy| {
                J::says_of(policy, caller.name(), &cell.action, arn, &cell.context) == Says::Allow
            })
        })
    }

    fn identity(&self, caller: &Caller, cell: &Cell, arn: &str) -> Says {
        match caller {
            Caller::Stranger(_) | Caller::Foreigner(_) => Says::Allow,
            Caller::Service(_) => Says::Nothing,
            Caller::Role(role, _) => {
                // A deployment without proxy has no role for one.
                let Some(policies) = self.identity.get(role) else { return Says::Nothing };
                let says = |parts: &Parts<J::Policy>| {
                    let policy = parts.about(cell.service());
                    policy.map_or(Says::Nothing, |policy| J::says(policy, &cell.action, arn, &cell.context))
                };
                let said = policies.iter().map(says).fold(Says::Nothing, |so_far, one| match (so_far, one) {
                    (Says::Deny, _) | (_, Says::Deny) => Says::Deny,
                    (Says::Allow, _) | (_, Says::Allow) => Says::Allow,
                    _ => Says::Nothing,
                });
                match self.boundaries.get(role).filter(|_| said == Says::Allow) {
                    Some(boundary) => both(said, says(boundary)),
                    None => said,
                }
            }
        }
    }
}

fn both(one: Says, two: Says) -> Says {
    match (one, two) {
        (Says::Deny, _) | (_, Says::Deny) => Says::Deny,
        (Says::Allow, Says::Allow) => Says::Allow,
        _ => Says::Nothing,
    }
}

/// Somebody of the matrix, with his ARN.
enum Caller {
    /// A role of ours, by name.
    Role(String, String),
    /// Another role of the account, which may do everything as far as its own policies go.
    Stranger(String),
    /// The same in another account.
    Foreigner(String),
    Service(String),
}

impl Caller {
    fn of(who: &str) -> Caller {
        match (who, principal(who)) {
            ("stranger", Some(arn)) => Caller::Stranger(arn),
            ("foreigner", Some(arn)) => Caller::Foreigner(arn),
            (_, Some(arn)) => Caller::Role(who.split(':').next().unwrap_or_default().to_owned(), arn),
            (service, None) => Caller::Service(service.to_owned()),
        }
    }

    fn name(&self) -> By<'_> {
        match self {
            Caller::Service(name) => By::Service(name),
            Caller::Role(_, arn) | Caller::Stranger(arn) | Caller::Foreigner(arn) => By::Name(arn),
        }
    }

    fn account(&self) -> Option<By<'_>> {
        match self {
            Caller::Service(_) => None,
            Caller::Role(_, arn) | Caller::Stranger(arn) | Caller::Foreigner(arn) => Some(By::Account(arn)),
        }
    }

    fn is_service(&self) -> bool {
        matches!(self, Caller::Service(_))
    }

    fn own(&self) -> bool {
        !matches!(self, Caller::Foreigner(_))
    }
}
