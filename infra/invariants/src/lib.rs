#![doc = include_str!("../README.md")]

mod coherence;
mod data;
mod edge;
mod exposure;
mod house;
mod identity;
mod network;
mod policy;
mod repository;

use std::fmt;

use template::{Graph, Resource};

pub use self::repository::{Repository, Terraform};

/// The list of all roles' grants over several graphs, as `grants.txt` holds it.
#[must_use]
pub fn list_of_grants(graphs: &[Graph]) -> String {
    coherence::list(graphs)
}

/// One promise and how it is checked.
#[derive(Clone, Copy, Debug)]
pub struct Invariant {
    /// Its number, 1 to 27.
    pub number: u8,
    /// Its name, e.g. `private-api`.
    pub name: &'static str,
    /// What it promises, in one line.
    pub promise: &'static str,
    check: Check,
}

#[derive(Clone, Copy, Debug)]
enum Check {
    /// Judges a graph, from templates or from a live account.
    Graph(fn(&Graph, &mut Findings)),
    /// Judges a graph together with files of the repository.
    Repository(fn(&Graph, &Repository, &mut Findings)),
}

/// Where an invariant does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The resource as `stack/LogicalId`, or the file.
    pub subject: String,
    /// The property or place in it.
    pub property: String,
    /// What is wrong, in words.
    pub fault: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.subject, self.property, self.fault)
    }
}

/// The violations found so far.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Violation>);

impl Findings {
    /// Notes what is wrong with a property of a resource.
    pub(crate) fn at(&mut self, resource: &Resource, property: &str, fault: impl Into<String>) {
        self.on(&resource.path(), property, fault);
    }

    /// Notes what is wrong with something that is no resource.
    pub(crate) fn on(&mut self, subject: &str, property: &str, fault: impl Into<String>) {
        self.0.push(Violation { subject: subject.to_owned(), property: property.to_owned(), fault: fault.into() });
    }

    /// Notes that a property has not the one text it must have.
    pub(crate) fn must_be(&mut self, resource: &Resource, pointer: &str, expected: &str) {
        let found = resource.text(pointer);
        if found.as_deref() != Some(expected) {
            let found = found.or_else(|| resource.get(pointer).map(ToString::to_string));
            let found = found.map_or_else(|| "missing".to_owned(), |found| format!("`{found}`"));
            self.at(resource, pointer, format!("{found}, must be `{expected}`"));
        }
    }
}

impl Invariant {
    /// Whether it can be judged by a graph alone, as of a live account.
    #[must_use]
    pub fn needs_only_the_graph(&self) -> bool {
        matches!(self.check, Check::Graph(_))
    }

    /// The violations in a graph; none for an invariant that needs the repository too.
    #[must_use]
    pub fn check_graph(&self, graph: &Graph) -> Vec<Violation> {
        match self.check {
            Check::Graph(check) => collect(|findings| check(graph, findings)),
            Check::Repository(_) => Vec::new(),
        }
    }

    /// The violations in a graph and the repository it was made from.
    #[must_use]
    pub fn check(&self, graph: &Graph, repository: &Repository) -> Vec<Violation> {
        match self.check {
            Check::Graph(check) => collect(|findings| check(graph, findings)),
            Check::Repository(check) => collect(|findings| check(graph, repository, findings)),
        }
    }
}

fn collect(run: impl FnOnce(&mut Findings)) -> Vec<Violation> {
    let mut findings = Findings::default();
    run(&mut findings);
    let mut violations = findings.0;
    violations.sort();
    violations.dedup();
    violations
}

