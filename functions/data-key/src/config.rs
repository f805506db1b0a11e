//! What this function reads from its environment.

use std::collections::BTreeSet;

use shared::config::Reader;
use shared::device::Device;
use shared::name::{Identifier, Tenant};
use shared::trust::Accepts;
use uuid::Uuid;

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
    /// `POST /fields/export`
    Export,
    /// `POST /fields/import`
    Import,
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
            Self::Export => "export",
            Self::Import => "import",
        }
    }

    /// Whether plaintext leaves by it, to the caller or to whoever can open a message.
    pub const fn answers_plaintext(self) -> bool {
        matches!(self, Self::Decrypt | Self::Export)
    }

    /// The route's template.
    pub const fn resource(self) -> &'static str {
        match self {
            Self::Encrypt => "/fields/encrypt",
            Self::Decrypt => "/fields/decrypt",
            Self::Index => "/fields/index",
            Self::Inspect => "/fields/inspect",
            Self::Rewrap => "/fields/rewrap",
            Self::Export => "/fields/export",
            Self::Import => "/fields/import",
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
            Self::Export => "fields:export",
            Self::Import => "fields:import",
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
    /// Moves records to another key or place, out and in.
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
            Self::Maintain => &[Operation::Rewrap, Operation::Export, Operation::Import, Operation::Inspect],
        }
    }
}

/// The operations that are enabled, all of one deployment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operations {
    deployment: Deployment,
    enabled: Vec<Operation>,
    maintains: bool,
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
        let (mut enabled, mut maintains) = (vec![*deployment.operations().first()?], false);
        for name in names {
            if name == "maintain" && deployment == Deployment::Maintain && !maintains {
                maintains = true;
                continue;
            }
            let operation = *deployment.operations().iter().find(|operation| operation.as_str() == name)?;
            if enabled.contains(&operation) {
                return None;
            }
            enabled.push(operation);
        }
        Some(Self { deployment, enabled, maintains })
    }

    /// Which deployment this is.
    pub const fn deployment(&self) -> Deployment {
        self.deployment
    }

    /// Whether operators may maintain data keys here, by direct invocation.
    pub const fn maintains(&self) -> bool {
        self.maintains
    }

    /// The enabled operation that `matches`.
    pub fn find(&self, matches: impl Fn(Operation) -> bool) -> Option<Operation> {
        self.enabled.iter().copied().find(|operation| matches(*operation))
    }
}

/// Which KMS keys may have wrapped the messages that are imported, tenant by tenant: a list for all of them would let one tenant
/// read another's messages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ImportKeys(BTreeSet<(Tenant, String)>);

impl ImportKeys {
    /// Reads `tenant=ARN` between commas, each once.
    pub fn parse(text: &str) -> Option<Self> {
        let mut keys = BTreeSet::new();
        for entry in text.split(',') {
            let (tenant, arn) = entry.split_once('=')?;
            if !is_key_arn(arn) || !keys.insert((Tenant::parse(tenant).ok()?, arn.to_owned())) {
                return None;
            }
        }
        Some(Self(keys))
    }

    /// Whether this tenant may import what this key wrapped.
    pub fn admits(&self, tenant: &Tenant, key_arn: &str) -> bool {
        self.0.iter().any(|(of, arn)| of == tenant && arn == key_arn)
    }
}

/// For which purposes plaintext may leave, where somebody wants that said and written down.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Purposes(BTreeSet<String>);

impl Purposes {
    /// Reads words between commas, each once: `[a-z][a-z0-9_-]{0,31}`, at most 64 of them.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = BTreeSet::new();
        for word in text.split(',') {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
            let good =
                word.len() <= 32 && word.starts_with(|c: char| c.is_ascii_lowercase()) && word.bytes().all(plain);
            if !good || !words.insert(word.to_owned()) {
                return None;
            }
        }
        (words.len() <= 64).then_some(Self(words))
    }

    /// Whether a batch that names this purpose, or none, may be worked on: exactly one of the list where there is a list, and none
    /// where there is none, so that no text of a caller's choice is written down.
    pub fn admit(&self, named: Option<&str>) -> bool {
        match named {
            None => self.0.is_empty(),
            Some(named) => self.0.contains(named),
        }
    }
}

