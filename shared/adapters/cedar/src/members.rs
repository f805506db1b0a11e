//! The members of the context: what each is in a question, how a policy names it, and what of them it looks at.
//!
//! One list for all three, so that what is judged without the engine is what the engine would see.

use std::net::IpAddr;

use cedar_policy::{Context, RestrictedExpression};
use serde_json::Value;
use shared::device::Device;
use shared::policy::{Ask, Net, Reads, What, os_version};

/// The records of the context, itself the first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Context,
    Net,
    Device,
    Token,
}

/// A member of a record that is none itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Member {
    Now,
    Grant,
    Issuer,
    MintClient,
    MintScopes,
    MintOperations,
    Ttl,
    MintBound,
    MintDetails,
    Ip,
    Country,
    DeviceId,
    Managed,
    Os,
    OsVersion,
    DiskEncrypted,
    Firewall,
    Source,
    CheckedAt,
    Iss,
    Client,
    Scopes,
    Operations,
    Age,
    Bound,
    Details,
    Sid,
}

use Member as M;
use Record as R;

/// Every member, in the order of its bit, with its record and its name.
const MEMBERS: [(Member, Record, &str); 27] = [
    (M::Now, R::Context, "now"),
    (M::Grant, R::Context, "grant"),
    (M::Issuer, R::Context, "issuer"),
    (M::MintClient, R::Context, "client_id"),
    (M::MintScopes, R::Context, "scopes"),
    (M::MintOperations, R::Context, "operations"),
    (M::Ttl, R::Context, "ttl"),
    (M::MintBound, R::Context, "bound"),
    (M::MintDetails, R::Context, "details"),
    (M::Ip, R::Net, "ip"),
    (M::Country, R::Net, "country"),
    (M::DeviceId, R::Device, "id"),
    (M::Managed, R::Device, "managed"),
    (M::Os, R::Device, "os"),
    (M::OsVersion, R::Device, "os_version"),
    (M::DiskEncrypted, R::Device, "disk_encrypted"),
    (M::Firewall, R::Device, "firewall"),
    (M::Source, R::Device, "source"),
    (M::CheckedAt, R::Device, "checked_at"),
    (M::Iss, R::Token, "iss"),
    (M::Client, R::Token, "client_id"),
    (M::Scopes, R::Token, "scopes"),
    (M::Operations, R::Token, "operations"),
    (M::Age, R::Token, "age"),
    (M::Bound, R::Token, "bound"),
    (M::Details, R::Token, "details"),
    (M::Sid, R::Token, "sid"),
];
/// The records within the context, with their names.
const RECORDS: [(Record, &str); 3] = [(R::Net, "net"), (R::Device, "device"), (R::Token, "token")];

/// What something is called in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Named {
    Record(Record),
    Member(Member),
}

/// What goes by this name in a record.
pub(crate) fn named(record: Record, name: &str) -> Option<Named> {
    let within = RECORDS.iter().filter(|_| record == R::Context).find(|(_, called)| *called == name);
    let member = || MEMBERS.iter().find(|(_, of, called)| *of == record && *called == name);
    match within {
        Some((inner, _)) => Some(Named::Record(*inner)),
        None => member().map(|(member, ..)| Named::Member(*member)),
    }
}

/// The value of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen<'a> {
    Flag(bool),
    Number(i64),
    Text(&'a str),
    Texts(&'a [&'a str]),
    Address(IpAddr),
    /// The record is there and has no such member.
    Absent,
    /// The record itself is not there.
    Nowhere,
}

/// A question as its context shows it.
pub(crate) struct Sight<'a> {
    ask: &'a Ask,
    scopes: Vec<&'a str>,
    operations: Vec<&'a str>,
}

impl<'a> Sight<'a> {
    pub(crate) fn of(ask: &'a Ask) -> Self {
        let scopes = match &ask.what {
            What::Invoke(invoke) => &invoke.scopes,
            What::Mint(mint) => &mint.scopes,
        };
        Self { ask, scopes: scopes.iter().map(String::as_str).collect(), operations: ask.operations() }
    }

    /// Whether the record is there.
    pub(crate) fn has(&self, record: Record) -> bool {
        match record {
            R::Context => true,
            R::Net => self.ask.net.is_some(),
            R::Device => self.ask.device.is_some(),
            R::Token => matches!(self.ask.what, What::Invoke(_)),
        }
    }

