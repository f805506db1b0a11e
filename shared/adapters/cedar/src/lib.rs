#![doc = include_str!("../README.md")]

mod index;
mod known;
mod members;
mod names;
mod screen;

use std::borrow::Cow;
use std::collections::HashMap;

use cedar_policy::{
    AuthorizationError, Authorizer, Decision as Effect, Entities, Entity, PolicyId, PolicySet, Request,
    RestrictedExpression, Schema, ValidationMode, Validator,
};
use shared::policy::{Ask, Bundle, Decision, Policies, Policy, Reads, Reason, SCHEMA, Unfit, What, Why};

use index::{Candidates, Filed, Index};
use known::Known;
use members::Sight;
use names::{Names, Parties};

/// One bundle: parsed, validated and indexed. The schema is gone by then: questions are made to it, not held against it.
pub struct Cedar {
    names: Names,
    authorizer: Authorizer,
    index: Index,
    reads: Reads,
    known: Known,
}

impl Policies for Cedar {
    fn compile(bundle: &Bundle) -> Result<Self, Unfit> {
        // What a question looks like is built into this crate.
        if bundle.schema != SCHEMA {
            return Err(Unfit::new(Why::Schema, "the schema is another build's"));
        }
        let (schema, _) =
            Schema::from_cedarschema_str(&bundle.schema).map_err(|error| Unfit::new(Why::Schema, told(&error)))?;
        let names = Names::of(&schema).ok_or_else(|| Unfit::new(Why::Schema, "a name is missing in the schema"))?;
        let mut index = Index::new(names.invoking().cloned());
        let (validator, mut read, mut checked) = (Validator::new(schema), Reads::default(), HashMap::new());
        let common = bundle.policies.iter().map(|policy| (None, policy));
        let own = bundle.tenants.iter().flat_map(|(tenant, policies)| policies.iter().map(move |p| (Some(tenant), p)));
        for (tenant, policy) in common.chain(own) {
            let name = match tenant {
                None => policy.id.clone(),
                Some(tenant) => format!("{tenant}:{}", policy.id),
            };
            let invalid = |detail| Unfit::new(Why::Invalid, detail).at(&name);
            // Tenants often have the same policy, each its own.
            let (known, parsed) = match checked.get(policy.text.as_str()) {
                Some(known) => (known, None),
                None => {
                    let parsed = parse(&name, policy, &validator)?;
                    let known = index.check(&parsed, &policy.text).map_err(invalid)?;
                    (&*checked.entry(policy.text.as_str()).or_insert(known), Some(parsed))
                }
            };
            read = read.or(known.reads());
            let filed = Filed { name: &name, checked: known, parsed };
            index.add(tenant.map(String::as_str), &filed, &names).map_err(invalid)?;
        }
        Ok(Self { names, authorizer: Authorizer::new(), index, reads: read, known: Known::new() })
    }

    fn decide(&self, ask: &Ask) -> Decision {
        if ask.net.is_none() && self.reads.net {
            return Decision { reason: Reason::NetUnknown, policies: Vec::new() };
        }
        let key = self.key(ask);
        if let Some(decision) = self.known.find(&key) {
            return decision;
        }
        let decision = self.judge(ask).unwrap_or_else(Decision::error);
        self.known.keep(key, &decision);
        decision
    }

    fn reads(&self) -> Reads {
        self.reads
    }
}

impl Cedar {
    /// By what the answer to a question can be found again.
    fn key(&self, ask: &Ask) -> Vec<u8> {
        let action = match &ask.what {
            What::Mint(_) => names::MINT,
            What::Invoke(invoke) => invoke.action.as_str(),
        };
        known::key(ask, self.index.reads(action, ask.principal.kind, &ask.principal.tenant))
    }

    /// `None` where the question cannot be put: an action, name or value that the schema does not know.
    fn judge(&self, ask: &Ask) -> Option<Decision> {
        let (parties, sight) = (self.names.parties(ask)?, Sight::of(ask));
        let candidates = self.index.candidates(&parties, &ask.principal.tenant, &sight)?;
        let (mut permits, mut forbids, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        if !candidates.sets.is_empty() {
            let (request, entities) = self.put(ask, parties, &sight, &candidates)?;
            for set in candidates.sets {
                let response = self.authorizer.is_authorized(&request, set, &entities);
                // A policy that fails is skipped by the engine; here it denies.
                errors.extend(response.diagnostics().errors().map(failed));
                let reasons = response.diagnostics().reason().map(PolicyId::to_string);
                match response.decision() {
                    Effect::Allow => permits.extend(reasons),
                    Effect::Deny => forbids.extend(reasons),
                }
            }
        }
        let (reason, mut policies) = if !errors.is_empty() {
            (Reason::PolicyError, errors)
        } else if !forbids.is_empty() {
            (Reason::Forbidden, forbids)
        } else if !permits.is_empty() {
            (Reason::Permitted, permits)
        } else {
            (Reason::NotPermitted, Vec::new())
        };
        policies.sort_unstable();
        policies.dedup();
        Some(Decision { reason, policies })
    }

    /// The question as the engine takes it, with what these policies look at and nothing else.
    fn put(
        &self,
        ask: &Ask,
        parties: Parties,
        sight: &Sight<'_>,
        candidates: &Candidates<'_>,
    ) -> Option<(Request, Cow<'_, Entities>)> {
        let action = self.names.entities(&parties.action)?;
        let entities = if candidates.looks.entities {
            Cow::Owned(action.clone().add_entities(own(&parties, ask)?, None).ok()?)
        } else {
            Cow::Borrowed(action)
        };
        let context = sight.context(candidates.looks.members)?;
        let request = Request::new(parties.principal, parties.action, parties.resource, context, None).ok()?;
        Some((request, entities))
    }
}

/// The principal and the resource.
fn own(parties: &Parties, ask: &Ask) -> Option<[Entity; 2]> {
    let tenant = RestrictedExpression::new_entity_uid(parties.tenant.clone());
    let groups = parties.groups.iter().chain([&parties.tenant]).cloned().collect();
    let attributes = [("tenant".to_owned(), tenant)].into_iter().collect();
    let principal = Entity::new(parties.principal.clone(), attributes, groups).ok()?;
    let resource = Entity::new(parties.resource.clone(), names::route(ask), Default::default()).ok()?;
    Some([principal, resource])
}

fn failed(error: &AuthorizationError) -> String {
    let AuthorizationError::PolicyEvaluationError(error) = error;
    error.policy_id().to_string()
}

fn parse(name: &str, policy: &Policy, validator: &Validator) -> Result<cedar_policy::Policy, Unfit> {
    let parsed = cedar_policy::Policy::parse(Some(PolicyId::new(name)), &policy.text)
        .map_err(|error| Unfit::new(Why::Syntax, told(&error)).at(name))?;
    let set =
        PolicySet::from_policies([parsed.clone()]).map_err(|error| Unfit::new(Why::Syntax, told(&error)).at(name))?;
    let result = validator.validate(&set, ValidationMode::Strict);
    // A warning is a policy that cannot apply, or a name that looks like another: neither is what its author means.
    let fault = result.validation_errors().map(told);
    let warning = result.validation_warnings().map(told);
    match fault.chain(warning).next() {
        None => Ok(parsed),
        Some(detail) => Err(Unfit::new(Why::Invalid, detail).at(name)),
    }
}

/// An engine's message, made of the bundle alone and bounded.
fn told(error: &impl std::fmt::Display) -> String {
    error.to_string().chars().take(500).collect()
}