/// All invariants, by number.
pub const INVARIANTS: &[Invariant] = &[
    graph(
        1,
        "known-types",
        "Every resource type is one its stack may hold; nothing that opens a door is on any list",
        exposure::known_types,
    ),
    graph(
        2,
        "one-way-out",
        "The only default routes are IPv6 ones to the egress-only gateway, in the tables of edge and fetch",
        exposure::one_way_out,
    ),
    graph(3, "no-public-address", "No subnet, task or database gets a public address", exposure::no_public_address),
    graph(
        4,
        "private-api",
        "The API is PRIVATE, bound to our endpoint, and denies whatever comes by another",
        exposure::private_api,
    ),
    graph(
        5,
        "guarded-routes",
        "Every operation is guarded by the authorizer, except the listed open ones",
        exposure::guarded_routes,
    ),
    graph(
        6,
        "fresh-decisions",
        "The authorizer sees every request itself: REQUEST type, TTL 0, nothing cached",
        exposure::fresh_decisions,
    ),
    graph(
        7,
        "exact-permissions",
        "Each Lambda permission names one caller, one source and our account, in the form that is called",
        exposure::exact_permissions,
    ),
    graph(
        8,
        "quiet-stage",
        "The stage traces, throttles and logs named fields; no answer tells what happened inside",
        exposure::quiet_stage,
    ),
    graph(
        9,
        "exact-edges",
        "The security groups' rules are exactly the listed edges, and every group declares its egress",
        network::exact_edges,
    ),
    graph(
        10,
        "narrow-endpoints",
        "Every endpoint has a policy of named actions on our resources, and interface endpoints sit in work",
        network::narrow_endpoints,
    ),
    graph(
        11,
        "functions-in-their-tier",
        "Every function is in its tier's subnets with a security group of its own",
        network::functions_in_their_tier,
    ),
    graph(
        12,
        "one-role-each",
        "One role per function, trusted by Lambda alone, without managed policies, logging to its own group",
        identity::one_role_each,
    ),
    graph(
        13,
        "no-wildcards",
        "No NotAction, NotResource or NotPrincipal, no action wildcard, `*` only where AWS knows no resource",
        identity::no_wildcards,
    ),
    graph(
        14,
        "bound-grants",
        "Grants on keys, parameters, roles, logins and objects are bound to one of them",
        identity::bound_grants,
    ),
    graph(
        15,
        "key-policies",
        "Keys name the roles that use them, split use from administration, rotate, and outlive their stack",
        data::key_policies,
    ),
    graph(
        16,
        "no-secrets",
        "No environment value is a credential, and nobody may read a stored secret",
        identity::no_secrets,
    ),
    graph(
        17,
        "function-settings",
        "Functions run on arm64 with time limits, traces, JSON logs that expire, and lose no event",
        identity::function_settings,
    ),
    graph(
        18,
        "closed-buckets",
        "Buckets refuse the public, plain text, old TLS and other networks; intake and leftovers expire",
        data::closed_buckets,
    ),
    graph(
        19,
        "one-writer",
        "Each trust object has exactly one writer role, and the authorizer can only read",
        data::one_writer,
    ),
    graph(
        20,
        "database",
        "The database is encrypted, private, backed up, TLS only, and knows no password",
        data::database,
    ),
    graph(
        21,
        "database-proxy",
        "The proxy speaks IAM on both sides over TLS and may connect as the listed logins only",
        data::database_proxy,
    ),
    repository(
        22,
        "tunnel-rules",
        "Every tunnel rule but the machine host's demands Access, and all lead to our API only",
        edge::tunnel_rules,
    ),
    graph(
        23,
        "tunnel-task",
        "The tunnel's tasks are pinned, unprivileged and read-only, and nobody can step into them",
        edge::tunnel_task,
    ),
    repository(
        24,
        "access-applications",
        "Every people host has an Access application with the same audience; the machine host has limits",
        edge::access_applications,
    ),
    repository(
        25,
        "coherence",
        "Packages, functions, roles, groups, logs, alarms and routes are one to one",
        coherence::one_to_one,
    ),
    repository(
        26,
        "listed-grants",
        "Every role holds exactly the grants of the checked-in list, and the adapters send nothing else",
        coherence::listed_grants,
    ),
    repository(
        27,
        "deploy-settings",
        "No crate carries deploy settings of cargo-lambda, and the release profile is written out",
        coherence::deploy_settings,
    ),
];

const fn graph(number: u8, name: &'static str, promise: &'static str, check: fn(&Graph, &mut Findings)) -> Invariant {
    Invariant { number, name, promise, check: Check::Graph(check) }
}

const fn repository(
    number: u8,
    name: &'static str,
    promise: &'static str,
    check: fn(&Graph, &Repository, &mut Findings),
) -> Invariant {
    Invariant { number, name, promise, check: Check::Repository(check) }
}
