//! Bodies: what comes in, strictly, and what goes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use shared::blind_index::{Bits, Normalisation, Partitions};
use shared::details::FieldAction;
use shared::esdk::Framing;
use shared::gate::Caller;
use shared::name::{Identifier, Tenant};
use shared::pc1::{self, Context, Row, Version};
use shared::problem::{Code, Problem};
use shared::secret::SecretString;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::config::Operation;
use crate::refusal::Refusal;
use crate::scope::Scope;

/// The most items of a batch.
pub(crate) const MAX_ITEMS: usize = 1_000;
/// The most bytes of a body.
pub(crate) const MAX_BODY: usize = 4 * 1024 * 1024;
/// The most characters of a `ref`.
const MAX_REFERENCE: usize = 64;

/// The body of a request. Its texts stay where they are in the body: a batch has thousands of them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
pub(crate) struct Batch<'a> {
    pub(crate) items: Vec<Item<'a>>,
    /// What for, where the deployment wants to know.
    pub(crate) purpose_of_use: Option<String>,
}

/// The payload of a direct invocation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, bound(deserialize = "'de: 'a"))]
pub(crate) struct Direct<'a> {
    #[serde(rename = "operation")]
    _operation: String,
    pub(crate) access_token: Token,
    pub(crate) items: Vec<Item<'a>>,
    pub(crate) purpose_of_use: Option<String>,
}

/// A token on its way to the gate.
pub(crate) struct Token(pub(crate) SecretString);

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::new(text)))
    }
}

/// Text of a body: as it stands there, or, where escapes stand in it, without them. Then it is wiped, for it may be anything.
pub(crate) enum Text<'a> {
    InBody(&'a str),
    Unescaped(Zeroizing<String>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::InBody(text) => text,
            Self::Unescaped(text) => text,
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text::InBody(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text::Unescaped(Zeroizing::new(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Any)
    }
}

/// One field, as sent. Its values are judged one by one, so that one wrong value fails one item.
pub(crate) struct Item<'a> {
    pub(crate) reference: Text<'a>,
    table: Text<'a>,
    column: Text<'a>,
    row: Option<Text<'a>>,
    version: Option<VersionText>,
    scope: Option<Text<'a>>,
    /// What few items have.
    more: Option<Box<More<'a>>>,
    /// The plaintext, the record or the value, base64url.
    pub(crate) content: Text<'a>,
    kind: Kind,
    /// Its column, once somebody has judged it.
    judged: Result<Arc<Column>, Refusal>,
    /// Whether its column demands a device that the caller is not on.
    barred: bool,
}

/// The members of an item that an index, a move, an export or an import has.
#[derive(Default)]
struct More<'a> {
    normalisation: Option<Text<'a>>,
    bits: Option<u64>,
    partitions: Option<u64>,
    to: Option<Destination<'a>>,
    allow_unshreddable: Option<bool>,
    frame_length: Option<u32>,
    context: Option<Pairs>,
}

/// What an item holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plaintext,
    Record,
    Value,
    Message,
}

impl Kind {
    const fn of(operation: Operation) -> Self {
        match operation {
            Operation::Encrypt => Self::Plaintext,
            Operation::Decrypt | Operation::Inspect | Operation::Rewrap | Operation::Export => Self::Record,
            Operation::Index => Self::Value,
            Operation::Import => Self::Message,
        }
    }
}

/// The column of a field, judged.
pub(crate) struct Column {
    pub(crate) table: Identifier,
    pub(crate) column: Identifier,
    /// The column's own scope.
    pub(crate) scope: Scope,
}

/// How a column is indexed, as the request says and judged. The application keeps to one for each column.
pub(crate) struct Definition {
    pub(crate) normalisation: Normalisation,
    pub(crate) bits: Bits,
    pub(crate) partitions: Partitions,
}

/// How a record leaves, judged.
pub(crate) struct Export {
    pub(crate) framing: Framing,
    pub(crate) allow_unshreddable: bool,
}

/// The place of a field, judged.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) column: Arc<Column>,
    pub(crate) row: Row,
    pub(crate) version: Option<Version>,
    /// The scope of the key to encrypt under, where it is not the column's own.
    other_scope: Option<Scope>,
}

impl Place {
    fn judge(
        column: Arc<Column>,
        row: Row,
        version: Option<&VersionText>,
        scope: Option<&str>,
    ) -> Result<Self, Refusal> {
        let version = judged_version(version)?;
        let other_scope = match scope {
            None => None,
            Some(text) if text == column.scope.as_str() => None,
            Some(text) => Some(Scope::subject(text).map_err(|_| Refusal::Malformed)?),
        };
        Ok(Self { column, row, version, other_scope })
    }

