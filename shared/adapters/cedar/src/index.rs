//! Which policies can apply to a question: by action, by the resource and by the principal of the scope head or its type, by tenant, and
//! by what their conditions say at once of the question.
//!
//! The engine evaluates every policy that it is given, so it is given few. Nothing is decided here: a policy is left out only where its
//! head names something that the question is not about, or where its conditions cannot hold.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, Policy, PolicyId, PolicySet, PrincipalConstraint, ResourceConstraint,
};
use serde_json::Value;
use shared::jwt::Kind;
use shared::policy::Reads;

use crate::members::{Looks, Sight, looks};
use crate::names::{INVOKE, MINT, Names, Parties};
use crate::screen::Screen;

/// The policies of one bundle.
pub(crate) struct Index {
    invoking: HashSet<EntityUid>,
    common: Layer,
    tenants: HashMap<String, Layer>,
}

/// By the action, or the group of all routes' actions, that the heads name.
#[derive(Default)]
struct Layer(HashMap<String, Principals>);

/// By the principal that the heads name, and what the policies look at that may move, for machines and for people.
#[derive(Default)]
struct Principals {
    anybody: Resources,
    types: HashMap<EntityTypeName, Resources>,
    entities: HashMap<EntityUid, Resources>,
    reads: [Reads; 2],
}

/// By the resource that the heads name.
#[derive(Default)]
struct Resources {
    any: Bucket,
    named: HashMap<EntityUid, Bucket>,
}

/// Policies with the same head.
#[derive(Default)]
struct Bucket {
    /// Of these nothing can be told beforehand.
    open: Option<(Held, Looks)>,
    screened: Vec<(Arc<Screen>, Held, Looks)>,
}

/// Policies as the engine takes them. Most of a large bundle name a tenant, a principal or a resource that one environment never hears
/// of: these stay text until somebody asks about them.
enum Held {
    Parsed(Box<PolicySet>),
    Text(Vec<(String, Arc<str>)>, OnceLock<Option<Box<PolicySet>>>),
}

/// What is known of a policy's text, whoever has a policy that reads so.
pub(crate) struct Checked {
    text: Arc<str>,
    actions: BTreeSet<String>,
    principal: PrincipalConstraint,
    resource: ResourceConstraint,
    looks: Looks,
    screen: Option<Arc<Screen>>,
}

impl Checked {
    /// What the policy looks at that may move.
    pub(crate) fn reads(&self) -> Reads {
        self.looks.members.reads()
    }

    /// Whether its head names neither a principal nor a resource.
    fn is_for_all(&self) -> bool {
        matches!(self.principal, PrincipalConstraint::Any | PrincipalConstraint::Is(_))
            && matches!(self.resource, ResourceConstraint::Any | ResourceConstraint::Is(_))
    }
}

/// What a policy looks at. What cannot be looked into could look at everything.
fn looks_of(policy: &Policy, json: Option<&Value>) -> Looks {
    let mut looks = json.and_then(|json| json.get("conditions")).map_or(Looks::ALL, looks);
    looks.entities |= match policy.principal_constraint() {
        PrincipalConstraint::In(_) | PrincipalConstraint::IsIn(..) => true,
        PrincipalConstraint::Any | PrincipalConstraint::Eq(_) | PrincipalConstraint::Is(_) => false,
    };
    looks.entities |= match policy.resource_constraint() {
        ResourceConstraint::In(_) | ResourceConstraint::IsIn(..) => true,
        ResourceConstraint::Any | ResourceConstraint::Eq(_) | ResourceConstraint::Is(_) => false,
    };
    looks
}

/// A policy by its name in the engine; parsed where it was just now.
pub(crate) struct Filed<'a> {
    pub(crate) name: &'a str,
    pub(crate) checked: &'a Checked,
    pub(crate) parsed: Option<Policy>,
}

impl Filed<'_> {
    fn policy(&self) -> Option<Policy> {
        self.parsed.clone().or_else(|| parsed(self.name, &self.checked.text))
    }
}

