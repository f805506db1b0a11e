//! What this function reads from its environment.

use shared::config::Reader;
use shared::trust::Accepts;

/// What can be asked of a field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// `POST /fields/encrypt`
    Encrypt,
    /// `POST /fields/decrypt`
    Decrypt,
    /// `POST /fields/index`
    Index,
    /// `POST /fields/inspect`
    Inspect,
    /// `POST /fields/rewrap`
    Rewrap,
}

impl Operation {
    /// The name in scopes, in direct invocations and in `PORTCULLIS_OPERATIONS`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Index => "index",
            Self::Inspect => "inspect",
            Self::Rewrap => "rewrap",
        }
    }

    /// The route's template.
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Encrypt => "/fields/encrypt",
            Self::Decrypt => "/fields/decrypt",
            Self::Index => "/fields/index",
            Self::Inspect => "/fields/inspect",
            Self::Rewrap => "/fields/rewrap",
        }
    }

    /// The action in the log.
    pub const fn action(self) -> &'static str {
        match self {
            Self::Encrypt => "fields:encrypt",
            Self::Decrypt => "fields:decrypt",
            Self::Index => "fields:index",
            Self::Inspect => "fields:inspect",
            Self::Rewrap => "fields:rewrap",
        }
    }
}

/// Which of the deployments this is. Its role has the rights of its own operations and no others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deployment {
    /// Makes records and index entries.
    Encrypt,
    /// Opens records.
    Decrypt,
    /// Moves records to another key or place.
    Maintain,
}

impl Deployment {
    /// The deployment's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "data-key-encrypt",
            Self::Decrypt => "data-key-decrypt",
            Self::Maintain => "data-key-maintain",
        }
    }

    /// Everything that the deployment can be configured to do.
    pub const fn operations(self) -> &'static [Operation] {
        match self {
            Self::Encrypt => &[Operation::Encrypt, Operation::Index, Operation::Inspect],
            Self::Decrypt => &[Operation::Decrypt, Operation::Inspect],
            Self::Maintain => &[Operation::Rewrap, Operation::Inspect],
        }
    }
}

/// The operations that are enabled, all of one deployment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operations {
    deployment: Deployment,
    enabled: Vec<Operation>,
}

impl Operations {
    /// Reads names between commas, each once. The first says which deployment this is.
    pub fn parse(text: &str) -> Option<Self> {
        let mut names = text.split(',');
        let deployment = match names.next()? {
            "encrypt" => Deployment::Encrypt,
            "decrypt" => Deployment::Decrypt,
            "rewrap" => Deployment::Maintain,
            _ => return None,
        };
        let mut enabled = vec![*deployment.operations().first()?];
        for name in names {
            let operation = *deployment.operations().iter().find(|operation| operation.as_str() == name)?;
            if enabled.contains(&operation) {
                return None;
            }
            enabled.push(operation);
        }
        Some(Self { deployment, enabled })
    }

    /// Which deployment this is.
    pub const fn deployment(&self) -> Deployment {
        self.deployment
    }

    /// The enabled operation that `matches`.
    pub fn find(&self, matches: impl Fn(Operation) -> bool) -> Option<Operation> {
        self.enabled.iter().copied().find(|operation| matches(*operation))
    }
}

/// What decides here; how to reach AWS and Postgres is read by their adapters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// `PORTCULLIS_ENV`: the name of the deployment.
    pub env: String,
    /// `PORTCULLIS_ISSUER` and `PORTCULLIS_AUDIENCE`: whose tokens are accepted.
    pub accepts: Accepts,
    /// `PORTCULLIS_TRUST_BUCKET`: where keys and revocations are read.
    pub trust_bucket: String,
    /// `PORTCULLIS_DATA_KEY_ARN`: the one KMS key, by ARN, never by alias.
    pub data_key_arn: String,
    /// `PORTCULLIS_OPERATIONS`: `encrypt[,index][,inspect]`, `decrypt[,inspect]` or `rewrap[,inspect]`.
    pub operations: Operations,
}