    /// What its record is bound to.
    pub(crate) fn context<'a>(&'a self, tenant: &'a Tenant) -> Context<'a> {
        let Column { table, column, .. } = &*self.column;
        Context { tenant, table, column, row: &self.row, version: self.version }
    }

    /// Whether the caller's token, where it is narrowed, is narrowed to this.
    pub(crate) fn admitted(&self, caller: &Caller, action: FieldAction) -> bool {
        let Column { table, column, .. } = &*self.column;
        caller.details.admit_field(action, table.as_str(), column.as_str(), self.row.as_str())
    }

    /// The scope of the key to encrypt under.
    pub(crate) fn scope(&self) -> &Scope {
        self.other_scope.as_ref().unwrap_or(&self.column.scope)
    }

    /// Takes the key of another scope, a subject's.
    pub(crate) fn put_under(&mut self, scope: Scope) {
        self.other_scope = Some(scope);
    }
}

/// The columns of a batch, each judged once: of a thousand items most have the same.
pub(crate) struct Columns<'a> {
    caller: &'a Caller,
    operation: &'static str,
    last: Option<Arc<Column>>,
    admitted: BTreeMap<String, Arc<Column>>,
}

impl<'a> Columns<'a> {
    /// None yet. What a column admits is the caller's right to `operation`.
    pub(crate) fn new(caller: &'a Caller, operation: Operation) -> Self {
        Self { caller, operation: operation.as_str(), last: None, admitted: BTreeMap::new() }
    }

    /// The column, if it is a name at all and the caller may touch it.
    fn judge(&mut self, table: &str, column: &str) -> Result<Arc<Column>, Refusal> {
        let same = |last: &&Arc<Column>| last.table.as_str() == table && last.column.as_str() == column;
        if let Some(last) = self.last.as_ref().filter(same) {
            return Ok(Arc::clone(last));
        }
        // Neither name can have a dot in it, and what is not a name is never among those that were admitted.
        let name = [table, ".", column].concat();
        let judged = match self.admitted.get(&name) {
            Some(admitted) => Arc::clone(admitted),
            None => {
                let parsed = |text: &str| Identifier::parse(text).map_err(|_| Refusal::Malformed);
                let (table, column) = (parsed(table)?, parsed(column)?);
                if !self.caller.scopes.allows_column(self.operation, table.as_str(), column.as_str()) {
                    return Err(Refusal::Forbidden);
                }
                let scope = Scope::column(&table, &column);
                let judged = Arc::new(Column { table, column, scope });
                self.admitted.insert(name, Arc::clone(&judged));
                judged
            }
        };
        self.last = Some(Arc::clone(&judged));
        Ok(judged)
    }

    /// The columns that the caller may touch, for the log. What it may not is counted among the refusals: it would be text of its choice.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        self.admitted.keys().cloned()
    }
}

