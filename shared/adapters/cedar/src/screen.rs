//! What of a policy's conditions can be told from the question alone.
//!
//! The engine takes microseconds for every policy that it is asked about, and most policies are about something that the question is
//! not: another country, another network, another client. Such a policy is left out, as one is whose head names another route.
//! Nothing else is decided here. A policy is left out only where its conditions come to `false` without an error, in the order in which
//! the engine evaluates them; where that is true, or would be an error, or is not understood, the engine is asked.

use std::net::IpAddr;

use serde_json::Value;

use crate::members::{Member, Named, Seen, Sight, asked_for, place};

/// How deep a condition is followed.
const DEEP: u8 = 16;

/// The conditions of a policy, as far as they are understood.
pub(crate) struct Screen(Test);

/// A boolean expression.
enum Test {
    /// The conjunction, from the left to the right.
    All(Vec<Test>),
    /// The disjunction, from the left to the right.
    Any(Vec<Test>),
    Not(Box<Test>),
    Is(bool),
    Flag(Member),
    Has(Named),
    Text(Member, Box<str>),
    Compare(Number, fn(&i64, &i64) -> bool, Number),
    OneOf(Member, Vec<Box<str>>),
    Contains {
        set: Member,
        all: bool,
        texts: Vec<Box<str>>,
    },
    Within(Member, Block),
    /// What is not understood.
    Opaque,
}

/// A numeric expression.
enum Number {
    Is(i64),
    Member(Member),
    Sum(Box<Number>, fn(i64, i64) -> Option<i64>, Box<Number>),
}

/// Addresses by their first bits.
struct Block {
    address: IpAddr,
    bits: u32,
}

impl Screen {
    /// Of a policy as JSON; `None` where nothing of it could be told.
    pub(crate) fn of(policy: &Value) -> Option<Self> {
        let conditions = policy.get("conditions").and_then(Value::as_array)?;
        let tests = conditions.iter().map(|condition| {
            let test = condition.get("body").map_or(Test::Opaque, |body| test(body, DEEP));
            match condition.get("kind").and_then(Value::as_str) {
                Some("when") => test,
                Some("unless") => test.not(),
                _ => Test::Opaque,
            }
        });
        match Test::all(tests.collect()) {
            Test::Opaque | Test::Is(true) => None,
            test => Some(Self(test)),
        }
    }

    /// Whether the policy cannot hold and cannot fail either.
    pub(crate) fn rules_out(&self, sight: &Sight<'_>) -> bool {
        self.0.told(sight) == Some(false)
    }
}

impl Test {
    /// What comes after something that is not understood is of no use: that might fail.
    fn all(mut tests: Vec<Self>) -> Self {
        if let Some(at) = tests.iter().position(|test| matches!(test, Self::Opaque)) {
            tests.truncate(at + 1);
        }
        match tests.first() {
            None => Self::Is(true),
            Some(Self::Opaque) => Self::Opaque,
            Some(_) => Self::All(tests),
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Opaque => Self::Opaque,
            test => Self::Not(Box::new(test)),
        }
    }

    /// What the engine would come to, or `None`: that it would fail, or that nobody knows.
    fn told(&self, sight: &Sight<'_>) -> Option<bool> {
        match self {
            Self::All(tests) => decided(tests, sight, false),
            Self::Any(tests) => decided(tests, sight, true),
            Self::Not(test) => test.told(sight).map(|told| !told),
            Self::Is(told) => Some(*told),
            Self::Flag(member) => match sight.see(*member) {
                Seen::Flag(told) => Some(told),
                _ => None,
            },
            Self::Has(Named::Record(record)) => Some(sight.has(*record)),
            Self::Has(Named::Member(member)) => match sight.see(*member) {
                Seen::Nowhere => None,
                Seen::Absent => Some(false),
                _ => Some(true),
            },
            Self::Text(member, text) => match sight.see(*member) {
                Seen::Text(seen) => Some(*seen == **text),
                _ => None,
            },
            Self::OneOf(member, texts) => match sight.see(*member) {
                Seen::Text(seen) => Some(texts.iter().any(|text| **text == *seen)),
                _ => None,
            },
            Self::Compare(left, compare, right) => Some(compare(&left.told(sight)?, &right.told(sight)?)),
            Self::Contains { set, all, texts } => match sight.see(*set) {
                Seen::Texts(seen) => {
                    let mut there = texts.iter().map(|text| seen.contains(&&**text));
                    Some(if *all { there.all(|there| there) } else { there.any(|there| there) })
                }
                _ => None,
            },
            Self::Within(member, block) => match sight.see(*member) {
                Seen::Address(address) => Some(block.holds(address)),
                _ => None,
            },
            Self::Opaque => None,
        }
    }
}

