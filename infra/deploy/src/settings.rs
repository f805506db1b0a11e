//! What a person decides about a deployment: `NAME=value` on the command line, the same in a file, and a profile.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use crate::layout;
use crate::world::World;

/// Settings that are no template parameter, and what they are.
pub const NAMES: &[(&str, &str)] = &[
    ("ENV", "name of the deployment, [a-z][a-z0-9]{0,15}; part of every resource's name"),
    ("PROFILE", "recommended (default) or lean: infra/aws/profiles"),
    ("REGION", "AWS region; AWS_REGION and the AWS CLI's own configuration otherwise"),
    ("ISSUER", "external base URL that clients call: https, no path, no slash at the end"),
    ("AUDIENCE", "identifier of the API in access tokens"),
    ("TEAM", "Cloudflare team, TEAM of https://TEAM.cloudflareaccess.com; WITH=dns-firewall needs it"),
    ("IMAGE", "image of the tunnel, by digest; without it no edge is deployed"),
    ("WITH", "optional stacks, separated by spaces: app-link dns-firewall malware-scan code-signing"),
    ("ARCH", "arm64 (default) or x86_64"),
    ("PARAMETERS", "further template parameters, Name=value separated by spaces"),
    ("SETTINGS", "file with such lines; infra/aws/deploy.env where it exists"),
    ("DRY_RUN", "1: say what would be done"),
    ("ALLOW_REPLACE", "logical ids of stateful resources that may be replaced or removed"),
    ("ALLOW_DEFAULTS", "1: what stands and is not named this time may fall back to its default"),
    ("FUNCTION", "deployment of a function, e.g. token or data-key-encrypt"),
    ("VERSION", "published version to roll back to"),
    ("SINCE", "minutes of log to show (10)"),
    ("FOLLOW", "1: go on showing"),
];

/// Settings that set a template parameter.
const PARAMETERS: &[(&str, &str)] = &[
    ("ENV", "Env"),
    ("ISSUER", "Issuer"),
    ("AUDIENCE", "Audience"),
    ("TEAM", "AccessTeam"),
    ("IMAGE", "ImageUri"),
    ("ARCH", "Architecture"),
];

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    named: BTreeMap<String, String>,
    /// Parameters that the person set, by template name.
    pub parameters: BTreeMap<String, String>,
    /// Parameters that the profile sets, and those that follow from what the person set.
    pub profile: BTreeMap<String, String>,
    /// Names of those that follow from what the person set.
    pub followed: BTreeSet<String>,
}

impl Settings {
    /// Reads `NAME=value` arguments, then the file, then the profile; what comes first counts.
    ///
    /// # Errors
    /// All faults found, one a line.
    pub fn read(world: World<'_>, arguments: &[String]) -> Result<Self, Vec<String>> {
        let mut settings = Self::default();
        let mut faults = Vec::new();
        for argument in arguments {
            settings.set(argument, "the command line", &mut faults);
        }
        let named = settings.value("SETTINGS").map(str::to_owned);
        let file = named.clone().unwrap_or_else(|| "infra/aws/deploy.env".to_owned());
        match fs::read_to_string(world.path(&file)) {
            Ok(text) => {
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
                lines.for_each(|line| settings.set(line, &file, &mut faults));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {}
            Err(error) => faults.push(format!("SETTINGS: {file}: {error}")),
        }
        for (name, parameter) in PARAMETERS {
            if let Some(value) = settings.named.get(*name).cloned() {
                settings.parameter(parameter, &value);
            }
        }
        let profile = settings.profile_name().to_owned();
        match load_profile(world, &profile) {
            Ok(profile) => settings.profile = profile,
            Err(fault) => faults.push(fault),
        }
        let mut follows = |when: bool, parameter: &str, value: &str| {
            if when {
                settings.profile.insert(parameter.to_owned(), value.to_owned());
                settings.followed.insert(parameter.to_owned());
            }
        };
        let scans = settings.named.get("WITH").is_some_and(|with| with.contains("malware-scan"));
        let keys_in_ssm = settings.parameters.get("Signer").is_some_and(|signer| signer == "ssm");
        // The function that asks for the verdicts, and the endpoint by which keys are read.
        follows(scans, "Scan", "guardduty");
        follows(keys_in_ssm, "SsmEndpoint", "on");
        if !scans && settings.parameters.get("Scan").is_some_and(|scan| scan != "off") {
            faults.push("Scan: nothing scans without WITH=malware-scan, and no file would ever be read".to_owned());
        }
        for wanted in settings.wanted() {
            if layout::optional(wanted).is_none() {
                faults.push(format!("WITH: no optional stack `{wanted}`"));
            }
        }
        if faults.is_empty() { Ok(settings) } else { Err(faults) }
    }

    /// A setting, if it is there and not empty.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.named.get(name).map(String::as_str)
    }

