//! Which policies can apply to a question: by action, by the resource and by the principal of the scope head, by tenant.
//!
//! The engine evaluates every policy of a set, so the sets are made small when the bundle is compiled. Nothing is decided here: a
//! policy is left out only where its head names something that the question is not about.

use std::collections::{HashMap, HashSet};

use cedar_policy::{ActionConstraint, EntityUid, Policy, PolicySet, PrincipalConstraint, ResourceConstraint};

use crate::names::Parties;

/// The sets of one bundle.
pub(crate) struct Index {
    invoking: HashSet<EntityUid>,
    common: Layer,
    tenants: HashMap<String, Layer>,
}

/// By action, then by what the heads name.
#[derive(Default)]
struct Layer(HashMap<EntityUid, HashMap<Head, PolicySet>>);

/// What a head names besides the action; `None` stands for anything.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Head {
    principal: Option<EntityUid>,
    resource: Option<EntityUid>,
}

impl Index {
    /// An empty index over the actions of routes.
    pub(crate) fn new(invoking: impl Iterator<Item = EntityUid>) -> Self {
        Self { invoking: invoking.collect(), common: Layer::default(), tenants: HashMap::new() }
    }

    /// Files a policy, among the common ones or for one tenant alone.
    pub(crate) fn add(&mut self, tenant: Option<&str>, policy: Policy) -> Result<(), String> {
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
        let head = Head { principal: principal(&policy), resource: resource(&policy) };
        let layer = match tenant {
            None => &mut self.common,
            Some(tenant) => self.tenants.entry(tenant.to_owned()).or_default(),
        };
        let actions: HashSet<EntityUid> = actions.into_iter().collect();
        for action in actions {
            let set = layer.0.entry(action).or_default().entry(head.clone()).or_default();
            set.add(policy.clone()).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The sets that can apply: the common ones, and of the tenants' only those of this tenant.
    pub(crate) fn candidates<'a>(&'a self, parties: &'a Parties, tenant: &str) -> impl Iterator<Item = &'a PolicySet> {
        let own = self.tenants.get(tenant);
        std::iter::once(&self.common).chain(own).filter_map(|layer| layer.0.get(&parties.action)).flat_map(|heads| {
            let named = parties.groups.iter().chain([&parties.principal, &parties.tenant]);
            let principals = std::iter::once(None).chain(named.map(Some));
            principals
                .flat_map(|principal| [None, Some(&parties.resource)].map(|resource| (principal, resource)))
                .filter_map(|(principal, resource)| {
                    heads.get(&Head { principal: principal.cloned(), resource: resource.cloned() })
                })
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

fn principal(policy: &Policy) -> Option<EntityUid> {
    match policy.principal_constraint() {
        PrincipalConstraint::Any | PrincipalConstraint::Is(_) => None,
        PrincipalConstraint::Eq(uid) | PrincipalConstraint::In(uid) | PrincipalConstraint::IsIn(_, uid) => Some(uid),
    }
}

fn resource(policy: &Policy) -> Option<EntityUid> {
    match policy.resource_constraint() {
        ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
        ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => Some(uid),
    }
}