/// Goes from the left to the right until one comes to `end`, which it all comes to then; what is not known ends it as well.
fn decided(tests: &[Test], sight: &Sight<'_>, end: bool) -> Option<bool> {
    for test in tests {
        if test.told(sight)? == end {
            return Some(end);
        }
    }
    Some(!end)
}

impl Number {
    fn told(&self, sight: &Sight<'_>) -> Option<i64> {
        match self {
            Self::Is(number) => Some(*number),
            Self::Member(member) => match sight.see(*member) {
                Seen::Number(number) => Some(number),
                _ => None,
            },
            // What does not fit fails.
            Self::Sum(left, operation, right) => operation(left.told(sight)?, right.told(sight)?),
        }
    }
}

impl Block {
    /// `192.0.2.0/24` and the like; `None` where anything about it is unusual.
    fn of(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        if address.contains('.') && address.contains(':') {
            return None;
        }
        let address: IpAddr = address.parse().ok()?;
        let most: u32 = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            // In its plain spelling: no sign, no further zero.
            Some(text) => text.parse().ok().filter(|bits: &u32| *bits <= most && bits.to_string() == text)?,
        };
        Some(Self { address, bits })
    }

    fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                own.to_bits() & mask == other.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// The operator of an expression and what it is applied to.
fn applied(value: &Value) -> Option<(&str, &Value)> {
    let members = value.as_object().filter(|members| members.len() == 1)?;
    members.iter().next().map(|(operator, operands)| (operator.as_str(), operands))
}

fn two(operands: &Value) -> Option<(&Value, &Value)> {
    operands.get("left").zip(operands.get("right"))
}

fn member(value: &Value) -> Option<Member> {
    match place(value)? {
        Named::Member(member) => Some(member),
        Named::Record(_) => None,
    }
}

fn test(value: &Value, deep: u8) -> Test {
    let Some(deep) = deep.checked_sub(1) else { return Test::Opaque };
    if let Some(member) = member(value) {
        return Test::Flag(member);
    }
    if let Some(asked) = asked_for(value) {
        return Test::all(asked.into_iter().map(Test::Has).collect());
    }
    let Some((operator, operands)) = applied(value) else { return Test::Opaque };
    let understood = match operator {
        "&&" => Some(Test::all(chain(value, "&&").into_iter().map(|one| test(one, deep)).collect())),
        "||" => Some(Test::Any(chain(value, "||").into_iter().map(|one| test(one, deep)).collect())),
        "!" => operands.get("arg").map(|one| test(one, deep).not()),
        "Value" => operands.as_bool().map(Test::Is),
        "==" => equal(operands, deep),
        "!=" => equal(operands, deep).map(Test::not),
        "<" => compare(operands, i64::lt, deep),
        "<=" => compare(operands, i64::le, deep),
        ">" => compare(operands, i64::gt, deep),
        ">=" => compare(operands, i64::ge, deep),
        "contains" | "containsAll" | "containsAny" => contains(operator, operands),
        "isInRange" => in_range(operands),
        _ => None,
    };
    understood.unwrap_or(Test::Opaque)
}

/// What is joined by an operator that groups to the left, from the left to the right.
fn chain<'a>(mut value: &'a Value, operator: &str) -> Vec<&'a Value> {
    let mut joined = Vec::new();
    while let Some((left, right)) = applied(value).filter(|(own, _)| *own == operator).and_then(|(_, both)| two(both)) {
        joined.push(right);
        value = left;
    }
    joined.push(value);
    joined.reverse();
    joined
}

/// A text or a flag that is compared with a literal of its own kind, or numbers.
fn equal(operands: &Value, deep: u8) -> Option<Test> {
    let (left, right) = two(operands)?;
    let literal = match (member(left), member(right)) {
        (Some(member), None) => Some((member, right)),
        (None, Some(member)) => Some((member, left)),
        _ => None,
    };
    match literal.and_then(|(member, literal)| Some((member, literal.get("Value")?))) {
        Some((member, Value::String(text))) => Some(Test::Text(member, text.as_str().into())),
        Some((member, Value::Bool(true))) => Some(Test::Flag(member)),
        Some((member, Value::Bool(false))) => Some(Test::Flag(member).not()),
        _ => compare(operands, i64::eq, deep),
    }
}