impl Item<'_> {
    /// Judges the columns that it names. Before that it has none.
    pub(crate) fn judge_columns(&mut self, columns: &mut Columns<'_>) {
        self.judged = columns.judge(&self.table, &self.column);
        if let Some(to) = self.more.as_mut().and_then(|more| more.to.as_mut()) {
            to.judged = columns.judge(&to.table, &to.column);
        }
    }

    /// Judges everything but the content; the caller's right comes before any other fault of a value.
    pub(crate) fn place(&self) -> Result<Place, Refusal> {
        let column = self.column()?;
        if self.barred {
            return Err(Refusal::DeviceDemanded);
        }
        let row = self.row()?.ok_or(Refusal::Malformed)?;
        Place::judge(Arc::clone(column), row, self.version.as_ref(), self.scope.as_deref())
    }

    /// Bars the item where its plaintext would leave a column for a caller who is not `admitted` to that. What stays in its column goes
    /// nowhere.
    pub(crate) fn bar_unless(&mut self, operation: Operation, admitted: impl Fn(&str, &str) -> bool) {
        let stays = match (operation, self.to()) {
            (Operation::Decrypt | Operation::Export, _) => false,
            (Operation::Rewrap, Some(to)) => *to.table == *self.table && *to.column == *self.column,
            _ => true,
        };
        self.barred = !stays && !admitted(&self.table, &self.column);
    }

    /// Judges where the field goes; nothing where it stays.
    pub(crate) fn destination(&self) -> Result<Option<(Place, bool)>, Refusal> {
        let Some(to) = self.to() else { return Ok(None) };
        let column = Arc::clone(to.judged.as_ref().map_err(|refusal| *refusal)?);
        let row = Row::parse(&to.row).map_err(|_| Refusal::Malformed)?;
        let place = Place::judge(column, row, to.version.as_ref(), to.scope.as_deref())?;
        Ok(Some((place, to.scope.is_some())))
    }

    /// Judges the column of an operation that no row decides; a row or version beside it must still be one.
    pub(crate) fn anywhere_in(&self) -> Result<&Arc<Column>, Refusal> {
        let column = self.column()?;
        self.row()?;
        self.version()?;
        Ok(column)
    }

    /// Judges how the column is indexed. All bits are for columns whose values are unique, and those need no partitions.
    pub(crate) fn definition(&self) -> Result<Definition, Refusal> {
        let judged = || {
            let more = self.more.as_ref()?;
            let normalisation = Normalisation::parse(more.normalisation.as_deref()?).ok()?;
            let bits = Bits::parse(more.bits?).ok()?;
            let partitions = more.partitions.map_or(Ok(Partitions::ONE), Partitions::parse).ok()?;
            Some(Definition { normalisation, bits, partitions })
        };
        let sensible = |d: &Definition| d.bits != Bits::WHOLE || d.partitions == Partitions::ONE;
        judged().filter(sensible).ok_or(Refusal::Malformed)
    }

    /// Judges how the record is to leave: in frames of 256 bytes to 64 KiB, or with 0 in one block.
    pub(crate) fn export(&self) -> Result<Export, Refusal> {
        let more = self.more.as_deref();
        let framing = match more.and_then(|more| more.frame_length) {
            None => Framing::USUAL,
            Some(0) => Framing::Unframed,
            Some(length @ 256..=65_536) => Framing::Frames(length),
            Some(_) => return Err(Refusal::Malformed),
        };
        let allow_unshreddable = more.and_then(|more| more.allow_unshreddable).unwrap_or_default();
        Ok(Export { framing, allow_unshreddable })
    }

    /// What the message must say of itself, if the caller demands anything.
    pub(crate) fn expected_context(&self) -> &[(String, String)] {
        let context = self.more.as_ref().and_then(|more| more.context.as_ref());
        context.map_or(&[], |context| &context.0)
    }

    /// Whether the caller named the scope of the key to seal under.
    pub(crate) fn names_scope(&self) -> bool {
        self.scope.is_some()
    }

    fn to(&self) -> Option<&Destination<'_>> {
        self.more.as_ref()?.to.as_ref()
    }

    fn column(&self) -> Result<&Arc<Column>, Refusal> {
        let column = self.judged.as_ref().map_err(|refusal| *refusal)?;
        // As many bytes are never more characters.
        let short = self.reference.len() <= MAX_REFERENCE || self.reference.chars().count() <= MAX_REFERENCE;
        if short { Ok(column) } else { Err(Refusal::Malformed) }
    }

    fn row(&self) -> Result<Option<Row>, Refusal> {
        self.row.as_deref().map(Row::parse).transpose().map_err(|_| Refusal::Malformed)
    }

    fn version(&self) -> Result<Option<Version>, Refusal> {
        judged_version(self.version.as_ref())
    }
}

fn judged_version(version: Option<&VersionText>) -> Result<Option<Version>, Refusal> {
    match version {
        None => Ok(None),
        Some(VersionText::Number(number)) => Ok(Some(Version::from(*number))),
        Some(VersionText::Text(text)) => Version::parse(text).map(Some).map_err(|_| Refusal::Malformed),
    }
}

/// Checks what concerns the batch as a whole.
pub(crate) fn check(items: &[Item<'_>], operation: Operation) -> Result<(), Problem> {
    let anywhere = matches!(operation, Operation::Index | Operation::Inspect);
    let fits = |item: &Item<'_>| {
        let of_operation = |more: &More<'_>| {
            (operation == Operation::Rewrap || more.to.is_none())
                && (operation == Operation::Export
                    || (more.allow_unshreddable.is_none() && more.frame_length.is_none()))
        };
        item.kind == Kind::of(operation)
            && (anywhere || item.row.is_some())
            && item.more.as_deref().is_none_or(of_operation)
    };
    if items.is_empty() || items.len() > MAX_ITEMS || !items.iter().all(fits) {
        return Err(Code::MalformedRequest.into());
    }
    let total = items.iter().fold(0_usize, |sum, item| sum.saturating_add(item.content.len()));
    if total > MAX_BODY {
        return Err(Code::PayloadTooLarge.into());
    }
    Ok(())
}

/// Where a record goes, as sent: the whole place, so that nothing of the old one is taken over without a word.
struct Destination<'a> {
    table: Text<'a>,
    column: Text<'a>,
    row: Text<'a>,
    version: Option<VersionText>,
    scope: Option<Text<'a>>,
    /// Its column, once somebody has judged it.
    judged: Result<Arc<Column>, Refusal>,
}

