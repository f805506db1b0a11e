//! Names of parameters: their grammar, their ARNs, and how calls refer to a version.

use crate::{account::Account, aws_json::Refusal};

/// The longest name of the service's model.
pub(super) const LONGEST: usize = 2048;
/// What the service allows a name's ARN to be.
const LONGEST_ARN: usize = 1011;
const LEVELS: usize = 15;

/// Checks the name of a parameter that is to be written.
pub(super) fn check(account: &Account, name: &str) -> Result<(), Refusal> {
    let plain = name.strip_prefix('/').unwrap_or(name);
    let reserved = ["aws", "ssm"].iter().any(|word| plain.to_ascii_lowercase().starts_with(word));
    let formed = plain.split('/').all(|part| !part.is_empty() && part.bytes().all(is_letter));
    if reserved || !formed {
        return Err(Refusal::invalid(
            "Parameter name: can't be prefixed with \"aws\" or \"ssm\" (case-insensitive). If formed as a path, it can \
             consist of sub-paths divided by slash symbol; each sub-path can be formed as a mix of letters, numbers and \
             the following 3 symbols .-_",
        ));
    }
    if name.contains('/') && !name.starts_with('/') {
        return Err(Refusal::invalid("Parameter name must be a fully qualified name."));
    }
    if plain.split('/').count() > LEVELS {
        let message = "Parameter name: a hierarchy can have a maximum of 15 levels.";
        return Err(Refusal::new("HierarchyLevelLimitExceededException", message));
    }
    if arn(account, name).len() > LONGEST_ARN {
        return Err(Refusal::invalid("Parameter name is too long."));
    }
    Ok(())
}

/// `arn:aws:ssm:R:A:parameter/app/x` for `/app/x` and `…:parameter/x` for `x`.
pub(super) fn arn(account: &Account, name: &str) -> String {
    let name = name.strip_prefix('/').unwrap_or(name);
    format!("arn:aws:ssm:{}:{}:parameter/{name}", account.region, account.id)
}

/// What a reading call names: a parameter by name or ARN, and perhaps one of its versions by number or label.
pub(super) struct Reference {
    pub(super) name: String,
    /// Without its colon.
    pub(super) selector: Option<String>,
}

impl Reference {
    pub(super) fn parse(account: &Account, text: &str) -> Result<Self, Refusal> {
        let own = format!("arn:aws:ssm:{}:{}:parameter/", account.region, account.id);
        let (named, rest) = match text.strip_prefix(&own) {
            // An ARN does not say whether the name had its slash; only a path must have one.
            Some(rest) => {
                let path = rest.split(':').next().is_some_and(|name| name.contains('/'));
                (if path { "/" } else { "" }, rest)
            }
            None => ("", text),
        };
        let (name, selector) = match rest.split_once(':') {
            Some((name, selector)) => (name, Some(selector)),
            None => (rest, None),
        };
        let selects = |text: &str| !text.is_empty() && text.bytes().all(is_letter);
        let formed = !name.is_empty() && name.bytes().all(|byte| is_letter(byte) || byte == b'/');
        if !formed || !selector.is_none_or(selects) {
            return Err(Refusal::invalid(format!("Invalid parameter name or selector: '{text}'")));
        }
        Ok(Self { name: format!("{named}{name}"), selector: selector.map(str::to_owned) })
    }
}

/// A letter of names, labels and selectors.
pub(super) fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')
}