fn compare(operands: &Value, compare: fn(&i64, &i64) -> bool, deep: u8) -> Option<Test> {
    let (left, right) = two(operands)?;
    Some(Test::Compare(number(left, deep)?, compare, number(right, deep)?))
}

fn number(value: &Value, deep: u8) -> Option<Number> {
    let deep = deep.checked_sub(1)?;
    if let Some(member) = member(value) {
        return Some(Number::Member(member));
    }
    let (operator, operands) = applied(value)?;
    let operation = match operator {
        "Value" => return operands.as_i64().map(Number::Is),
        "+" => i64::checked_add,
        "-" => i64::checked_sub,
        _ => return None,
    };
    let (left, right) = two(operands)?;
    Some(Number::Sum(Box::new(number(left, deep)?), operation, Box::new(number(right, deep)?)))
}

fn contains(operator: &str, operands: &Value) -> Option<Test> {
    let (left, right) = two(operands)?;
    let text = |value: &Value| value.get("Value").and_then(Value::as_str).map(Box::from);
    let texts = |value: &Value| value.get("Set")?.as_array()?.iter().map(text).collect::<Option<Vec<_>>>();
    match (operator, member(left)) {
        ("contains", None) => Some(Test::OneOf(member(right)?, texts(left)?)),
        ("contains", Some(set)) => Some(Test::Contains { set, all: true, texts: vec![text(right)?] }),
        (_, Some(set)) => Some(Test::Contains { set, all: operator == "containsAll", texts: texts(right)? }),
        (_, None) => None,
    }
}

fn in_range(operands: &Value) -> Option<Test> {
    let [address, block] = operands.as_array()?.as_slice() else { return None };
    let [block] = block.get("ip")?.as_array()?.as_slice() else { return None };
    Some(Test::Within(member(address)?, Block::of(block.get("Value")?.as_str()?)?))
}

#[cfg(test)]
mod tests {
    use shared::policy::{Ask, Invoke, Net, Principal, What};

    use super::*;
    use crate::members::looks;

    fn ask(ip: [u8; 4], country: Option<&str>) -> Ask {
        let invoke = Invoke {
            action: "files:read".into(),
            method: "GET".into(),
            path: "/files/{id}".into(),
            iss: "https://gate.example".into(),
            client_id: "c".into(),
            scopes: vec!["files:read".into(), "fields:decrypt:users.email".into()],
            age: 10,
            bound: false,
            details: true,
            sid: None,
        };
        let principal =
            Principal { kind: shared::jwt::Kind::Machine, id: "p".into(), tenant: "t".into(), groups: Vec::new() };
        let net = Some(Net { ip: ip.into(), country: country.map(Into::into) });
        Ask { principal, now: 1_800_000_000, net, device: None, what: What::Invoke(invoke) }
    }

    fn json(conditions: &str) -> Value {
        let text = format!("forbid (principal, action, resource) {conditions};");
        cedar_policy::Policy::parse(None, text).unwrap().to_json().unwrap()
    }

    fn rules_out(conditions: &str) -> bool {
        let ask = ask([198, 51, 100, 7], Some("PT"));
        Screen::of(&json(conditions)).is_some_and(|screen| screen.rules_out(&Sight::of(&ask)))
    }

    #[test]
    fn what_cannot_hold_is_ruled_out() {
        for condition in [
            "false",
            "context.token.bound",
            "!context.token.details",
            "context.token.details == false",
            "true == context.token.bound",
            r#"context.token.client_id == "d""#,
            r#""c" != context.token.client_id"#,
            r#"["a", "b"].contains(context.token.client_id)"#,
            r#"context.net.country == "XY""#,
            "context.token.age > 10",
            "context.token.age + 1 <= 10",
            "context.now - 1800000000 != 0",
            "context.token.age == 11",
            "context has device",
            "context has device.managed",
            "context has device && context.device.managed",
            r#"context.token has sid && context.token.sid like "*""#,
            "context has grant",
            r#"context.token.scopes.contains("fields:decrypt")"#,
            r#"context.token.operations.containsAny(["app", "fields:index"])"#,
            r#"context.token.operations.containsAll(["fields:decrypt", "app"])"#,
            r#"context.net.ip.isInRange(ip("198.51.100.8/29"))"#,
            r#"context.net.ip.isInRange(ip("::/0"))"#,
            "context.token.bound || context.token.age > 10",
            "(context.token.bound || context.token.details) && context.token.bound",
            // An error that is not come to is none.
            "context.token.bound && context.now * 9223372036854775807 > 0",
            "!(context.token.details || context.device.managed)",
        ] {
            assert!(rules_out(&format!("when {{ {condition} }}")), "{condition}");
        }
        for conditions in [
            "unless { context.token.details }",
            r#"when { resource.method == "GET" || context.token.details } when { context.token.bound }"#,
            "unless { context.token.bound } when { context.token.bound }",
        ] {
            let first_is_known = !conditions.contains("resource");
            assert_eq!(rules_out(conditions), first_is_known, "{conditions}");
        }
    }