    pub(crate) fn see(&self, member: Member) -> Seen<'_> {
        match member {
            M::Now => Seen::Number(self.ask.now),
            M::Ip | M::Country => self.ask.net.as_ref().map_or(Seen::Nowhere, |net| of_net(net, member)),
            M::DeviceId
            | M::Managed
            | M::Os
            | M::OsVersion
            | M::DiskEncrypted
            | M::Firewall
            | M::Source
            | M::CheckedAt => self.ask.device.as_ref().map_or(Seen::Nowhere, |device| of_device(device, member)),
            _ => self.of_deed(member),
        }
    }

    /// A member of the context of a token to be issued, or of the token that calls a route.
    fn of_deed(&self, member: Member) -> Seen<'_> {
        match (&self.ask.what, member) {
            (What::Mint(mint), M::Grant) => Seen::Text(&mint.grant),
            (What::Mint(mint), M::Issuer) => Seen::Text(&mint.issuer),
            (What::Mint(mint), M::MintClient) => Seen::Text(&mint.client_id),
            (What::Mint(_), M::MintScopes) | (What::Invoke(_), M::Scopes) => Seen::Texts(&self.scopes),
            (What::Mint(_), M::MintOperations) | (What::Invoke(_), M::Operations) => Seen::Texts(&self.operations),
            (What::Mint(mint), M::Ttl) => Seen::Number(mint.ttl),
            (What::Mint(mint), M::MintBound) => Seen::Flag(mint.bound),
            (What::Mint(mint), M::MintDetails) => Seen::Flag(mint.details),
            (What::Invoke(invoke), M::Iss) => Seen::Text(&invoke.iss),
            (What::Invoke(invoke), M::Client) => Seen::Text(&invoke.client_id),
            (What::Invoke(invoke), M::Age) => Seen::Number(invoke.age),
            (What::Invoke(invoke), M::Bound) => Seen::Flag(invoke.bound),
            (What::Invoke(invoke), M::Details) => Seen::Flag(invoke.details),
            (What::Invoke(invoke), M::Sid) => invoke.sid.as_deref().map_or(Seen::Absent, Seen::Text),
            // A token to be issued has its members in the context itself.
            (What::Mint(_), _) => Seen::Nowhere,
            (What::Invoke(_), _) => Seen::Absent,
        }
    }

    /// The context with these members, as far as they are there; what is absent in the question is absent here, never a default.
    pub(crate) fn context(&self, wanted: Members) -> Option<Context> {
        let mut pairs = self.pairs(R::Context, wanted);
        for (record, name) in &RECORDS {
            if wanted.has(Named::Record(*record)) && self.has(*record) {
                let inner = RestrictedExpression::new_record(self.pairs(*record, wanted)).ok()?;
                pairs.push(((*name).to_owned(), inner));
            }
        }
        Context::from_pairs(pairs).ok()
    }

    fn pairs(&self, record: Record, wanted: Members) -> Vec<(String, RestrictedExpression)> {
        let those = (0..u32::BITS).zip(&MEMBERS).filter(|(at, (_, of, _))| *of == record && wanted.0 & 1 << at != 0);
        those.filter_map(|(_, (member, _, name))| Some(((*name).to_owned(), self.see(*member).expression()?))).collect()
    }
}

impl Seen<'_> {
    fn expression(self) -> Option<RestrictedExpression> {
        let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
        Some(match self {
            Self::Flag(value) => RestrictedExpression::new_bool(value),
            Self::Number(value) => RestrictedExpression::new_long(value),
            Self::Text(value) => text(value),
            Self::Texts(values) => RestrictedExpression::new_set(values.iter().map(|value| text(value))),
            Self::Address(value) => RestrictedExpression::new_ip(value.to_string()),
            Self::Absent | Self::Nowhere => return None,
        })
    }
}

fn of_net(net: &Net, member: Member) -> Seen<'_> {
    match member {
        M::Ip => Seen::Address(net.ip.to_canonical()),
        _ => net.country.as_deref().map_or(Seen::Absent, Seen::Text),
    }
}

fn of_device(device: &Device, member: Member) -> Seen<'_> {
    let flag = |known: Option<bool>| known.map_or(Seen::Absent, Seen::Flag);
    match member {
        M::DeviceId => Seen::Text(&device.id),
        M::Managed => flag(device.managed),
        M::Os => device.os.as_deref().map_or(Seen::Absent, Seen::Text),
        M::OsVersion => device.os_version.as_deref().and_then(os_version).map_or(Seen::Absent, Seen::Number),
        M::DiskEncrypted => flag(device.disk_encrypted),
        M::Firewall => flag(device.firewall),
        M::Source => Seen::Text(&device.source),
        _ => Seen::Number(device.checked_at.seconds()),
    }
}

/// Some of the members and records, a bit for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Members(u32);