    /// Whether a switch is on.
    pub fn on(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| !matches!(value, "0" | "off" | "no" | "false"))
    }

    /// The name of the deployment; empty where none is given.
    pub fn env(&self) -> &str {
        self.value("ENV").unwrap_or_default()
    }

    /// The name of the profile.
    pub fn profile_name(&self) -> &str {
        self.value("PROFILE").unwrap_or("recommended")
    }

    /// The optional stacks that are wanted.
    pub fn wanted(&self) -> impl Iterator<Item = &str> {
        self.value("WITH").unwrap_or_default().split([' ', ',']).filter(|name| !name.is_empty())
    }

    /// Stateful resources that may be replaced or removed.
    pub fn replaceable(&self) -> BTreeSet<&str> {
        self.value("ALLOW_REPLACE").unwrap_or_default().split([' ', ',']).filter(|name| !name.is_empty()).collect()
    }

    /// What the functions run on.
    pub fn architecture(&self) -> &str {
        self.decided("Architecture").unwrap_or("arm64")
    }

    /// A parameter as the person or the profile sets it.
    pub fn decided(&self, parameter: &str) -> Option<&str> {
        self.parameters.get(parameter).or_else(|| self.profile.get(parameter)).map(String::as_str)
    }

    /// Sets a parameter that nobody has set yet.
    fn parameter(&mut self, name: &str, value: &str) {
        self.parameters.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// Sets a parameter by its name in the templates, if it has no setting of its own: two ways to say one thing could
    /// disagree, and only the settings' form is checked.
    fn template_parameter(&mut self, name: &str, value: &str, from: &str, faults: &mut Vec<String>) {
        match PARAMETERS.iter().find(|(_, parameter)| *parameter == name) {
            Some((setting, _)) => faults.push(format!("{from}: {name} has a setting of its own: {setting}={value}")),
            None => self.parameter(name, value),
        }
    }

    fn set(&mut self, line: &str, from: &str, faults: &mut Vec<String>) {
        let Some((name, value)) = line.split_once('=') else {
            faults.push(format!("{from}: `{line}` is not NAME=value"));
            return;
        };
        let (name, value) = (name.trim(), value.trim());
        if name == "PARAMETERS" {
            // By name: what the command line says of one parameter takes nothing away from the file's others.
            for one in value.split_whitespace() {
                match one.split_once('=') {
                    Some((name, value)) => self.template_parameter(name, value, from, faults),
                    None => faults.push(format!("PARAMETERS: `{one}` is not Name=value")),
                }
            }
        } else if NAMES.iter().any(|(known, _)| *known == name) {
            // Make hands over every variable; an empty one was not given.
            if !value.is_empty() {
                self.named.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        } else if name.chars().any(|letter| letter.is_ascii_lowercase()) {
            self.template_parameter(name, value, from, faults);
        } else {
            faults.push(format!("{from}: no setting `{name}`"));
        }
    }
}

/// How a person says that a template parameter has this value.
pub fn said(parameter: &str, value: &str) -> String {
    match PARAMETERS.iter().find(|(_, known)| *known == parameter) {
        Some((setting, _)) => format!("{setting}={value}"),
        None => format!("PARAMETERS=\"{parameter}={value}\""),
    }
}

/// Parameters of `infra/aws/profiles/<name>.yaml`.
///
/// # Errors
/// One line saying what is wrong with it.
pub fn load_profile(world: World<'_>, name: &str) -> Result<BTreeMap<String, String>, String> {
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let text = plain
        .then(|| fs::read_to_string(world.path(&format!("infra/aws/profiles/{name}.yaml"))).ok())
        .flatten()
        .ok_or_else(|| format!("PROFILE: no profile `{name}` in infra/aws/profiles"))?;
    let profile = template::Profile::read(&text).map_err(|faults| format!("profile {name}: {}", faults.join("; ")))?;
    Ok(profile.parameters)
}