    #[test]
    fn what_holds_fails_or_is_not_understood_is_the_engines() {
        for condition in [
            "true",
            "context.token.details",
            "!context.token.bound",
            r#"context.token.client_id == "c""#,
            r#"context.net.ip.isInRange(ip("198.51.100.0/29"))"#,
            r#"context.net.ip.isInRange(ip("0.0.0.0/0"))"#,
            r#"context.token.operations.containsAll(["fields:decrypt", "files:read"])"#,
            "!(context has device)",
            // These fail, and what fails denies.
            "context.device.managed",
            "context.device has managed",
            r#"context.token.sid == "s""#,
            r#"context.token.age == "10""#,
            "context.token.age + 9223372036854775800 > 0",
            "context.token.age - 9223372036854775800 - 20 > 0",
            "context.device.managed && false",
            "context.token.age + 9223372036854775800 > 0 && context.token.bound",
            "context.token.sid == \"s\" || context.token.bound",
            "!(context.device.managed && context.token.bound)",
            "context.token.bound || context.device.managed",
            r#"context.token.client_id > 7"#,
            r#"context.net.ip.isInRange(ip("198.51.100.8/33"))"#,
            r#"context.net.ip.isInRange(ip("198.51.100.8/+29"))"#,
            r#"context.net.ip.isInRange(ip("198.51.100.8/029"))"#,
            r#"context.net.ip.isInRange(ip("::ffff:10.0.0.1"))"#,
            r#"context.net.ip.isInRange(ip("10.0.0.0/8/8"))"#,
            r#"context.net.ip.isInRange(ip(""))"#,
            // These are nothing that is understood here.
            r#"context.token.client_id like "d*""#,
            r#"principal == Portcullis::User::"u""#,
            "if context.token.bound then true else false",
            "context.token.scopes.isEmpty()",
            "-context.token.age > 0",
            "context.token.age * 2 == 0",
            "context.nothing",
            "context has nothing",
            r#"context.token.nothing == "n""#,
            r#"context["token"] == {"bound": true}"#,
            "context.token.bound == context.token.details",
            r#"{"Var": "context"}.token.bound"#,
            r#"["c", 1].contains(context.token.client_id) && false"#,
        ] {
            assert!(!rules_out(&format!("when {{ {condition} }}")), "{condition}");
        }
    }

    #[test]
    fn blocks_are_compared_bit_by_bit() {
        let told = |ip: &str, block: &str| Block::of(block).unwrap().holds(ip.parse().unwrap());
        for (ip, block, within) in [
            ("192.0.2.0", "192.0.2.1/31", true),
            ("192.0.2.2", "192.0.2.1/31", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("255.255.255.255", "0.0.0.0/0", true),
            ("128.0.0.0", "0.0.0.0/1", false),
            ("2001:db8::1", "2001:db8:ffff::/32", true),
            ("2001:db9::1", "2001:db8::/32", false),
            ("::1", "::/127", true),
            ("::1", "::1/128", true),
            ("::2", "::1", false),
            ("10.0.0.1", "::/0", false),
            ("::1", "0.0.0.0/0", false),
        ] {
            assert_eq!(told(ip, block), within, "{ip} in {block}");
        }
    }

    #[test]
    fn a_policy_as_long_as_can_be_is_looked_into() {
        for operator in ["||", "&&"] {
            let long = vec!["context.token.bound"; 700].join(operator);
            let json = json(&format!("when {{ {long} }}"));
            let ask = ask([10, 0, 0, 1], None);
            assert!(Screen::of(&json).unwrap().rules_out(&Sight::of(&ask)), "{operator}");
            assert!(!looks(&json).entities);
        }
    }
}