/// Columns whose plaintext leaves only for devices that somebody manages, whatever policy permits and by whichever way it is asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceColumns(Vec<(Option<Identifier>, Option<Identifier>)>);

impl DeviceColumns {
    /// Reads `{table}.{column}` between commas, each of the two a name or `*`, at most 256 of them.
    pub fn parse(text: &str) -> Option<Self> {
        let name = |text: &str| match text {
            "*" => Some(None),
            name => Identifier::parse(name).ok().map(Some),
        };
        let columns: Option<Vec<_>> = text
            .split(',')
            .map(|entry| {
                let (table, column) = entry.split_once('.')?;
                Some((name(table)?, name(column)?))
            })
            .collect();
        columns.filter(|columns| columns.len() <= 256).map(Self)
    }

    /// Whether a caller on this device may have the column's plaintext. A device of which nobody knows whether it is managed is not.
    pub fn admit(&self, device: Option<&Device>, table: &str, column: &str) -> bool {
        let is = |name: &Option<Identifier>, text: &str| name.as_ref().is_none_or(|name| name.as_str() == text);
        let demanded = self.0.iter().any(|(of_table, of_column)| is(of_table, table) && is(of_column, column));
        !demanded || device.is_some_and(|device| device.managed == Some(true))
    }
}

/// Which of the deployments this process is, and what that one reads.
pub enum Settings {
    /// One of those that answer callers.
    Fields(Box<Config>),
    /// `PORTCULLIS_OPERATIONS=shred`: the one that destroys data keys. It reads nothing but how to reach the database.
    Shredder,
}

impl Settings {
    /// Reads the variables. The value means something only if [`Reader::finish`] succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        if reader.optional("PORTCULLIS_OPERATIONS").as_deref() == Some("shred") {
            reader.text("PORTCULLIS_ENV");
            Self::Shredder
        } else {
            Self::Fields(Box::new(Config::read(reader)))
        }
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
    /// `PORTCULLIS_OPERATIONS`: `encrypt[,index][,inspect]`, `decrypt[,inspect]` or `rewrap[,export][,import][,inspect][,maintain]`.
    pub operations: Operations,
    /// `PORTCULLIS_IMPORT_KEYS`: `tenant=ARN` between commas; nobody's messages but our own where it is missing.
    pub import_keys: ImportKeys,
    /// `PORTCULLIS_PURPOSES`: words between commas of which one must be named to decrypt or export; missing, none is.
    pub purposes: Purposes,
    /// `PORTCULLIS_HONEY_KEYS`: ids of data keys, between commas, under which nobody has a reason to open anything.
    pub honey_keys: BTreeSet<Uuid>,
    /// `PORTCULLIS_DEVICE_COLUMNS`: `{table}.{column}` between commas whose plaintext leaves for managed devices only.
    pub device_columns: DeviceColumns,
}

