//! Condition blocks.

use std::net::IpAddr;

use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, OffsetDateTime};

use super::context::Context;
use super::pattern::{self, Template, Token};

/// One key of one operator: holds when a value of the policy fits the context.
#[derive(Clone, Debug)]
pub(super) struct Test {
    operator: Operator,
    negated: bool,
    if_exists: bool,
    quantifier: Quantifier,
    key: String,
    values: Vec<Template>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quantifier {
    None,
    ForAll,
    ForAny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals,
    EqualsIgnoreCase,
    Like,
    Arn,
    Bool,
    Ip,
    Null,
    Numeric(Order),
    Date(Order),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Operator {
    fn parse(name: &str) -> Option<(Operator, bool)> {
        use Operator::{Arn, Bool, Date, Equals, EqualsIgnoreCase, Ip, Like, Null, Numeric};
        let (operator, negated) = match name {
            "StringEquals" => (Equals, false),
            "StringNotEquals" => (Equals, true),
            "StringEqualsIgnoreCase" => (EqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => (EqualsIgnoreCase, true),
            "StringLike" => (Like, false),
            "StringNotLike" => (Like, true),
            "ArnEquals" | "ArnLike" => (Arn, false),
            "ArnNotEquals" | "ArnNotLike" => (Arn, true),
            "Bool" => (Bool, false),
            "IpAddress" => (Ip, false),
            "NotIpAddress" => (Ip, true),
            "Null" => (Null, false),
            "NumericEquals" => (Numeric(Order::Equal), false),
            "NumericNotEquals" => (Numeric(Order::Equal), true),
            "NumericLessThan" => (Numeric(Order::Less), false),
            "NumericLessThanEquals" => (Numeric(Order::LessOrEqual), false),
            "NumericGreaterThan" => (Numeric(Order::Greater), false),
            "NumericGreaterThanEquals" => (Numeric(Order::GreaterOrEqual), false),
            "DateEquals" => (Date(Order::Equal), false),
            "DateNotEquals" => (Date(Order::Equal), true),
            "DateLessThan" => (Date(Order::Less), false),
            "DateLessThanEquals" => (Date(Order::LessOrEqual), false),
            "DateGreaterThan" => (Date(Order::Greater), false),
            "DateGreaterThanEquals" => (Date(Order::GreaterOrEqual), false),
            _ => return None,
        };
        Some((operator, negated))
    }
}

impl Order {
    fn holds<T: PartialOrd>(self, given: &T, wanted: &T) -> bool {
        match self {
            Order::Equal => given == wanted,
            Order::Less => given < wanted,
            Order::LessOrEqual => given <= wanted,
            Order::Greater => given > wanted,
            Order::GreaterOrEqual => given >= wanted,
        }
    }
}

/// Reads a `Condition` element; every fault is told.
pub(super) fn parse(block: &Value, faults: &mut Vec<String>) -> Vec<Test> {
    let Some(block) = block.as_object() else {
        faults.push("Condition is not an object".to_owned());
        return Vec::new();
    };
    let mut tests = Vec::new();
    for (name, keys) in block {
        let (quantifier, rest) = match name.split_once(':') {
            Some(("ForAllValues", rest)) => (Quantifier::ForAll, rest),
            Some(("ForAnyValue", rest)) => (Quantifier::ForAny, rest),
            _ => (Quantifier::None, name.as_str()),
        };
        let (plain, if_exists) = match rest.strip_suffix("IfExists") {
            Some(plain) => (plain, true),
            None => (rest, false),
        };
        let parsed = Operator::parse(plain)
            .filter(|(operator, _)| *operator != Operator::Null || (!if_exists && quantifier == Quantifier::None));
        let (Some((operator, negated)), Some(keys)) = (parsed, keys.as_object()) else {
            faults.push(format!("unknown condition operator `{name}`"));
            continue;
        };
        for (key, values) in keys {
            if !known_key(key) {
                faults.push(format!("unknown condition key `{key}`"));
            }
            let values = read_values(operator, key, values, faults);
            tests.push(Test { operator, negated, if_exists, quantifier, key: key.to_ascii_lowercase(), values });
        }
    }
    tests
}

fn read_values(operator: Operator, key: &str, values: &Value, faults: &mut Vec<String>) -> Vec<Template> {
    let values: Vec<&Value> = match values {
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    };
    if values.is_empty() {
        faults.push(format!("condition key `{key}` has no value"));
    }
    let mut templates = Vec::new();
    for value in values {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            _ => {
                faults.push(format!("condition key `{key}` has a value that is no text, number or boolean"));
                continue;
            }
        };
        let fits = match operator {
            Operator::Bool | Operator::Null => matches!(text.to_ascii_lowercase().as_str(), "true" | "false"),
            Operator::Numeric(_) => text.contains("${") || number(&text).is_some(),
            Operator::Date(_) => text.contains("${") || date(&text).is_some(),
            Operator::Ip => network(&text).is_some(),
            Operator::Arn => text.contains("${") || text.splitn(6, ':').count() == 6,
            Operator::Equals | Operator::EqualsIgnoreCase | Operator::Like => true,
        };
        if !fits {
            faults.push(format!("condition key `{key}`: `{text}` does not suit its operator"));
            continue;
        }
        match Template::parse(&text) {
            Ok(template) => {
                faults.extend(
                    template.keys().filter(|key| !known_key(key)).map(|key| format!("unknown variable `{key}`")),
                );
                templates.push(template);
            }
            Err(fault) => faults.push(fault),
        }
    }
    templates
}

impl Test {
    /// Whether this test holds in the context.
    pub(super) fn holds(&self, context: &Context) -> bool {
        let given = context.values(&self.key);
        if self.operator == Operator::Null {
            return self
                .values
                .iter()
                .any(|value| self.fits(value, if given.is_none() { "true" } else { "false" }, context));
        }
        let Some(given) = given else {
            return match self.quantifier {
                Quantifier::ForAll => true,
                Quantifier::ForAny => self.if_exists,
                Quantifier::None => self.if_exists || self.negated,
            };
        };
        match self.quantifier {
            Quantifier::ForAll => given.iter().all(|one| self.one(one, context)),
            Quantifier::ForAny => given.iter().any(|one| self.one(one, context)),
            Quantifier::None if self.negated => given.iter().all(|one| self.one(one, context)),
            Quantifier::None => given.iter().any(|one| self.one(one, context)),
        }
    }

    fn one(&self, given: &str, context: &Context) -> bool {
        // A variable without a value makes the whole statement not match, also under a negated operator.
        if self.values.iter().any(|value| value.resolve(context, false).is_none()) {
            return false;
        }
        self.negated != self.values.iter().any(|value| self.fits(value, given, context))
    }

    fn fits(&self, wanted: &Template, given: &str, context: &Context) -> bool {
        let wildcards = matches!(self.operator, Operator::Like | Operator::Arn);
        let Some(tokens) = wanted.resolve(context, wildcards) else { return false };
        match self.operator {
            Operator::Equals | Operator::Like => pattern::matches(&tokens, given),
            Operator::Arn => pattern::arn_matches(&tokens, given),
            Operator::EqualsIgnoreCase | Operator::Bool | Operator::Null => text(&tokens).eq_ignore_ascii_case(given),
            Operator::Numeric(order) => {
                matches!((number(given), number(&text(&tokens))), (Some(given), Some(wanted)) if order.holds(&given, &wanted))
            }
            Operator::Date(order) => {
                matches!((date(given), date(&text(&tokens))), (Some(given), Some(wanted)) if order.holds(&given, &wanted))
            }
            Operator::Ip => {
                matches!((given.parse(), network(&text(&tokens))), (Ok(given), Some((base, bits))) if within(given, base, bits))
            }
        }
    }
}

fn text(tokens: &[Token]) -> String {
    tokens
        .iter()
        .map(|token| match token {
            Token::One => '?',
            Token::Any => '*',
            Token::Literal(letter) => *letter,
        })
        .collect()
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite())
}

fn date(text: &str) -> Option<i128> {
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(i128::from(seconds) * 1_000_000_000);
    }
    if let Ok(moment) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(moment.unix_timestamp_nanos());
    }
    let day = Date::parse(text, format_description!("[year]-[month]-[day]")).ok()?;
    Some(day.midnight().assume_utc().unix_timestamp_nanos())
}

