//! The names of the schema as the engine's values, made once.

use std::collections::HashMap;
use std::str::FromStr as _;

use cedar_policy::{Entities, EntityId, EntityTypeName, EntityUid, RestrictedExpression, Schema};
use shared::jwt::Kind;
use shared::policy::{Ask, What};

/// Types and actions.
pub(crate) struct Names {
    user: EntityTypeName,
    workload: EntityTypeName,
    tenant: EntityTypeName,
    group: EntityTypeName,
    audience: EntityTypeName,
    route: EntityTypeName,
    actions: HashMap<String, Action>,
}

/// An action of the schema.
struct Action {
    uid: EntityUid,
    /// Itself and its groups, as policies look them up.
    entities: Entities,
    /// The types that it applies to.
    principals: Vec<EntityTypeName>,
    resources: Vec<EntityTypeName>,
}

/// Who and what a question is about.
pub(crate) struct Parties {
    pub(crate) principal: EntityUid,
    pub(crate) tenant: EntityUid,
    pub(crate) groups: Vec<EntityUid>,
    pub(crate) action: EntityUid,
    pub(crate) resource: EntityUid,
}

/// The action of issuing a token.
pub(crate) const MINT: &str = "mint";
/// The group of the actions of all routes.
pub(crate) const INVOKE: &str = "invoke";

impl Names {
    pub(crate) fn of(schema: &Schema) -> Option<Self> {
        let named = |name: &str| EntityTypeName::from_str(&format!("Portcullis::{name}")).ok();
        let all = schema.action_entities().ok()?;
        let mut actions = HashMap::new();
        for action in schema.actions() {
            let ancestors = all.ancestors(action).into_iter().flatten().filter_map(|ancestor| all.get(ancestor));
            let own = all.get(action).into_iter().chain(ancestors).cloned();
            let entities = Entities::from_entities(own, None).ok()?;
            let principals = schema.principals_for_action(action)?.cloned().collect();
            let resources = schema.resources_for_action(action)?.cloned().collect();
            let known = Action { uid: action.clone(), entities, principals, resources };
            actions.insert(action.id().unescaped().to_owned(), known);
        }
        if !actions.contains_key(MINT) || !actions.contains_key(INVOKE) {
            return None;
        }
        Some(Self {
            user: named("User")?,
            workload: named("Workload")?,
            tenant: named("Tenant")?,
            group: named("Group")?,
            audience: named("Audience")?,
            route: named("Route")?,
            actions,
        })
    }

    /// The actions of routes.
    pub(crate) fn invoking(&self) -> impl Iterator<Item = &EntityUid> {
        self.actions.iter().filter(|(name, _)| !matches!(name.as_str(), MINT | INVOKE)).map(|(_, action)| &action.uid)
    }

    /// The type of principals of this kind.
    pub(crate) fn of_kind(&self, kind: Kind) -> &EntityTypeName {
        match kind {
            Kind::Human => &self.user,
            Kind::Machine => &self.workload,
        }
    }

    /// `None` where the schema knows no such action, or not for such a principal and resource.
    pub(crate) fn parties(&self, ask: &Ask) -> Option<Parties> {
        let of = |kind: &EntityTypeName, id: &str| EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id));
        let principal = &ask.principal;
        let kind = self.of_kind(principal.kind);
        let (name, of_resource, resource) = match &ask.what {
            What::Mint(mint) => (MINT, &self.audience, of(&self.audience, &mint.audience)),
            What::Invoke(invoke) if !matches!(invoke.action.as_str(), MINT | INVOKE) => {
                let name = [&invoke.method, " ", &invoke.path].concat();
                (invoke.action.as_str(), &self.route, of(&self.route, &name))
            }
            What::Invoke(_) => return None,
        };
        let action = self.actions.get(name)?;
        if !action.principals.contains(kind) || !action.resources.contains(of_resource) {
            return None;
        }
        // A group of one tenant is none of another's by the same name; names of tenants hold no slash.
        let group = |name: &String| of(&self.group, &[&principal.tenant, "/", name].concat());
        Some(Parties {
            principal: of(kind, &principal.id),
            tenant: of(&self.tenant, &principal.tenant),
            groups: principal.groups.iter().map(group).collect(),
            action: action.uid.clone(),
            resource,
        })
    }

    /// The action and its groups.
    pub(crate) fn entities(&self, action: &EntityUid) -> Option<&Entities> {
        self.actions.get(action.id().unescaped()).map(|action| &action.entities)
    }
}

/// The attributes of the resource.
pub(crate) fn route(ask: &Ask) -> HashMap<String, RestrictedExpression> {
    let What::Invoke(invoke) = &ask.what else { return HashMap::new() };
    [("method", &invoke.method), ("path", &invoke.path)]
        .map(|(name, value)| (name.to_owned(), RestrictedExpression::new_string(value.clone())))
        .into_iter()
        .collect()
}