impl Config {
    /// Reads the variables. The value means something only if [`Reader::finish`] succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        Self {
            env: reader.text("PORTCULLIS_ENV"),
            accepts: Accepts {
                issuer: reader.issuer("PORTCULLIS_ISSUER"),
                audience: reader.text("PORTCULLIS_AUDIENCE"),
            },
            trust_bucket: reader.text("PORTCULLIS_TRUST_BUCKET"),
            data_key_arn: reader.parsed(
                "PORTCULLIS_DATA_KEY_ARN",
                "the ARN of a KMS key",
                |value| is_key_arn(value).then(|| value.to_owned()),
                String::new(),
            ),
            operations: reader.parsed(
                "PORTCULLIS_OPERATIONS",
                "`encrypt[,index][,inspect]`, `decrypt[,inspect]` or `rewrap[,inspect]`",
                Operations::parse,
                Operations { deployment: Deployment::Encrypt, enabled: Vec::new() },
            ),
        }
    }
}

fn is_key_arn(value: &str) -> bool {
    let parts: Vec<&str> = value.split(':').collect();
    let [arn, partition, service, region, account, resource] = parts.as_slice() else { return false };
    let word = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    *arn == "arn"
        && word(partition)
        && *service == "kms"
        && word(region)
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && resource.strip_prefix("key/").is_some_and(word)
}

#[cfg(test)]
mod tests {
    use shared::config::Environment;

    use super::*;

    const GOOD: [(&str, &str); 6] = [
        ("PORTCULLIS_ENV", "dev"),
        ("PORTCULLIS_ISSUER", "https://localhost:8443"),
        ("PORTCULLIS_AUDIENCE", "https://api.example"),
        ("PORTCULLIS_TRUST_BUCKET", "trust"),
        ("PORTCULLIS_DATA_KEY_ARN", "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        ("PORTCULLIS_OPERATIONS", "decrypt,inspect"),
    ];

    #[test]
    fn a_whole_configuration_is_read() {
        let environment = Environment::from_pairs(GOOD);
        let reader = Reader::new(&environment);
        let config = Config::read(&reader);
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(config.accepts.issuer, "https://localhost:8443");
        assert_eq!(config.operations.deployment(), Deployment::Decrypt);
        assert_eq!(config.operations.enabled, [Operation::Decrypt, Operation::Inspect]);
    }

    #[test]
    fn a_key_by_alias_or_an_unknown_operation_is_a_fault() {
        for (name, value) in [
            ("PORTCULLIS_DATA_KEY_ARN", "alias/portcullis-dev-data"),
            ("PORTCULLIS_DATA_KEY_ARN", "arn:aws:kms:us-east-1:111122223333:alias/portcullis-dev-data"),
            ("PORTCULLIS_DATA_KEY_ARN", "arn:aws:kms:us-east-1:1111:key/x"),
            ("PORTCULLIS_DATA_KEY_ARN", "arn:aws:kms:us-east-1:111122223333:key/*"),
            ("PORTCULLIS_OPERATIONS", "encrypt,decrypt"),
            ("PORTCULLIS_OPERATIONS", "decrypt,index"),
            ("PORTCULLIS_OPERATIONS", "encrypt,inspect,inspect"),
            ("PORTCULLIS_OPERATIONS", "encrypt, index"),
            ("PORTCULLIS_OPERATIONS", "encrypt,"),
            ("PORTCULLIS_OPERATIONS", "inspect"),
            ("PORTCULLIS_OPERATIONS", "maintain"),
            ("PORTCULLIS_OPERATIONS", "rewrap,decrypt"),
            ("PORTCULLIS_OPERATIONS", "encrypt,rewrap"),
            ("PORTCULLIS_AUDIENCE", ""),
        ] {
            let environment = Environment::from_pairs(GOOD.map(|(n, v)| (n, if n == name { value } else { v })));
            let reader = Reader::new(&environment);
            Config::read(&reader);
            let faults = reader.finish().unwrap_err();
            assert!(matches!(faults.lines(), [one] if one.starts_with(name)), "{name}={value}: {faults}");
        }
    }
}
