//! What the two sides say of the hosts, and whether they say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;

use crate::grammar::{is_api_host, is_audience, is_hostname, is_label, is_stage, is_uuid};

/// `infra/cloudflare/hosts.json`, which Terraform reads as its variables.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// The Zero Trust team: the part before `.cloudflareaccess.com`.
    pub team: String,
    /// The zone all hosts lie in.
    pub zone: String,
    /// The tunnel's id, a UUID.
    pub tunnel_id: String,
    /// The API's stage, put before every path at the edge.
    pub stage: String,
    /// Hosts behind Access.
    pub people: BTreeMap<String, People>,
    /// The one host without Access.
    pub machines: String,
}

/// What a host for people demands of a device.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct People {
    /// Which Access policy stands before the host.
    pub tier: Tier,
}

/// Devices that may come in; which of the two it was stands in the assertion's audience.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Those that pass every posture check.
    Managed,
    /// All of them.
    Any,
}

/// The output `access` of `infra/cloudflare/terraform`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// As in [`Hosts`].
    pub team: String,
    /// As in [`Hosts`].
    pub tunnel_id: String,
    /// The stage that the edge really puts before paths.
    pub stage: String,
    /// The host that has no application.
    pub machines: String,
    /// The applications that exist, by their host.
    pub people: BTreeMap<String, Application>,
}

/// An Access application as it was made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Its audience: 64 hexadecimal digits.
    pub aud: String,
    /// The policy it was given.
    pub tier: Tier,
}

/// A file that is not what its name says. Says where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

impl Unreadable {
    pub(crate) fn of(what: &str, error: &serde_json::Error) -> Self {
        Self(format!("{what}: {error}"))
    }
}

impl Hosts {
    /// Reads `hosts.json`; unknown and missing members are refused.
    ///
    /// # Errors
    /// [`Unreadable`] with line and column.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        serde_json::from_str(text).map_err(|error| Unreadable::of("hosts", &error))
    }
}

impl Access {
    /// Reads what `terraform output -json` prints and takes the value of its output `access`.
    ///
    /// # Errors
    /// [`Unreadable`], also where there is no such output.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        #[derive(Deserialize)]
        struct Outputs {
            access: Output,
        }
        #[derive(Deserialize)]
        struct Output {
            value: Access,
        }
        let outputs: Outputs = serde_json::from_str(text).map_err(|error| Unreadable::of("access", &error))?;
        Ok(outputs.access.value)
    }
}

/// What the tunnel must do, agreed by both sides and the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    pub(crate) team: String,
    pub(crate) tunnel_id: String,
    pub(crate) people: BTreeMap<String, String>,
    pub(crate) machines: String,
    pub(crate) api_host: String,
}

/// Where the sides differ, or one of them says something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// A name is not of its form.
    Form(&'static str),
    /// No host for people at all.
    Nobody,
    /// A host lies outside the zone.
    Zone(String),
    /// The machines' host is also one for people.
    MachinesArePeople,
    /// The edge and the hosts name another team.
    Team,
    /// DNS points at another tunnel than the configuration names.
    Tunnel,
    /// The edge puts another stage before paths than the API has.
    Stage,
    /// Access was made for another machines' host.
    Machines,
    /// A host for people without an Access application.
    NoApplication(String),
    /// An Access application for a host that the tunnel does not know.
    NoHost(String),
    /// An application with another policy than the host should have.
    Tier(String),
    /// Two hosts with one audience: an assertion for the one would open the other.
    SharedAudience,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(what) => write!(f, "{what} is not of its form"),
            Self::Nobody => f.write_str("there is no host for people"),
            Self::Zone(host) => write!(f, "{host} lies outside the zone"),
            Self::MachinesArePeople => f.write_str("the machines' host is one for people too"),
            Self::Team => f.write_str("hosts.json and Terraform name different teams"),
            Self::Tunnel => f.write_str("hosts.json and Terraform name different tunnels"),
            Self::Stage => f.write_str("the edge puts another stage before paths than the API has"),
            Self::Machines => f.write_str("hosts.json and Terraform name different hosts for machines"),
            Self::NoApplication(host) => write!(f, "{host} has no Access application"),
            Self::NoHost(host) => write!(f, "the Access application of {host} has no host in hosts.json"),
            Self::Tier(host) => write!(f, "{host} has the policy of another tier"),
            Self::SharedAudience => f.write_str("two hosts share one audience"),
        }
    }
}

impl Gate {
    /// Holds the hosts, the edge and the API (its host and stage, outputs of the stack `api`) against each other.
    ///
    /// # Errors
    /// Every disagreement there is.
    pub fn agree(hosts: &Hosts, access: &Access, api_host: &str, stage: &str) -> Result<Self, Vec<Disagreement>> {
        let mut faults = Vec::new();
        let mut holds = |holds: bool, fault: Disagreement| {
            if !holds {
                faults.push(fault);
            }
        };
        holds(is_label(&hosts.team), Disagreement::Form("team"));
        holds(is_hostname(&hosts.zone), Disagreement::Form("zone"));
        holds(is_uuid(&hosts.tunnel_id), Disagreement::Form("tunnel_id"));
        holds(is_stage(&hosts.stage), Disagreement::Form("stage"));
        holds(is_api_host(api_host), Disagreement::Form("the API's host"));
        holds(!hosts.people.is_empty(), Disagreement::Nobody);
        let suffix = format!(".{}", hosts.zone);
        for host in hosts.people.keys().chain([&hosts.machines]) {
            holds(is_hostname(host) && host.ends_with(&suffix), Disagreement::Zone(host.clone()));
        }
        holds(!hosts.people.contains_key(&hosts.machines), Disagreement::MachinesArePeople);
        holds(hosts.team == access.team, Disagreement::Team);
        holds(hosts.tunnel_id == access.tunnel_id, Disagreement::Tunnel);
        holds(hosts.stage == stage && access.stage == stage, Disagreement::Stage);
        holds(hosts.machines == access.machines, Disagreement::Machines);
        for (host, people) in &hosts.people {
            match access.people.get(host) {
                None => holds(false, Disagreement::NoApplication(host.clone())),
                Some(application) => {
                    holds(is_audience(&application.aud), Disagreement::Form("an audience"));
                    holds(application.tier == people.tier, Disagreement::Tier(host.clone()));
                }
            }
        }
        for host in access.people.keys() {
            holds(hosts.people.contains_key(host), Disagreement::NoHost(host.clone()));
        }
        let audiences: BTreeSet<&String> = access.people.values().map(|application| &application.aud).collect();
        holds(audiences.len() == access.people.len(), Disagreement::SharedAudience);
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            team: hosts.team.clone(),
            tunnel_id: hosts.tunnel_id.clone(),
            people: access.people.iter().map(|(host, it)| (host.clone(), it.aud.clone())).collect(),
            machines: hosts.machines.clone(),
            api_host: api_host.to_owned(),
        })
    }
}