impl Members {
    /// All there are.
    pub(crate) const ALL: Self = Self(u32::MAX);

    /// One member, and the record that it is in; of a record only whether it is there.
    pub(crate) fn one(named: Named) -> Self {
        match named {
            Named::Record(R::Context) => Self::ALL,
            Named::Record(record) => Self(bits(|one, _| one == Named::Record(record))),
            Named::Member(member) => {
                let within = MEMBERS.iter().find(|(one, ..)| *one == member).map(|(_, record, _)| *record);
                Self(bits(|one, _| one == Named::Member(member) || within.map(Named::Record) == Some(one)))
            }
        }
    }

    /// A record with all that is in it.
    fn whole(record: Record) -> Self {
        match record {
            R::Context => Self::ALL,
            _ => Self(bits(|one, within| one == Named::Record(record) || within == record)),
        }
    }

    fn has(self, named: Named) -> bool {
        self.0 & bits(|one, _| one == named) != 0
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What may be something else a moment later.
    pub(crate) fn reads(self) -> Reads {
        Reads {
            time: self.has(Named::Member(M::Now)) || self.has(Named::Member(M::Age)),
            net: self.has(Named::Record(R::Net)),
            device: self.has(Named::Record(R::Device)),
        }
    }
}

/// The bits of what is asked for; each thing comes with the record that it is in.
fn bits(wanted: impl Fn(Named, Record) -> bool) -> u32 {
    let members = MEMBERS.iter().map(|(member, record, _)| (Named::Member(*member), *record));
    let records = RECORDS.iter().map(|(record, _)| (Named::Record(*record), R::Context));
    let all = (0..u32::BITS).zip(members.chain(records));
    all.filter(|(_, (named, within))| wanted(*named, *within)).fold(0, |sum, (at, _)| sum | 1 << at)
}

/// What an expression names, where it is the context, a record of it, or a member.
pub(crate) fn place(value: &Value) -> Option<Named> {
    if value.get("Var").and_then(Value::as_str) == Some("context") {
        return Some(Named::Record(R::Context));
    }
    let members = value.as_object().filter(|members| members.len() == 1)?.get(".")?;
    let (left, name) = members.get("left").zip(members.get("attr").and_then(Value::as_str))?;
    match place(left)? {
        Named::Record(record) => named(record, name),
        Named::Member(_) => None,
    }
}

/// What `left has a.b` asks for, one after the other, where it is all within the context.
pub(crate) fn asked_for(value: &Value) -> Option<Vec<Named>> {
    let members = value.as_object().filter(|members| members.len() == 1)?.get("has")?;
    let mut at = place(members.get("left")?)?;
    let names = match members.get("attr")? {
        Value::Array(names) => names.iter().collect(),
        one => vec![one],
    };
    let mut asked = Vec::new();
    for name in names {
        let Named::Record(record) = at else { return None };
        at = named(record, name.as_str()?)?;
        asked.push(at);
    }
    Some(asked)
}

/// What an expression could look at in the context, and whether at an entity's own attributes or parents. What is not understood could
/// look at everything.
pub(crate) fn looks(value: &Value) -> Looks {
    let mut looks = Looks::default();
    // A policy can be nested as deep as it is long.
    let mut open = vec![value];
    while let Some(value) = open.pop() {
        looks.entities |= names_entity(value);
        if let Some(asked) = asked_for(value) {
            looks.members = asked.into_iter().fold(looks.members, |sum, one| sum.or(Members::one(one)));
            continue;
        }
        match (place(value), value) {
            (Some(Named::Record(record)), _) => looks.members = looks.members.or(Members::whole(record)),
            (Some(member), _) => looks.members = looks.members.or(Members::one(member)),
            (None, Value::Array(items)) => open.extend(items),
            (None, Value::Object(members)) => open.extend(members.values()),
            (None, _) => {}
        }
    }
    looks
}

/// Whether this is the principal, the resource, or an entity by its name, which could be one of them.
fn names_entity(value: &Value) -> bool {
    let variable = value.get("Var").and_then(Value::as_str);
    matches!(variable, Some("principal" | "resource")) || value.get("__entity").is_some()
}

/// What a policy looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Looks {
    /// Of the context.
    pub(crate) members: Members,
    /// Whether it could look at what the principal or the resource is or belongs to, beyond their names in the head.
    pub(crate) entities: bool,
}

impl Looks {
    /// At everything.
    pub(crate) const ALL: Self = Self { members: Members::ALL, entities: true };

    pub(crate) fn or(self, other: Self) -> Self {
        Self { members: self.members.or(other.members), entities: self.entities || other.entities }
    }
}