/// A policy that was read before.
fn parsed(name: &str, text: &str) -> Option<Policy> {
    Policy::parse(Some(PolicyId::new(name)), text).ok()
}

impl Index {
    /// An empty index over the actions of routes.
    pub(crate) fn new(invoking: impl Iterator<Item = EntityUid>) -> Self {
        Self { invoking: invoking.collect(), common: Layer::default(), tenants: HashMap::new() }
    }

    /// What there is to know of a policy that was validated.
    pub(crate) fn check(&self, policy: &Policy, text: &str) -> Result<Checked, String> {
        let json = policy.to_json().ok();
        Ok(Checked {
            text: text.into(),
            actions: self.actions(policy)?,
            principal: policy.principal_constraint(),
            resource: policy.resource_constraint(),
            looks: looks_of(policy, json.as_ref()),
            screen: json.as_ref().and_then(Screen::of).map(Arc::new),
        })
    }

    /// Files a policy among the common ones or for one tenant alone.
    pub(crate) fn add(&mut self, tenant: Option<&str>, filed: &Filed<'_>, names: &Names) -> Result<(), String> {
        let layer = match tenant {
            None => &mut self.common,
            Some(tenant) => self.tenants.entry(tenant.to_owned()).or_default(),
        };
        let Checked { actions, principal, resource, .. } = filed.checked;
        let parse = tenant.is_none() && filed.checked.is_for_all();
        for action in actions {
            let principals = layer.0.entry(action.clone()).or_default();
            for (kind, looked_at) in KINDS.into_iter().zip(&mut principals.reads) {
                if concerns(principal, names.of_kind(kind)) {
                    *looked_at = looked_at.or(filed.checked.reads());
                }
            }
            principals.of(principal).of(resource).add(filed, parse)?;
        }
        Ok(())
    }

    /// What the policies look at that could apply to this action of somebody of this kind and tenant.
    pub(crate) fn reads(&self, action: &str, kind: Kind, tenant: &str) -> Reads {
        self.about(action, tenant).fold(Reads::default(), |sum, principals| {
            let [machines, people] = principals.reads;
            sum.or(match kind {
                Kind::Machine => machines,
                Kind::Human => people,
            })
        })
    }

    /// The sets that can apply: of the common ones, and of the tenants' only those of this tenant. `None` where one cannot be told.
    pub(crate) fn candidates<'a>(
        &'a self,
        parties: &Parties,
        tenant: &str,
        sight: &Sight<'_>,
    ) -> Option<Candidates<'a>> {
        let mut found = Candidates::default();
        for principals in self.about(parties.action.id().unescaped(), tenant) {
            let typed = principals.types.get(parties.principal.type_name());
            let entities = parties.groups.iter().chain([&parties.principal, &parties.tenant]);
            let entities = entities.filter_map(|entity| principals.entities.get(entity));
            for resources in std::iter::once(&principals.anybody).chain(typed).chain(entities) {
                for bucket in std::iter::once(&resources.any).chain(resources.named.get(&parties.resource)) {
                    bucket.candidates(sight, &mut found)?;
                }
            }
        }
        Some(found)
    }

    /// What was filed under an action and, where it is a route's, under the group of all of them.
    fn about<'a>(&'a self, action: &str, tenant: &str) -> impl Iterator<Item = &'a Principals> {
        let names = [action, INVOKE].into_iter().take(if action == MINT { 1 } else { 2 });
        let layers = std::iter::once(&self.common).chain(self.tenants.get(tenant));
        layers.flat_map(move |layer| names.clone().filter_map(|name| layer.0.get(name)))
    }

    /// The names under which a policy is filed.
    fn actions(&self, policy: &Policy) -> Result<BTreeSet<String>, String> {
        let group = |action: &EntityUid| action.id().unescaped() == INVOKE;
        let (named, groups) = match policy.action_constraint() {
            ActionConstraint::Any => {
                return Err("the policy names no action: what it is about would grow with the API".to_owned());
            }
            ActionConstraint::Eq(action) => (vec![action], false),
            ActionConstraint::In(actions) => (actions, true),
        };
        let all = groups && named.iter().any(group);
        let mut filed = BTreeSet::new();
        for action in named {
            let name = action.id().unescaped();
            match (name == MINT, self.invoking.contains(&action), groups && name == INVOKE) {
                (false, false, false) => return Err("the policy names an action of no route".to_owned()),
                // It is in the group already.
                (false, true, _) if all => {}
                _ => {
                    filed.insert(name.to_owned());
                }
            }
        }
        Ok(filed)
    }
}

