//! A configuration is read whole, key by key. What is not known here is a fault, because cloudflared warns at most and goes on.

use std::collections::BTreeSet;
use std::fmt;

use serde_yaml_ng::{Mapping, Value};

use crate::hosts::Gate;

/// One fault: where, and why it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `ingress[1].originRequest.access`
    pub at: String,
    /// The rule it breaks.
    pub why: Why,
}

/// Why something may not stand in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Not one YAML document without repeated keys.
    NotYaml,
    /// Another type than this key has.
    WrongType,
    /// A key that must be there.
    Missing,
    /// A key nobody here knows.
    UnknownKey,
    /// Another tunnel than the hosts point at.
    OtherTunnel,
    /// `originRequest` outside a rule, where cloudflared ignores its `access`.
    TopLevelOrigin,
    /// Routing of private networks.
    WarpRouting,
    /// A secret or the path of one; it comes from the task's environment.
    Secret,
    /// A setting of the process, which stands in the image's environment.
    ProcessSetting,
    /// The last rule is not exactly `http_status:404`.
    LastRule,
    /// A rule before the last that matches every host.
    MatchesEverything,
    /// A wildcard, a port, capitals: not a plain host name.
    NotAHost,
    /// A host that is neither for people nor for machines.
    UnknownHost,
    /// A host twice: the second rule is never reached.
    HostTwice,
    /// A host without a rule.
    HostWithoutRule,
    /// A path pattern: normalisation makes it no boundary.
    Path,
    /// Not `https://`.
    NotHttps,
    /// An origin that is not the API's host.
    OtherOrigin,
    /// A path in the origin, which cloudflared refuses.
    OriginPath,
    /// A service that is no web origin: ssh, tcp, socks, bastion, hello-world, a socket, a status.
    OtherService,
    /// Host is not the API's name.
    HostHeader,
    /// TLS asks for another name than the API's.
    ServerName,
    /// TLS verification is off or trusts something else.
    Unverified,
    /// The process becomes a proxy into the network.
    ProxyMode,
    /// A host for people whose rule has no `access`.
    NoAccess,
    /// `required` is not true.
    NotRequired,
    /// Another team.
    OtherTeam,
    /// Not exactly the audience of the host's own application.
    OtherAudience,
    /// `access` at the machines' rule, where it would close the open routes.
    AccessForMachines,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotYaml => "is not one YAML document without repeated keys",
            Self::WrongType => "has another type than this key has",
            Self::Missing => "is missing",
            Self::UnknownKey => "is not known",
            Self::OtherTunnel => "is another tunnel than the hosts point at",
            Self::TopLevelOrigin => "stands outside a rule, where cloudflared ignores `access`: every rule has its own",
            Self::WarpRouting => "would route private networks",
            Self::Secret => "is a secret or the path of one, which comes from the task's environment",
            Self::ProcessSetting => "is a setting of the process, which stands in the image's environment",
            Self::LastRule => "must be exactly `service: http_status:404`",
            Self::MatchesEverything => "matches every host before the last rule",
            Self::NotAHost => "is not a plain lower-case host name",
            Self::UnknownHost => "is neither a host for people nor the machines' host",
            Self::HostTwice => "has a rule already, so this one is never reached",
            Self::HostWithoutRule => "has no rule",
            Self::Path => "is a pattern over paths, which is no boundary: the authorizer decides on routes",
            Self::NotHttps => "is not https",
            Self::OtherOrigin => "is not the API's host",
            Self::OriginPath => "has a path, port, user or query: the origin is a host only",
            Self::OtherService => "is a service that is no web origin",
            Self::HostHeader => "is not the API's name: API Gateway would answer 403, or serve another API",
            Self::ServerName => "makes TLS ask for another name than the API's",
            Self::Unverified => "takes the origin's certificate unverified, or by other roots",
            Self::ProxyMode => "would make the tunnel a proxy into the network",
            Self::NoAccess => "has no `access`: whoever reaches the host would pass",
            Self::NotRequired => "must be `true`",
            Self::OtherTeam => "is another team",
            Self::OtherAudience => "must be exactly the audience of this host's own application",
            Self::AccessForMachines => "would close the open routes to machines",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.why)
    }
}

/// What becomes of a request that a rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Access has let somebody in, and the tunnel demands the assertion for this application.
    People {
        /// The public name.
        host: String,
        /// The application's audience.
        audience: String,
        /// The API's host.
        origin: String,
    },
    /// Nobody has asked yet who this is; the authorizer does.
    Machines {
        /// The public name.
        host: String,
        /// The API's host.
        origin: String,
    },
    /// 404, and the API never hears of it.
    Nowhere,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::People { host, audience, origin } => {
                write!(f, "{host}: people, with an assertion for {audience}, to {origin}")
            }
            Self::Machines { host, origin } => write!(f, "{host}: machines, without an assertion, to {origin}"),
            Self::Nowhere => f.write_str("any other host: 404"),
        }
    }
}

