//! Which policies can apply to a question: by action, by the resource and by the principal of the scope head or its type, by tenant.
//!
//! The engine evaluates every policy of a set, so the sets are made small when the bundle is compiled. Nothing is decided here: a
//! policy is left out only where its head names something that the question is not about.

use std::collections::{HashMap, HashSet};

use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint,
};
use shared::jwt::Kind;
use shared::policy::Reads;

use crate::names::{Names, Parties};

/// The sets of one bundle.
pub(crate) struct Index {
    invoking: HashSet<EntityUid>,
    common: Layer,
    tenants: HashMap<String, Layer>,
}

/// By action, then by what the heads name.
#[derive(Default)]
struct Layer {
    heads: HashMap<EntityUid, HashMap<Head, PolicySet>>,
    /// What the policies about an action look at, for machines and for people.
    reads: HashMap<String, [Reads; 2]>,
}

/// What a head names besides the action; of the resource `None` stands for anything.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Head {
    principal: Who,
    resource: Option<EntityUid>,
}

/// What a head says of the principal.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Who {
    Anybody,
    Type(EntityTypeName),
    Entity(EntityUid),
}

impl Index {
    /// An empty index over the actions of routes.
    pub(crate) fn new(invoking: impl Iterator<Item = EntityUid>) -> Self {
        Self { invoking: invoking.collect(), common: Layer::default(), tenants: HashMap::new() }
    }

    /// Files a policy that looks at `reads`, among the common ones or for one tenant alone.
    pub(crate) fn add(
        &mut self,
        tenant: Option<&str>,
        policy: &Policy,
        reads: Reads,
        names: &Names,
    ) -> Result<(), String> {
        let mint = |action: &EntityUid| action.id().unescaped() == "mint";
        let actions: Vec<EntityUid> = match policy.action_constraint() {
            ActionConstraint::Any => {
                return Err("the policy names no action: what it is about would grow with the API".to_owned());
            }
            ActionConstraint::Eq(action) => vec![action],
            ActionConstraint::In(actions) => actions.iter().flat_map(|action| self.members(action)).collect(),
        };
        if actions.iter().any(|action| !mint(action) && !self.invoking.contains(action)) {
            return Err("the policy names an action of no route".to_owned());
        }
        let head = Head { principal: principal(policy), resource: resource(policy) };
        let layer = match tenant {
            None => &mut self.common,
            Some(tenant) => self.tenants.entry(tenant.to_owned()).or_default(),
        };
        let actions: HashSet<EntityUid> = actions.into_iter().collect();
        for action in actions {
            let looked_at = layer.reads.entry(action.id().unescaped().to_owned()).or_default();
            for (kind, looked_at) in KINDS.into_iter().zip(looked_at) {
                if concerns(policy, names.of_kind(kind)) {
                    *looked_at = looked_at.or(reads);
                }
            }
            let set = layer.heads.entry(action).or_default().entry(head.clone()).or_default();
            set.add(policy.clone()).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// What the policies look at that could apply to this action of somebody of this kind and tenant.
    pub(crate) fn reads(&self, action: &str, kind: Kind, tenant: &str) -> Reads {
        let layers = std::iter::once(&self.common).chain(self.tenants.get(tenant));
        let [machines, people] = layers
            .filter_map(|layer| layer.reads.get(action))
            .fold([Reads::default(); 2], |[machines, people], [more, other]| [machines.or(*more), people.or(*other)]);
        match kind {
            Kind::Machine => machines,
            Kind::Human => people,
        }
    }

    /// The sets that can apply: the common ones, and of the tenants' only those of this tenant.
    pub(crate) fn candidates<'a>(&'a self, parties: &'a Parties, tenant: &str) -> impl Iterator<Item = &'a PolicySet> {
        let own = self.tenants.get(tenant);
        let heads = std::iter::once(&self.common).chain(own).filter_map(|layer| layer.heads.get(&parties.action));
        heads.flat_map(|heads| {
            let named = parties.groups.iter().chain([&parties.principal, &parties.tenant]);
            let named = named.map(|entity| Who::Entity(entity.clone()));
            let principals = [Who::Anybody, Who::Type(parties.principal.type_name().clone())].into_iter().chain(named);
            principals
                .flat_map(|principal| [None, Some(&parties.resource)].map(|resource| (principal.clone(), resource)))
                .filter_map(|(principal, resource)| heads.get(&Head { principal, resource: resource.cloned() }))
        })
    }

    /// The action, or the members of the group of all routes' actions.
    fn members(&self, action: &EntityUid) -> Vec<EntityUid> {
        match action.id().unescaped() {
            "invoke" => self.invoking.iter().cloned().collect(),
            _ => vec![action.clone()],
        }
    }
}

const KINDS: [Kind; 2] = [Kind::Machine, Kind::Human];

fn principal(policy: &Policy) -> Who {
    match policy.principal_constraint() {
        PrincipalConstraint::Any => Who::Anybody,
        PrincipalConstraint::Is(kind) => Who::Type(kind),
        PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => {
            Who::Entity(uid)
        }
    }
}

/// Whether the head leaves principals of this type in.
fn concerns(policy: &Policy, of: &EntityTypeName) -> bool {
    match policy.principal_constraint() {
        PrincipalConstraint::Is(kind) | PrincipalConstraint::IsIn(kind, _) => kind == *of,
        PrincipalConstraint::Any | PrincipalConstraint::Eq(_) | PrincipalConstraint::In(_) => true,
    }
}

fn resource(policy: &Policy) -> Option<EntityUid> {
    match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => Some(uid),
    }
}