fn network(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        None => (text.parse::<IpAddr>().ok()?, None),
        Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits.parse::<u8>().ok()?)),
    };
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some((address, bits))
}

fn within(given: IpAddr, base: IpAddr, bits: u8) -> bool {
    let (given, base, width) = match (given, base) {
        (IpAddr::V4(given), IpAddr::V4(base)) => (u128::from(u32::from(given)), u128::from(u32::from(base)), 32),
        (IpAddr::V6(given), IpAddr::V6(base)) => (u128::from(given), u128::from(base), 128),
        _ => return false,
    };
    let shift = u32::from(width - bits);
    given.checked_shr(shift).unwrap_or(0) == base.checked_shr(shift).unwrap_or(0)
}

/// The condition keys that this stack supplies or that may be left absent knowingly. A misspelt key is a fault: in AWS
/// it would be a condition that silently never (or always) holds.
fn known_key(key: &str) -> bool {
    const KEYS: &[&str] = &[
        "aws:currenttime",
        "aws:epochtime",
        "aws:principalaccount",
        "aws:principalarn",
        "aws:principalisawsservice",
        "aws:principaltype",
        "aws:requestedregion",
        "aws:securetransport",
        "aws:sourceaccount",
        "aws:sourcearn",
        "aws:sourceip",
        "aws:sourcevpc",
        "aws:sourcevpce",
        "aws:tagkeys",
        "aws:tokenissuetime",
        "aws:userid",
        "aws:viaawsservice",
        "ec2:vpc",
        "kms:calleraccount",
        "kms:customermasterkeyspec",
        "kms:customermasterkeyusage",
        "kms:datakeypairspec",
        "kms:encryptionalgorithm",
        "kms:encryptioncontextkeys",
        "kms:grantisforawsresource",
        "kms:keyorigin",
        "kms:keyspec",
        "kms:keyusage",
        "kms:messagetype",
        "kms:multiregion",
        "kms:reencryptonsamekey",
        "kms:requestalias",
        "kms:resourcealiases",
        "kms:schedulekeydeletionpendingwindowindays",
        "kms:signingalgorithm",
        "kms:viaservice",
        "lambda:functionarn",
        "lambda:sourcefunctionarn",
        "s3:authtype",
        "s3:delimiter",
        "s3:if-match",
        "s3:if-none-match",
        "s3:max-keys",
        "s3:objectcreationoperation",
        "s3:prefix",
        "s3:resourceaccount",
        "s3:signatureage",
        "s3:signatureversion",
        "s3:tlsversion",
        "s3:versionid",
        "s3:x-amz-acl",
        "s3:x-amz-content-sha256",
        "s3:x-amz-copy-source",
        "s3:x-amz-metadata-directive",
        "s3:x-amz-server-side-encryption",
        "s3:x-amz-server-side-encryption-aws-kms-key-id",
        "s3:x-amz-server-side-encryption-customer-algorithm",
        "s3:x-amz-storage-class",
        "ssm:overwrite",
        "ssm:recursive",
        "sts:externalid",
        "sts:rolesessionname",
        "sts:sourceidentity",
        "sts:transitivetagkeys",
    ];
    const FAMILIES: &[&str] = &[
        "aws:principaltag/",
        "aws:requesttag/",
        "aws:resourcetag/",
        "kms:encryptioncontext:",
        "s3:existingobjecttag/",
    ];
    let key = key.to_ascii_lowercase();
    KEYS.contains(&key.as_str())
        || FAMILIES.iter().any(|family| key.strip_prefix(family).is_some_and(|rest| !rest.is_empty()))
}