/// Reads a configuration and judges it by what the gate must be.
///
/// # Errors
/// Every fault there is, in the order of the file.
pub fn check(text: &str, gate: &Gate) -> Result<Vec<Fate>, Vec<Fault>> {
    let mut reader = Reader { gate, faults: Vec::new(), seen: BTreeSet::new() };
    let fates = reader.document(text);
    if reader.faults.is_empty() { Ok(fates) } else { Err(reader.faults) }
}

struct Reader<'a> {
    gate: &'a Gate,
    faults: Vec<Fault>,
    seen: BTreeSet<String>,
}

impl Reader<'_> {
    fn fault(&mut self, at: impl Into<String>, why: Why) {
        self.faults.push(Fault { at: at.into(), why });
    }

    fn document(&mut self, text: &str) -> Vec<Fate> {
        let Ok(value) = serde_yaml_ng::from_str::<Value>(text) else {
            self.fault("the file", Why::NotYaml);
            return Vec::new();
        };
        let Some(root) = self.mapping("the file", &value) else {
            return Vec::new();
        };
        for key in self.keys("", root) {
            match key.as_str() {
                "tunnel" | "ingress" => {}
                "originRequest" => self.fault(key, Why::TopLevelOrigin),
                "warp-routing" => self.fault(key, Why::WarpRouting),
                "credentials-file" | "credentials-contents" | "token" | "token-file" | "origincert" => {
                    self.fault(key, Why::Secret);
                }
                _ if PROCESS.contains(&key.as_str()) => self.fault(key, Why::ProcessSetting),
                "url" | "hello-world" | "bastion" | "unix-socket" | "socks5" | "proxy-address" | "proxy-port" => {
                    self.fault(key, Why::OtherService);
                }
                "no-tls-verify" | "origin-ca-pool" => self.fault(key, Why::Unverified),
                _ => self.fault(key, Why::UnknownKey),
            }
        }
        if self.text("", root, "tunnel").is_some_and(|tunnel| tunnel != self.gate.tunnel_id) {
            self.fault("tunnel", Why::OtherTunnel);
        }
        self.ingress(root)
    }

    fn ingress(&mut self, root: &Mapping) -> Vec<Fate> {
        let rules = match root.get("ingress") {
            Some(Value::Sequence(rules)) if !rules.is_empty() => rules,
            Some(Value::Sequence(_)) | None => {
                self.fault("ingress", Why::Missing);
                return Vec::new();
            }
            Some(_) => {
                self.fault("ingress", Why::WrongType);
                return Vec::new();
            }
        };
        let last = rules.len() - 1;
        let fates = rules.iter().enumerate().filter_map(|(index, rule)| {
            let at = format!("ingress[{index}]");
            let rule = self.mapping(&at, rule)?;
            if index == last { self.last(&at, rule) } else { self.rule(&at, rule) }
        });
        let fates = fates.collect();
        let gate = self.gate;
        for host in gate.people.keys().chain([&gate.machines]) {
            if !self.seen.contains(host) {
                self.fault(host, Why::HostWithoutRule);
            }
        }
        fates
    }

    fn last(&mut self, at: &str, rule: &Mapping) -> Option<Fate> {
        let exact = rule.len() == 1 && rule.get("service").and_then(Value::as_str) == Some("http_status:404");
        if !exact {
            self.fault(at, Why::LastRule);
        }
        exact.then_some(Fate::Nowhere)
    }

    fn rule(&mut self, at: &str, rule: &Mapping) -> Option<Fate> {
        for key in self.keys(at, rule) {
            match key.as_str() {
                "hostname" | "service" | "originRequest" => {}
                "path" => self.fault(format!("{at}.path"), Why::Path),
                _ => self.fault(format!("{at}.{key}"), Why::UnknownKey),
            }
        }
        let origin = rule.get("originRequest");
        let mapping = match origin {
            Some(Value::Mapping(mapping)) => Some(mapping),
            Some(_) => {
                self.fault(format!("{at}.originRequest"), Why::WrongType);
                None
            }
            None => None,
        };
        self.service(at, rule);
        let host = self.host(at, rule);
        let access = self.origin(at, mapping);
        let host = host?;
        let gate = self.gate;
        if let Some(audience) = gate.people.get(&host) {
            self.access(at, access, audience);
            return Some(Fate::People { host, audience: audience.clone(), origin: gate.api_host.clone() });
        }
        if access.is_some() {
            self.fault(format!("{at}.originRequest.access"), Why::AccessForMachines);
        }
        Some(Fate::Machines { host, origin: gate.api_host.clone() })
    }

    fn host(&mut self, at: &str, rule: &Mapping) -> Option<String> {
        let spot = format!("{at}.hostname");
        if !rule.contains_key("hostname") {
            self.fault(at, Why::MatchesEverything);
            return None;
        }
        let host = self.text(at, rule, "hostname")?;
        if host.is_empty() || host == "*" {
            self.fault(at, Why::MatchesEverything);
            return None;
        }
        if !crate::grammar::is_hostname(host) {
            self.fault(spot, Why::NotAHost);
            return None;
        }
        if !self.gate.people.contains_key(host) && self.gate.machines != host {
            self.fault(spot, Why::UnknownHost);
            return None;
        }
        if !self.seen.insert(host.to_owned()) {
            self.fault(spot, Why::HostTwice);
            return None;
        }
        Some(host.to_owned())
    }

    fn service(&mut self, at: &str, rule: &Mapping) {
        let spot = format!("{at}.service");
        let Some(service) = self.text(at, rule, "service") else {
            return;
        };
        let Some((scheme, rest)) = service.split_once("://") else {
            return self.fault(spot, Why::OtherService);
        };
        match scheme {
            "https" => {}
            "http" | "ws" | "wss" => return self.fault(spot, Why::NotHttps),
            _ => return self.fault(spot, Why::OtherService),
        }
        let api = &self.gate.api_host;
        if rest == api {
            return;
        }
        let only_more = rest.strip_prefix(api.as_str()).is_some_and(|more| more.starts_with(['/', ':', '?', '#']));
        let user = rest.split('/').next().is_some_and(|authority| authority.contains('@'));
        self.fault(spot, if only_more && !user { Why::OriginPath } else { Why::OtherOrigin });
    }

    fn origin<'v>(&mut self, at: &str, origin: Option<&'v Mapping>) -> Option<&'v Value> {
        let at = format!("{at}.originRequest");
        let Some(origin) = origin else {
            self.fault(format!("{at}.httpHostHeader"), Why::Missing);
            return None;
        };
        for key in self.keys(&at, origin) {
            let spot = format!("{at}.{key}");
            match key.as_str() {
                "httpHostHeader" | "access" => {}
                "originServerName" => {
                    if origin.get("originServerName").and_then(Value::as_str) != Some(self.gate.api_host.as_str()) {
                        self.fault(spot, Why::ServerName);
                    }
                }
                "matchSNItoHost" => self.fault(spot, Why::ServerName),
                "noTLSVerify" | "caPool" => self.fault(spot, Why::Unverified),
                "bastionMode" | "proxyAddress" | "proxyPort" | "proxyType" | "ipRules" => {
                    self.fault(spot, Why::ProxyMode);
                }
                _ => self.fault(spot, Why::UnknownKey),
            }
        }
        if self.text(&at, origin, "httpHostHeader").is_some_and(|header| header != self.gate.api_host) {
            self.fault(format!("{at}.httpHostHeader"), Why::HostHeader);
        }
        origin.get("access")
    }

    fn access(&mut self, at: &str, access: Option<&Value>, audience: &str) {
        let at = format!("{at}.originRequest.access");
        let Some(access) = access else {
            return self.fault(at, Why::NoAccess);
        };
        let Some(access) = self.mapping(&at, access) else {
            return;
        };
        for key in self.keys(&at, access) {
            if !["required", "teamName", "audTag"].contains(&key.as_str()) {
                self.fault(format!("{at}.{key}"), Why::UnknownKey);
            }
        }
        if access.get("required") != Some(&Value::Bool(true)) {
            self.fault(format!("{at}.required"), Why::NotRequired);
        }
        if self.text(&at, access, "teamName").is_some_and(|team| team != self.gate.team) {
            self.fault(format!("{at}.teamName"), Why::OtherTeam);
        }
        let exact = match access.get("audTag") {
            Some(Value::Sequence(tags)) => tags.len() == 1 && tags.first().and_then(Value::as_str) == Some(audience),
            _ => false,
        };
        if !exact {
            self.fault(format!("{at}.audTag"), Why::OtherAudience);
        }
    }

    fn mapping<'v>(&mut self, at: &str, value: &'v Value) -> Option<&'v Mapping> {
        let mapping = value.as_mapping().filter(|_| matches!(value, Value::Mapping(_)));
        if mapping.is_none() {
            self.fault(at, Why::WrongType);
        }
        mapping
    }

    fn keys(&mut self, at: &str, mapping: &Mapping) -> Vec<String> {
        let mut keys = Vec::new();
        for key in mapping.keys() {
            match key {
                Value::String(key) => keys.push(key.clone()),
                _ => self.fault(if at.is_empty() { "the file" } else { at }, Why::WrongType),
            }
        }
        keys
    }

    fn text<'v>(&mut self, at: &str, mapping: &'v Mapping, key: &str) -> Option<&'v str> {
        let spot = if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        match mapping.get(key) {
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.fault(spot, Why::WrongType);
                None
            }
            None => {
                self.fault(spot, Why::Missing);
                None
            }
        }
    }
}

/// Flags that cloudflared also reads from its configuration. One place for them is enough, and the image's is the one that the
/// task's definition shows.
const PROCESS: &[&str] = &[
    "autoupdate-freq",
    "edge",
    "edge-bind-address",
    "edge-ip-version",
    "features",
    "grace-period",
    "ha-connections",
    "logfile",
    "loglevel",
    "management-diagnostics",
    "management-hostname",
    "metrics",
    "metrics-update-freq",
    "no-autoupdate",
    "pidfile",
    "post-quantum",
    "protocol",
    "region",
    "retries",
    "tag",
    "transport-loglevel",
];