/// What may apply.
#[derive(Default)]
pub(crate) struct Candidates<'a> {
    pub(crate) sets: Vec<&'a PolicySet>,
    /// What they look at, all together.
    pub(crate) looks: Looks,
}

impl Principals {
    fn of(&mut self, constraint: &PrincipalConstraint) -> &mut Resources {
        match constraint {
            PrincipalConstraint::Any => &mut self.anybody,
            PrincipalConstraint::Is(kind) => self.types.entry(kind.clone()).or_default(),
            PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => {
                self.entities.entry(uid.clone()).or_default()
            }
        }
    }
}

impl Resources {
    fn of(&mut self, constraint: &ResourceConstraint) -> &mut Bucket {
        match constraint {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => &mut self.any,
            ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
                self.named.entry(uid.clone()).or_default()
            }
        }
    }
}

impl Bucket {
    fn add(&mut self, filed: &Filed<'_>, parse: bool) -> Result<(), String> {
        let looks = filed.checked.looks;
        if let Some(screen) = &filed.checked.screen {
            let mut alone = Held::new(parse);
            alone.add(filed)?;
            self.screened.push((Arc::clone(screen), alone, looks));
            return Ok(());
        }
        let (open, all) = self.open.get_or_insert_with(|| (Held::new(parse), Looks::default()));
        *all = all.or(looks);
        open.add(filed)
    }

    /// `None` where a policy cannot be read that could be before.
    fn candidates<'a>(&'a self, sight: &Sight<'_>, found: &mut Candidates<'a>) -> Option<()> {
        let screened = self.screened.iter().filter(|(screen, ..)| !screen.rules_out(sight));
        let screened = screened.map(|(_, alone, looks)| (alone, looks));
        for (held, looks) in self.open.iter().map(|(held, looks)| (held, looks)).chain(screened) {
            found.sets.push(held.set()?);
            found.looks = found.looks.or(*looks);
        }
        Some(())
    }
}

impl Held {
    fn new(parse: bool) -> Self {
        if parse { Self::Parsed(Box::default()) } else { Self::Text(Vec::new(), OnceLock::new()) }
    }

    fn add(&mut self, filed: &Filed<'_>) -> Result<(), String> {
        match self {
            Self::Parsed(set) => {
                let policy = filed.policy().ok_or_else(|| "the policy reads otherwise than before".to_owned())?;
                set.add(policy).map_err(|error| error.to_string())
            }
            Self::Text(texts, _) => {
                texts.push((filed.name.to_owned(), Arc::clone(&filed.checked.text)));
                Ok(())
            }
        }
    }

    fn set(&self) -> Option<&PolicySet> {
        match self {
            Self::Parsed(set) => Some(set),
            Self::Text(texts, set) => set.get_or_init(|| together(texts)).as_deref(),
        }
    }
}

/// One set of all of them, or none at all.
fn together(texts: &[(String, Arc<str>)]) -> Option<Box<PolicySet>> {
    let policies = texts.iter().map(|(name, text)| parsed(name, text)).collect::<Option<Vec<_>>>()?;
    PolicySet::from_policies(policies).ok().map(Box::new)
}

const KINDS: [Kind; 2] = [Kind::Machine, Kind::Human];

/// Whether the head leaves principals of this type in.
fn concerns(constraint: &PrincipalConstraint, of: &EntityTypeName) -> bool {
    match constraint {
        PrincipalConstraint::Is(kind) | PrincipalConstraint::IsIn(kind, _) => kind == of,
        PrincipalConstraint::Any | PrincipalConstraint::Eq(_) | PrincipalConstraint::In(_) => true,
    }
}