/// A version is a decimal text, or a JSON number as far as a client can write one.
#[derive(Deserialize)]
#[serde(untagged)]
enum VersionText {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    Ref,
    Table,
    Column,
    Row,
    Version,
    Scope,
    Normalisation,
    Bits,
    Partitions,
    To,
    AllowUnshreddable,
    FrameLength,
    Context,
    Plaintext,
    Record,
    Value,
    Message,
}

impl<'de: 'a, 'a> Deserialize<'de> for Item<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ItemVisitor)
    }
}

// Written out because a derived visitor would also read an item from an array of its members in order.
struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item<'de>, A::Error> {
        let (mut reference, mut table, mut column, mut row) = (None, None, None, None);
        let (mut version, mut scope, mut content) = (None, None, None);
        let mut more: Option<Box<More<'de>>> = None;
        while let Some(member) = map.next_key()? {
            let rare = &mut more;
            match member {
                Member::Ref => once(&mut reference, map.next_value()?)?,
                Member::Table => once(&mut table, map.next_value()?)?,
                Member::Column => once(&mut column, map.next_value()?)?,
                Member::Row => once(&mut row, map.next_value()?)?,
                Member::Version => once(&mut version, map.next_value()?)?,
                Member::Scope => once(&mut scope, map.next_value()?)?,
                Member::Normalisation => once(&mut rare.get_or_insert_default().normalisation, map.next_value()?)?,
                Member::Bits => once(&mut rare.get_or_insert_default().bits, map.next_value()?)?,
                Member::Partitions => once(&mut rare.get_or_insert_default().partitions, map.next_value()?)?,
                Member::To => once(&mut rare.get_or_insert_default().to, map.next_value()?)?,
                Member::AllowUnshreddable => {
                    once(&mut rare.get_or_insert_default().allow_unshreddable, map.next_value()?)?;
                }
                Member::FrameLength => once(&mut rare.get_or_insert_default().frame_length, map.next_value()?)?,
                Member::Context => once(&mut rare.get_or_insert_default().context, map.next_value()?)?,
                Member::Plaintext => once(&mut content, (Kind::Plaintext, map.next_value()?))?,
                Member::Record => once(&mut content, (Kind::Record, map.next_value()?))?,
                Member::Value => once(&mut content, (Kind::Value, map.next_value()?))?,
                Member::Message => once(&mut content, (Kind::Message, map.next_value()?))?,
            }
        }
        let missing = || A::Error::custom("a member is missing");
        let (kind, content) = content.ok_or_else(missing)?;
        let complete = match &more {
            Some(more) => more.is_complete(kind),
            None => kind != Kind::Value,
        };
        let enters = matches!(kind, Kind::Plaintext | Kind::Message);
        if !complete || (scope.is_some() && !enters) || (enters && row.is_none()) {
            return Err(A::Error::custom("a member too many or too few"));
        }
        Ok(Item {
            reference: reference.ok_or_else(missing)?,
            table: table.ok_or_else(missing)?,
            column: column.ok_or_else(missing)?,
            row,
            version,
            scope,
            more,
            content,
            kind,
            judged: Err(Refusal::Malformed),
            barred: false,
        })
    }
}

impl More<'_> {
    /// Whether all that an item of this kind must have is there, and nothing that another kind has.
    fn is_complete(&self, kind: Kind) -> bool {
        let of_index = self.normalisation.is_some() || self.bits.is_some() || self.partitions.is_some();
        let of_record = self.to.is_some() || self.allow_unshreddable.is_some() || self.frame_length.is_some();
        match kind {
            Kind::Value => self.normalisation.is_some() && self.bits.is_some() && !of_record && self.context.is_none(),
            Kind::Record => !of_index && self.context.is_none(),
            Kind::Message => !of_index && !of_record,
            Kind::Plaintext => !of_index && !of_record && self.context.is_none(),
        }
    }
}

/// Pairs of text, none twice.
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pairs of text")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            if pairs.insert(key, value).is_some() {
                return Err(A::Error::custom("a member twice"));
            }
        }
        Ok(Pairs(pairs.into_iter().collect()))
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Part {
    Table,
    Column,
    Row,
    Version,
    Scope,
}

impl<'de: 'a, 'a> Deserialize<'de> for Destination<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DestinationVisitor)
    }
}

struct DestinationVisitor;