impl Config {
    /// Reads the variables. The value means something only if [`Reader::finish`] succeeds.
    pub fn read(reader: &Reader<'_>) -> Self {
        let operations = reader.parsed(
            "PORTCULLIS_OPERATIONS",
            "`encrypt[,index][,inspect]`, `decrypt[,inspect]` or `rewrap[,export][,import][,inspect][,maintain]`",
            Operations::parse,
            Operations { deployment: Deployment::Encrypt, enabled: Vec::new(), maintains: false },
        );
        // A deployment that imports nothing does not know the variable.
        let imports = operations.find(|operation| operation == Operation::Import).is_some();
        let import_keys = if imports { reader.optional("PORTCULLIS_IMPORT_KEYS") } else { None };
        let import_keys = import_keys.map_or(Some(ImportKeys::default()), |keys| ImportKeys::parse(&keys));
        if import_keys.is_none() {
            reader.fault("PORTCULLIS_IMPORT_KEYS", "must be tenant=ARN of a KMS key, between commas, each once");
        }
        // Nor does one that opens nothing know these three.
        let opens = operations.deployment() != Deployment::Encrypt;
        let optional = |name| if opens { reader.optional(name) } else { None };
        let purposes = optional("PORTCULLIS_PURPOSES").map_or(Some(Purposes::default()), |list| Purposes::parse(&list));
        if purposes.is_none() {
            reader.fault("PORTCULLIS_PURPOSES", "must be words of a to z, 0 to 9, _ and -, between commas, each once");
        }
        let honey_keys = optional("PORTCULLIS_HONEY_KEYS")
            .map_or(Some(BTreeSet::new()), |list| list.split(',').map(|id| Uuid::try_parse(id).ok()).collect());
        if honey_keys.is_none() {
            reader.fault("PORTCULLIS_HONEY_KEYS", "must be ids of data keys, between commas");
        }
        let device_columns = optional("PORTCULLIS_DEVICE_COLUMNS")
            .map_or(Some(DeviceColumns::default()), |list| DeviceColumns::parse(&list));
        if device_columns.is_none() {
            reader.fault("PORTCULLIS_DEVICE_COLUMNS", "must be table.column, each a name or *, between commas");
        }
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
            operations,
            import_keys: import_keys.unwrap_or_default(),
            purposes: purposes.unwrap_or_default(),
            honey_keys: honey_keys.unwrap_or_default(),
            device_columns: device_columns.unwrap_or_default(),
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
    fn only_the_maintaining_deployment_maintains() {
        for (text, maintains) in [
            ("rewrap,inspect", false),
            ("rewrap,inspect,maintain", true),
            ("rewrap,maintain", true),
            ("encrypt,index", false),
        ] {
            assert_eq!(Operations::parse(text).unwrap().maintains(), maintains, "{text}");
        }
    }

    #[test]
    fn a_column_demands_a_device_that_is_known_to_be_managed() {
        let columns = DeviceColumns::parse("users.ssn,cards.*").unwrap();
        let device = |managed: Option<bool>| Device {
            id: "laptop-7".to_owned(),
            managed,
            os: None,
            os_version: None,
            disk_encrypted: None,
            firewall: None,
            source: "operator".to_owned(),
            checked_at: shared::clock::Timestamp::from_seconds(0),
        };
        for (table, column, demanded) in [
            ("users", "ssn", true),
            ("users", "email", false),
            ("cards", "number", true),
            ("Users", "ssn", false),
            ("", "", false),
        ] {
            assert!(columns.admit(Some(&device(Some(true))), table, column), "{table}.{column}");
            for other in [None, Some(&device(None)), Some(&device(Some(false)))] {
                assert_eq!(columns.admit(other, table, column), !demanded, "{table}.{column}");
            }
        }
        assert!(!DeviceColumns::parse("*.*").unwrap().admit(None, "any", "thing"));
        assert!(DeviceColumns::default().admit(None, "users", "ssn"));
        for bad in ["", "users", "users.ssn,", "users.ssn.x", ".ssn", "users.", "us ers.ssn", "users.ss*", "**.ssn"] {
            assert!(DeviceColumns::parse(bad).is_none(), "{bad}");
        }
        assert!(DeviceColumns::parse(&vec!["a.b"; 257].join(",")).is_none());
    }

    #[test]
    fn the_deployment_that_destroys_knows_nothing_of_the_others() {
        let read = |pairs: &[(&'static str, &'static str)]| {
            let environment = Environment::from_pairs(pairs.iter().copied());
            let reader = Reader::new(&environment);
            let settings = Settings::read(&reader);
            reader.finish().map(|()| matches!(settings, Settings::Shredder)).ok()
        };
        assert_eq!(read(&[("PORTCULLIS_ENV", "dev"), ("PORTCULLIS_OPERATIONS", "shred")]), Some(true));
        assert_eq!(read(&GOOD), Some(false));
        // Whatever else it is given, a key or a gate among it, is a fault.
        let both = GOOD.map(|(name, value)| (name, if name == "PORTCULLIS_OPERATIONS" { "shred" } else { value }));
        assert_eq!(read(&both), None);
        for operations in ["shred,inspect", "rewrap,shred", "decrypt,shred", "shred,"] {
            assert!(Operations::parse(operations).is_none(), "{operations}");
        }
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
            ("PORTCULLIS_OPERATIONS", "decrypt,maintain"),
            ("PORTCULLIS_OPERATIONS", "encrypt,maintain"),
            ("PORTCULLIS_OPERATIONS", "rewrap,maintain,maintain"),
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

    #[test]
    fn import_keys_are_exact_and_one_tenants_own() {
        let (one, two) = (GOOD[4].1, "arn:aws:kms:us-east-1:111122223333:key/other");
        let keys = ImportKeys::parse(&format!("acme={one},acme={two},globex={two}")).unwrap();
        let tenant = |name| Tenant::parse(name).unwrap();
        for (name, arn, admitted) in [
            ("acme", one, true),
            ("acme", two, true),
            ("globex", two, true),
            ("globex", one, false),
            ("initech", one, false),
        ] {
            assert_eq!(keys.admits(&tenant(name), arn), admitted, "{name} {arn}");
        }
        for bad in [
            "".to_owned(),
            one.to_owned(),
            format!("acme={one},"),
            format!("*={one}"),
            format!("acme={one},acme={one}"),
            format!("acme={one} "),
            "acme=alias/x".to_owned(),
            "acme=arn:aws:kms:us-east-1:111122223333:key/*".to_owned(),
        ] {
            assert!(ImportKeys::parse(&bad).is_none(), "{bad}");
        }
        // Only a deployment that imports knows the variable.
        for (operations, keys, faults) in [
            ("rewrap,export,import,inspect", format!("acme={one}"), 0),
            ("rewrap,import", "acme".to_owned(), 1),
            ("rewrap,export", format!("acme={one}"), 1),
            ("decrypt", format!("acme={one}"), 1),
        ] {
            let pairs = GOOD.map(|(n, v)| (n, if n == "PORTCULLIS_OPERATIONS" { operations } else { v }));
            let environment =
                Environment::from_pairs(pairs.into_iter().chain([("PORTCULLIS_IMPORT_KEYS", keys.as_str())]));
            let reader = Reader::new(&environment);
            Config::read(&reader);
            let found = reader.finish().err().map_or(0, |faults| faults.lines().len());
            assert_eq!(found, faults, "{operations} {keys}");
        }
    }

    #[test]
    fn a_purpose_is_one_of_the_list_and_without_a_list_none() {
        let list = Purposes::parse("billing,support-2,fraud_check").unwrap();
        for (named, admitted) in [
            (Some("billing"), true),
            (Some("support-2"), true),
            (Some("Billing"), false),
            (Some(""), false),
            (None, false),
        ] {
            assert_eq!(list.admit(named), admitted, "{named:?}");
        }
        let none = Purposes::default();
        assert!(none.admit(None) && !none.admit(Some("billing")));
        for bad in ["", "billing,", "Billing", "1st", "a b", "billing,billing", "é", &"x".repeat(33)] {
            assert!(Purposes::parse(bad).is_none(), "{bad}");
        }
        assert!(Purposes::parse(&(0..65).map(|n| format!("p{n}")).collect::<Vec<_>>().join(",")).is_none());
        let id = "01920000-0000-7000-8000-0000000000a1";
        for (operations, name, value, faults) in [
            ("decrypt,inspect", "PORTCULLIS_PURPOSES", "billing", 0),
            ("decrypt,inspect", "PORTCULLIS_PURPOSES", "Billing", 1),
            ("encrypt", "PORTCULLIS_PURPOSES", "billing", 1),
            ("decrypt", "PORTCULLIS_HONEY_KEYS", id, 0),
            ("rewrap,export", "PORTCULLIS_HONEY_KEYS", id, 0),
            ("decrypt", "PORTCULLIS_HONEY_KEYS", "all", 1),
            ("encrypt", "PORTCULLIS_HONEY_KEYS", id, 1),
            ("decrypt", "PORTCULLIS_DEVICE_COLUMNS", "users.ssn,cards.*", 0),
            ("rewrap,export", "PORTCULLIS_DEVICE_COLUMNS", "*.*", 0),
            ("decrypt", "PORTCULLIS_DEVICE_COLUMNS", "users", 1),
            ("encrypt", "PORTCULLIS_DEVICE_COLUMNS", "users.ssn", 1),
        ] {
            let pairs = GOOD.map(|(n, v)| (n, if n == "PORTCULLIS_OPERATIONS" { operations } else { v }));
            let environment = Environment::from_pairs(pairs.into_iter().chain([(name, value)]));
            let reader = Reader::new(&environment);
            Config::read(&reader);
            let found = reader.finish().err().map_or(0, |faults| faults.lines().len());
            assert_eq!(found, faults, "{operations} {name}={value}");
        }
    }
}