impl<'de> Visitor<'de> for DestinationVisitor {
    type Value = Destination<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a place")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Destination<'de>, A::Error> {
        let (mut table, mut column, mut row, mut version, mut scope) = (None, None, None, None, None);
        while let Some(part) = map.next_key()? {
            match part {
                Part::Table => once(&mut table, map.next_value()?)?,
                Part::Column => once(&mut column, map.next_value()?)?,
                Part::Row => once(&mut row, map.next_value()?)?,
                Part::Version => once(&mut version, map.next_value()?)?,
                Part::Scope => once(&mut scope, map.next_value()?)?,
            }
        }
        let missing = || A::Error::custom("a member is missing");
        Ok(Destination {
            table: table.ok_or_else(missing)?,
            column: column.ok_or_else(missing)?,
            row: row.ok_or_else(missing)?,
            version,
            scope,
            judged: Err(Refusal::Malformed),
        })
    }
}

fn once<T, E: serde::de::Error>(slot: &mut Option<T>, value: T) -> Result<(), E> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom("a member twice")),
    }
}

/// What became of one item.
pub(crate) struct Outcome<'a> {
    pub(crate) reference: &'a str,
    pub(crate) result: Result<Yield, Refusal>,
}

/// What an item was asked for; bytes go out as base64url.
pub(crate) enum Yield {
    Record(Vec<u8>),
    Plaintext(Zeroizing<Vec<u8>>),
    /// A message of the AWS Encryption SDK.
    Message(Vec<u8>),
    /// One entry for each partition.
    Index(Vec<Vec<u8>>),
    Header(Header),
}

/// What a record's header points at.
pub(crate) struct Header {
    pub(crate) data_key_id: Uuid,
    pub(crate) state: KeyState,
    /// When the key was made, in seconds since the epoch.
    pub(crate) created_at: i64,
}

/// Where a data key is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyState {
    Active,
    DecryptOnly,
    Shredded,
}

impl KeyState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::DecryptOnly => "decrypt_only",
            Self::Shredded => "shredded",
        }
    }
}

/// A batch that was worked through, and the data keys that it used.
pub(crate) struct Done<'a> {
    pub(crate) outcomes: Vec<Outcome<'a>>,
    pub(crate) keys: BTreeSet<Uuid>,
}

/// The answer to a batch, in the order of the request.
pub(crate) struct Answer<'a> {
    pub(crate) outcomes: Vec<Outcome<'a>>,
}

impl Answer<'_> {
    /// 200 when every item succeeded, otherwise 207.
    pub(crate) fn status(&self) -> u16 {
        if self.outcomes.iter().all(|outcome| outcome.result.is_ok()) { 200 } else { 207 }
    }

    /// Refusals with how often each occurred, for the log.
    pub(crate) fn refusals(&self) -> String {
        let mut counts = BTreeMap::<&str, usize>::new();
        for refusal in self.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().err()) {
            *counts.entry(refusal.reason()).or_default() += 1;
        }
        counts.iter().map(|(reason, count)| format!("{reason}={count}")).collect::<Vec<_>>().join(" ")
    }
}

impl Answer<'_> {
    /// The answer's JSON, written down as it is made: an item is a handful of texts of which only `ref` can need an escape.
    pub(crate) fn into_json(self) -> String {
        // Where nothing failed this is enough, and a plaintext is not left behind where the text grew out of its place.
        let room = self.outcomes.iter().fold(16_usize, |sum, one| sum.saturating_add(one.room()));
        let mut out = String::with_capacity(room);
        out.push_str("{\"items\":[");
        for (at, outcome) in self.outcomes.into_iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            outcome.write(&mut out);
        }
        out.push_str("]}");
        out
    }
}

impl Outcome<'_> {
    /// Bytes that its JSON takes at most, unless the reference is full of escapes.
    fn room(&self) -> usize {
        let encoded = |bytes: &[u8]| bytes.len().div_ceil(3).saturating_mul(4).saturating_add(4);
        let content = match &self.result {
            Ok(Yield::Record(bytes) | Yield::Message(bytes)) => encoded(bytes),
            Ok(Yield::Plaintext(bytes)) => encoded(bytes),
            Ok(Yield::Index(entries)) => entries.iter().fold(0, |sum: usize, entry| sum.saturating_add(encoded(entry))),
            Ok(Yield::Header(_)) | Err(_) => 96,
        };
        content.saturating_add(self.reference.len()).saturating_add(64)
    }

    fn write(self, out: &mut String) {
        out.push_str("{\"ref\":");
        quote(self.reference, out);
        match self.result {
            Ok(result) => {
                out.push_str(",\"ok\":true");
                result.write(out);
            }
            Err(refusal) => {
                out.push_str(",\"ok\":false,\"error\":{\"code\":\"");
                out.push_str(refusal.code());
                out.push_str("\",\"retryable\":");
                out.push_str(if refusal.is_retryable() { "true}" } else { "false}" });
            }
        }
        out.push('}');
    }
}

impl Yield {
    fn write(self, out: &mut String) {
        let mut member = |name: &str, bytes: &[u8]| {
            out.push_str(name);
            pc1::encode_into(bytes, out);
            out.push('"');
        };
        match self {
            Self::Record(bytes) => member(",\"record\":\"", &bytes),
            Self::Plaintext(bytes) => member(",\"plaintext\":\"", &bytes),
            Self::Message(bytes) => member(",\"message\":\"", &bytes),
            Self::Index(entries) => {
                out.push_str(",\"index\":[");
                for (at, entry) in entries.iter().enumerate() {
                    out.push_str(if at > 0 { ",\"" } else { "\"" });
                    pc1::encode_into(entry, out);
                    out.push('"');
                }
                out.push(']');
            }
            Self::Header(header) => {
                // The only version that is parsed.
                out.push_str(",\"version\":1,\"data_key_id\":\"");
                out.push_str(&header.data_key_id.to_string());
                out.push_str("\",\"state\":\"");
                out.push_str(header.state.as_str());
                out.push_str("\",\"created_at\":");
                out.push_str(&header.created_at.to_string());
            }
        }
    }
}

/// Appends a text as JSON has it (RFC 8259 §7).
fn quote(text: &str, out: &mut String) {
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        // Text as JSON cannot fail to be written to memory.
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::clock::Timestamp;
    use shared::details::Details;
    use shared::scope::Scopes;

    use super::*;

    fn item() -> Value {
        json!({"ref": "1", "table": "users", "column": "ssn", "row": "42", "plaintext": "AA"})
    }

    fn with(member: &str, value: Value) -> Value {
        let mut item = item();
        item[member] = value;
        item
    }

    fn indexed(member: &str, value: Value) -> Value {
        let mut item =
            json!({"ref": "1", "table": "users", "column": "ssn", "value": "AA", "normalisation": "exact", "bits": 12});
        item[member] = value;
        item
    }

    fn parse(body: &str) -> Option<Vec<Item<'_>>> {
        serde_json::from_str::<Batch<'_>>(body).ok().map(|batch| batch.items)
    }

    fn items(items: &Value) -> Vec<Item<'static>> {
        parse(json!({"items": items}).to_string().leak()).unwrap()
    }

    fn caller(scope: &str) -> Caller {
        Caller {
            tenant: Tenant::parse("acme").unwrap(),
            subject: "backend".to_owned(),
            client_id: "backend".to_owned(),
            jti: "j".to_owned(),
            scopes: Scopes::parse(scope).unwrap(),
            details: Details::default(),
            kind: shared::jwt::Kind::Machine,
            session: None,
            device: None,
            expires_at: Timestamp::from_millis(0),
        }
    }

    #[test]
    fn a_body_of_another_shape_is_refused_whole() {
        assert!(parse(&json!({"items": [item()]}).to_string()).is_some());
        for items in [
            json!([with("tenant", json!("globex"))]),
            json!([with("extra", json!(1))]),
            json!([with("record", json!("AA"))]),
            json!([with("row", json!(42))]),
            json!([with("version", json!(-1))]),
            json!([with("version", json!(1.5))]),
            json!([with("version", json!(null))]),
            json!([with("plaintext", json!(null))]),
            json!([["1", "users", "ssn", "42", null, null, "AA"]]),
            json!([{"ref": "1", "table": "users", "column": "ssn", "plaintext": "AA"}]),
            json!([{"table": "users", "column": "ssn", "row": "1", "plaintext": "AA"}]),
            json!([{"ref": "1", "table": "users", "column": "ssn", "row": "1", "record": "AA", "scope": "subject:a"}]),
            json!([with("bits", json!(12))]),
            json!([with("value", json!("AA"))]),
            json!([{"ref": "1", "table": "users", "column": "ssn", "value": "AA"}]),
            json!([{"ref": "1", "table": "users", "column": "ssn", "value": "AA", "bits": 12}]),
            json!([{"ref": "1", "table": "users", "column": "ssn", "value": "AA", "normalisation": "exact"}]),
            json!([{"ref": "1", "table": "users", "column": "ssn", "record": "AA", "normalisation": "exact"}]),
            json!([indexed("bits", json!("12"))]),
            json!([indexed("bits", json!(-1))]),
            json!([indexed("bits", json!(1.5))]),
            json!([indexed("partitions", json!(null))]),
            json!([indexed("normalisation", json!(1))]),
            json!([indexed("scope", json!("subject:a"))]),
            json!([{}]),
            json!({}),
            json!("items"),
            json!(null),
        ] {
            assert!(parse(&json!({"items": items}).to_string()).is_none(), "{items}");
        }
        assert!(parse(&json!({"items": [item()], "tenant": "globex"}).to_string()).is_none());
        for body in [
            "",
            "{}",
            "{\"items\":[",
            r#"{"items":[],"items":[]}"#,
            r#"{"items":[{"ref":"1","ref":"2","table":"u","column":"c","row":"1","plaintext":"AA"}]}"#,
            r#"{"items":[{"ref":"1","table":"u","column":"c","row":"\ud800","plaintext":"AA"}]}"#,
        ] {
            assert!(parse(body).is_none(), "{body}");
        }
    }

    #[test]
    fn a_value_of_another_form_fails_its_item() {
        let caller = caller("fields:encrypt:users.ssn");
        let place = |value: Value| {
            let mut items = items(&json!([value]));
            items[0].judge_columns(&mut Columns::new(&caller, Operation::Encrypt));
            items[0].place().map(|place| place.scope().clone())
        };
        for value in [
            with("table", json!("us.ers")),
            with("column", json!("*")),
            with("row", json!("")),
            with("row", json!("a\0b")),
            with("row", json!("x".repeat(257))),
            with("version", json!("007")),
            with("version", json!("")),
            with("scope", json!("index")),
            with("scope", json!("column:users/email")),
            with("scope", json!("subject:")),
            with("ref", json!("x".repeat(65))),
        ] {
            assert_eq!(place(value.clone()).unwrap_err(), Refusal::Malformed, "{value}");
        }
        for value in [
            item(),
            with("version", json!(7)),
            with("version", json!("18446744073709551615")),
            with("ref", json!("é".repeat(64))),
            with("scope", json!("subject:s-1")),
            with("scope", json!("column:users/ssn")),
        ] {
            assert!(place(value.clone()).is_ok(), "{value}");
        }
        let mut hidden = with("column", json!("secret"));
        hidden["row"] = json!("");
        assert_eq!(place(hidden).unwrap_err(), Refusal::Forbidden);
    }

    #[test]
    fn a_column_is_judged_by_both_of_its_names_however_many_there_are() {
        let caller = caller("fields:encrypt:users.ssn fields:encrypt:a.b fields:encrypt:b.*");
        let mut columns = Columns::new(&caller, Operation::Encrypt);
        let mut judged =
            |table: &str, column: &str| columns.judge(table, column).map(|column| column.scope.as_str().to_owned());
        for _ in 0..2 {
            for (table, column, expected) in [
                ("users", "ssn", Ok("column:users/ssn")),
                ("users", "ssn", Ok("column:users/ssn")),
                ("a", "b", Ok("column:a/b")),
                ("b", "c", Ok("column:b/c")),
                ("a", "b.c", Err(Refusal::Malformed)),
                ("a.b", "c", Err(Refusal::Malformed)),
                ("", "a.b", Err(Refusal::Malformed)),
                ("a.b", "", Err(Refusal::Malformed)),
                ("ssn", "users", Err(Refusal::Forbidden)),
                ("users", "email", Err(Refusal::Forbidden)),
                ("users", "ssn", Ok("column:users/ssn")),
            ] {
                assert_eq!(judged(table, column), expected.map(str::to_owned), "{table} {column}");
            }
        }
        assert_eq!(columns.names().collect::<Vec<_>>(), ["a.b", "b.c", "users.ssn"]);
        let mut columns = Columns::new(&caller, Operation::Decrypt);
        assert_eq!(columns.judge("users", "ssn").err(), Some(Refusal::Forbidden), "another operation");
    }

    #[test]
    fn text_is_the_same_with_escapes_and_without() {
        let plain = r#"{"items":[{"ref":"a","table":"users","column":"ssn","row":"42","plaintext":"AAEC"}]}"#;
        let escaped = r#"{"items":[{"r\u0065f":"\u0061","table":"user\u0073","column":"\u0073sn","row":"\u00342","plaintext":"A\u0041EC"}]}"#;
        let texts = |body: &str| {
            let item = parse(body).unwrap().remove(0);
            let row = item.row.as_deref().unwrap().to_owned();
            (item.reference.to_owned(), item.table.to_owned(), item.column.to_owned(), row, item.content.to_owned())
        };
        assert_eq!(texts(escaped), texts(plain));
        assert!(matches!(parse(plain).unwrap()[0].content, Text::InBody(_)), "nothing is copied that needs not be");
        assert!(matches!(parse(escaped).unwrap()[0].content, Text::Unescaped(_)));
    }

    #[test]
    fn an_answer_is_json_whatever_the_references_are() {
        let references =
            ["", "1", "a\"b", "a\\", "\u{0}\u{1f}\n", "\u{7f}é\u{2028}\u{1f600}", "{\"ok\":true}", "\"},{"];
        let outcomes = references.iter().enumerate().map(|(at, reference)| Outcome {
            reference,
            result: match at % 4 {
                0 => Ok(Yield::Record(vec![0xfb, 0xff])),
                1 => Ok(Yield::Index(vec![vec![1], vec![2, 3]])),
                2 => {
                    Ok(Yield::Header(Header { data_key_id: Uuid::nil(), state: KeyState::DecryptOnly, created_at: -7 }))
                }
                _ => Err(Refusal::KmsThrottled),
            },
        });
        let said: Value = serde_json::from_str(&Answer { outcomes: outcomes.collect() }.into_json()).unwrap();
        let expected = references.iter().enumerate().map(|(at, reference)| match at % 4 {
            0 => json!({"ref": reference, "ok": true, "record": "-_8"}),
            1 => json!({"ref": reference, "ok": true, "index": ["AQ", "AgM"]}),
            2 => {
                json!({"ref": reference, "ok": true, "version": 1, "data_key_id": Uuid::nil(), "state": "decrypt_only",
                "created_at": -7})
            }
            _ => json!({"ref": reference, "ok": false, "error": {"code": "kms_throttled", "retryable": true}}),
        });
        assert_eq!(said, json!({"items": expected.collect::<Vec<_>>()}));
        assert_eq!(Answer { outcomes: Vec::new() }.into_json(), r#"{"items":[]}"#);
        let full = Outcome { reference: "1", result: Ok(Yield::Plaintext(Zeroizing::new(vec![b'x'; 1_000]))) };
        let answer = Answer { outcomes: vec![full] };
        let room = 16 + answer.outcomes[0].room();
        let text = answer.into_json();
        assert!(text.len() <= room && text.capacity() <= room, "it does not grow out of its place");
    }

    #[test]
    fn a_batch_has_one_to_a_thousand_items_of_one_operation() {
        let many = |count: usize| items(&json!(vec![item(); count]));
        for (count, accepted) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
            assert_eq!(check(&many(count), Operation::Encrypt).is_ok(), accepted, "{count}");
        }
        for operation in [
            Operation::Decrypt,
            Operation::Index,
            Operation::Inspect,
            Operation::Rewrap,
            Operation::Export,
            Operation::Import,
        ] {
            assert!(check(&many(1), operation).is_err(), "{operation:?}");
        }
        let record = |row: Value| {
            let mut item = json!({"ref": "1", "table": "users", "column": "ssn", "record": "AA"});
            if row != Value::Null {
                item["row"] = row;
            }
            items(&json!([item]))
        };
        assert!(check(&record(json!(null)), Operation::Decrypt).is_err(), "a record opens in a row only");
        assert!(check(&record(json!(null)), Operation::Inspect).is_ok());
        assert!(check(&record(json!("42")), Operation::Inspect).is_ok());
        assert!(
            check(&record(json!(null)), Operation::Rewrap).is_err()
                && check(&record(json!("42")), Operation::Rewrap).is_ok()
        );
        let value = items(&json!([indexed("row", json!("42"))]));
        assert!(check(&value, Operation::Index).is_ok() && check(&value, Operation::Encrypt).is_err());
        let large = with("plaintext", json!("A".repeat(MAX_BODY / 2 + 1)));
        let large = items(&json!([large, large]));
        assert_eq!(check(&large, Operation::Encrypt), Err(Code::PayloadTooLarge.into()));
    }

    #[test]
    fn a_definition_out_of_range_fails_its_item() {
        let defined = |value: Value| items(&json!([value]))[0].definition().map(|_| ());
        for value in [
            indexed("bits", json!(0)),
            indexed("bits", json!(64)),
            indexed("bits", json!(255)),
            indexed("bits", json!(257)),
            indexed("partitions", json!(0)),
            indexed("partitions", json!(256)),
            indexed("normalisation", json!("")),
            indexed("normalisation", json!("lowercase")),
            {
                let mut item = indexed("bits", json!(256));
                item["partitions"] = json!(2);
                item
            },
        ] {
            assert_eq!(defined(value.clone()), Err(Refusal::Malformed), "{value}");
        }
        for value in [
            indexed("bits", json!(1)),
            indexed("bits", json!(63)),
            indexed("bits", json!(256)),
            indexed("partitions", json!(255)),
            indexed("normalisation", json!("nfc_casefold")),
            indexed("normalisation", json!("digits")),
        ] {
            assert_eq!(defined(value.clone()), Ok(()), "{value}");
        }
    }
}
