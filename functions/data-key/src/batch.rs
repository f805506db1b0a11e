//! Bodies: what comes in, strictly, and what goes out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::ser::{SerializeMap, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shared::blind_index::{Bits, Normalisation, Partitions};
use shared::esdk::Framing;
use shared::name::Identifier;
use shared::pc1::{Row, Version};
use shared::problem::{Code, Problem};
use shared::secret::SecretString;
use uuid::Uuid;

use crate::config::Operation;
use crate::refusal::Refusal;
use crate::scope::Scope;

/// The most items of a batch.
pub(crate) const MAX_ITEMS: usize = 1_000;
/// The most bytes of a body.
pub(crate) const MAX_BODY: usize = 4 * 1024 * 1024;
/// The most characters of a `ref`.
const MAX_REFERENCE: usize = 64;

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    /// What for, where the deployment wants to know.
    pub(crate) purpose_of_use: Option<String>,
}

/// The payload of a direct invocation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Direct {
    #[serde(rename = "operation")]
    _operation: String,
    pub(crate) access_token: Token,
    pub(crate) items: Vec<Item>,
    pub(crate) purpose_of_use: Option<String>,
}

/// A token on its way to the gate.
pub(crate) struct Token(pub(crate) SecretString);

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::new(text)))
    }
}

/// One field, as sent. Its values are judged one by one, so that one wrong value fails one item.
pub(crate) struct Item {
    pub(crate) reference: String,
    table: String,
    column: String,
    row: Option<String>,
    version: Option<VersionText>,
    scope: Option<String>,
    normalisation: Option<String>,
    bits: Option<u64>,
    partitions: Option<u64>,
    to: Option<Destination>,
    allow_unshreddable: Option<bool>,
    frame_length: Option<u32>,
    context: Option<Pairs>,
    /// The plaintext, the record or the value, base64url.
    pub(crate) content: SecretString,
    kind: Kind,
    /// Whether its column demands a device that the caller is not on.
    barred: bool,
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
    pub(crate) table: Identifier,
    pub(crate) column: Identifier,
    pub(crate) row: Row,
    pub(crate) version: Option<Version>,
    /// The column's own scope.
    pub(crate) of_column: Scope,
    /// The scope of the key to encrypt under.
    pub(crate) scope: Scope,
}

impl Item {
    /// The `table.column`s for the log: those that are names at all, and that the caller may touch.
    pub(crate) fn column_names(&self, may: impl Fn(&str, &str) -> bool) -> impl Iterator<Item = String> {
        let named = |table: &str, column: &str| {
            let (table, column) = (Identifier::parse(table).ok()?, Identifier::parse(column).ok()?);
            may(table.as_str(), column.as_str()).then(|| format!("{table}.{column}"))
        };
        let to = self.to.as_ref().and_then(|to| named(&to.table, &to.column));
        named(&self.table, &self.column).into_iter().chain(to)
    }

    /// Judges everything but the content; the caller's right comes before any other fault of a value.
    pub(crate) fn place(&self, may: impl FnOnce(&str, &str) -> bool) -> Result<Place, Refusal> {
        let column = self.column(may)?;
        if self.barred {
            return Err(Refusal::DeviceDemanded);
        }
        let row = self.row()?.ok_or(Refusal::Malformed)?;
        Place::judge(column, row, self.version.as_ref(), self.scope.as_deref())
    }

    /// Bars the item where its plaintext would leave a column for a caller who is not `admitted` to that. What stays in its column goes
    /// nowhere.
    pub(crate) fn bar_unless(&mut self, operation: Operation, admitted: impl Fn(&str, &str) -> bool) {
        let stays = match (operation, &self.to) {
            (Operation::Decrypt | Operation::Export, _) => false,
            (Operation::Rewrap, Some(to)) => to.table == self.table && to.column == self.column,
            _ => true,
        };
        self.barred = !stays && !admitted(&self.table, &self.column);
    }

    /// Judges where the field goes; nothing where it stays.
    pub(crate) fn destination(&self, may: impl FnOnce(&str, &str) -> bool) -> Result<Option<(Place, bool)>, Refusal> {
        let Some(to) = &self.to else { return Ok(None) };
        let column = judged_column(&to.table, &to.column, may)?;
        let row = Row::parse(&to.row).map_err(|_| Refusal::Malformed)?;
        let place = Place::judge(column, row, to.version.as_ref(), to.scope.as_deref())?;
        Ok(Some((place, to.scope.is_some())))
    }

    /// Judges the column of an operation that no row decides; a row or version beside it must still be one.
    pub(crate) fn anywhere_in(&self, may: impl FnOnce(&str, &str) -> bool) -> Result<Column, Refusal> {
        let column = self.column(may)?;
        self.row()?;
        self.version()?;
        Ok(column)
    }

    /// Judges how the column is indexed. All bits are for columns whose values are unique, and those need no partitions.
    pub(crate) fn definition(&self) -> Result<Definition, Refusal> {
        let judged = || {
            let normalisation = Normalisation::parse(self.normalisation.as_deref()?).ok()?;
            let bits = Bits::parse(self.bits?).ok()?;
            let partitions = self.partitions.map_or(Ok(Partitions::ONE), Partitions::parse).ok()?;
            Some(Definition { normalisation, bits, partitions })
        };
        let sensible = |d: &Definition| d.bits != Bits::WHOLE || d.partitions == Partitions::ONE;
        judged().filter(sensible).ok_or(Refusal::Malformed)
    }

    /// Judges how the record is to leave: in frames of 256 bytes to 64 KiB, or with 0 in one block.
    pub(crate) fn export(&self) -> Result<Export, Refusal> {
        let framing = match self.frame_length {
            None => Framing::USUAL,
            Some(0) => Framing::Unframed,
            Some(length @ 256..=65_536) => Framing::Frames(length),
            Some(_) => return Err(Refusal::Malformed),
        };
        Ok(Export { framing, allow_unshreddable: self.allow_unshreddable.unwrap_or_default() })
    }

    /// What the message must say of itself, if the caller demands anything.
    pub(crate) fn expected_context(&self) -> &[(String, String)] {
        self.context.as_ref().map_or(&[], |context| &context.0)
    }

    /// Whether the caller named the scope of the key to seal under.
    pub(crate) fn names_scope(&self) -> bool {
        self.scope.is_some()
    }

    fn column(&self, may: impl FnOnce(&str, &str) -> bool) -> Result<Column, Refusal> {
        let column = judged_column(&self.table, &self.column, may)?;
        if self.reference.chars().count() > MAX_REFERENCE { Err(Refusal::Malformed) } else { Ok(column) }
    }

    fn row(&self) -> Result<Option<Row>, Refusal> {
        self.row.as_deref().map(Row::parse).transpose().map_err(|_| Refusal::Malformed)
    }

    fn version(&self) -> Result<Option<Version>, Refusal> {
        judged_version(self.version.as_ref())
    }
}

impl Place {
    fn judge(column: Column, row: Row, version: Option<&VersionText>, scope: Option<&str>) -> Result<Self, Refusal> {
        let Column { table, column, scope: of_column } = column;
        let version = judged_version(version)?;
        let scope = match scope {
            None => of_column.clone(),
            Some(text) if text == of_column.as_str() => of_column.clone(),
            Some(text) => Scope::subject(text).map_err(|_| Refusal::Malformed)?,
        };
        Ok(Self { table, column, row, version, of_column, scope })
    }
}

fn judged_column(table: &str, column: &str, may: impl FnOnce(&str, &str) -> bool) -> Result<Column, Refusal> {
    let name = |text: &str| Identifier::parse(text).map_err(|_| Refusal::Malformed);
    let (table, column) = (name(table)?, name(column)?);
    if !may(table.as_str(), column.as_str()) {
        return Err(Refusal::Forbidden);
    }
    let scope = Scope::column(&table, &column);
    Ok(Column { table, column, scope })
}

fn judged_version(version: Option<&VersionText>) -> Result<Option<Version>, Refusal> {
    match version {
        None => Ok(None),
        Some(VersionText::Number(number)) => Ok(Some(Version::from(*number))),
        Some(VersionText::Text(text)) => Version::parse(text).map(Some).map_err(|_| Refusal::Malformed),
    }
}

/// Checks what concerns the batch as a whole.
pub(crate) fn check(items: &[Item], operation: Operation) -> Result<(), Problem> {
    let anywhere = matches!(operation, Operation::Index | Operation::Inspect);
    let fits = |item: &Item| {
        item.kind == Kind::of(operation)
            && (anywhere || item.row.is_some())
            && (operation == Operation::Rewrap || item.to.is_none())
            && (operation == Operation::Export || (item.allow_unshreddable.is_none() && item.frame_length.is_none()))
    };
    if items.is_empty() || items.len() > MAX_ITEMS || !items.iter().all(fits) {
        return Err(Code::MalformedRequest.into());
    }
    let total = items.iter().fold(0_usize, |sum, item| sum.saturating_add(item.content.expose().len()));
    if total > MAX_BODY {
        return Err(Code::PayloadTooLarge.into());
    }
    Ok(())
}

/// Where a record goes, as sent: the whole place, so that nothing of the old one is taken over without a word.
struct Destination {
    table: String,
    column: String,
    row: String,
    version: Option<VersionText>,
    scope: Option<String>,
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

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ItemVisitor)
    }
}

// Written out because a derived visitor would also read an item from an array of its members in order.
struct ItemVisitor;

impl<'de> Visitor<'de> for ItemVisitor {
    type Value = Item;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Item, A::Error> {
        let (mut reference, mut table, mut column, mut row) = (None, None, None, None);
        let (mut version, mut scope, mut content) = (None, None, None);
        let (mut normalisation, mut bits, mut partitions, mut to) = (None, None, None, None);
        let (mut allow_unshreddable, mut frame_length, mut context) = (None, None, None);
        while let Some(member) = map.next_key()? {
            match member {
                Member::Ref => once(&mut reference, map.next_value()?)?,
                Member::Table => once(&mut table, map.next_value()?)?,
                Member::Column => once(&mut column, map.next_value()?)?,
                Member::Row => once(&mut row, map.next_value()?)?,
                Member::Version => once(&mut version, map.next_value()?)?,
                Member::Scope => once(&mut scope, map.next_value()?)?,
                Member::Normalisation => once(&mut normalisation, map.next_value()?)?,
                Member::Bits => once(&mut bits, map.next_value()?)?,
                Member::Partitions => once(&mut partitions, map.next_value()?)?,
                Member::To => once(&mut to, map.next_value()?)?,
                Member::AllowUnshreddable => once(&mut allow_unshreddable, map.next_value()?)?,
                Member::FrameLength => once(&mut frame_length, map.next_value()?)?,
                Member::Context => once(&mut context, map.next_value()?)?,
                Member::Plaintext => once(&mut content, (Kind::Plaintext, SecretString::new(map.next_value()?)))?,
                Member::Record => once(&mut content, (Kind::Record, SecretString::new(map.next_value()?)))?,
                Member::Value => once(&mut content, (Kind::Value, SecretString::new(map.next_value()?)))?,
                Member::Message => once(&mut content, (Kind::Message, SecretString::new(map.next_value()?)))?,
            }
        }
        let missing = || A::Error::custom("a member is missing");
        let (kind, content) = content.ok_or_else(missing)?;
        let of_index = normalisation.is_some() || bits.is_some() || partitions.is_some();
        let of_record = to.is_some() || allow_unshreddable.is_some() || frame_length.is_some();
        if (scope.is_some() && !matches!(kind, Kind::Plaintext | Kind::Message))
            || (of_index && kind != Kind::Value)
            || (of_record && kind != Kind::Record)
            || (context.is_some() && kind != Kind::Message)
        {
            return Err(A::Error::custom("a member too many"));
        }
        if (matches!(kind, Kind::Plaintext | Kind::Message) && row.is_none())
            || (kind == Kind::Value && (normalisation.is_none() || bits.is_none()))
        {
            return Err(missing());
        }
        Ok(Item {
            reference: reference.ok_or_else(missing)?,
            table: table.ok_or_else(missing)?,
            column: column.ok_or_else(missing)?,
            row,
            version,
            scope,
            normalisation,
            bits,
            partitions,
            to,
            allow_unshreddable,
            frame_length,
            context,
            content,
            kind,
            barred: false,
        })
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

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DestinationVisitor)
    }
}

struct DestinationVisitor;

impl<'de> Visitor<'de> for DestinationVisitor {
    type Value = Destination;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a place")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Destination, A::Error> {
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
pub(crate) struct Outcome {
    pub(crate) reference: String,
    pub(crate) result: Result<Yield, Refusal>,
}

/// What an item was asked for; bytes are base64url.
pub(crate) enum Yield {
    Record(SecretString),
    Plaintext(SecretString),
    /// A message of the AWS Encryption SDK.
    Message(SecretString),
    /// One entry for each partition.
    Index(Vec<String>),
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
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum KeyState {
    Active,
    DecryptOnly,
    Shredded,
}

/// A batch that was worked through, and the data keys that it used.
pub(crate) struct Done {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) keys: BTreeSet<Uuid>,
}

/// The answer to a batch, in the order of the request.
pub(crate) struct Answer {
    pub(crate) outcomes: Vec<Outcome>,
}

impl Answer {
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

impl Serialize for Answer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Items<'a>(&'a Answer);
        impl Serialize for Items<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.outcomes.iter().map(OutcomeOf))
            }
        }
        let mut answer = serializer.serialize_struct("Answer", 1)?;
        answer.serialize_field("items", &Items(self))?;
        answer.end()
    }
}

struct OutcomeOf<'a>(&'a Outcome);

impl Serialize for OutcomeOf<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(outcome) = self;
        let mut item = serializer.serialize_map(None)?;
        item.serialize_entry("ref", &outcome.reference)?;
        item.serialize_entry("ok", &outcome.result.is_ok())?;
        match &outcome.result {
            Ok(Yield::Record(text)) => item.serialize_entry("record", text.expose())?,
            Ok(Yield::Plaintext(text)) => item.serialize_entry("plaintext", text.expose())?,
            Ok(Yield::Message(text)) => item.serialize_entry("message", text.expose())?,
            Ok(Yield::Index(entries)) => item.serialize_entry("index", entries)?,
            Ok(Yield::Header(header)) => {
                // The only version that is parsed.
                item.serialize_entry("version", &1)?;
                item.serialize_entry("data_key_id", &header.data_key_id)?;
                item.serialize_entry("state", &header.state)?;
                item.serialize_entry("created_at", &header.created_at)?;
            }
            Err(refusal) => item.serialize_entry("error", &ErrorOf(*refusal))?,
        }
        item.end()
    }
}

struct ErrorOf(Refusal);

impl Serialize for ErrorOf {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut error = serializer.serialize_map(Some(2))?;
        error.serialize_entry("code", self.0.code())?;
        error.serialize_entry("retryable", &self.0.is_retryable())?;
        error.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

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

    fn parse(body: &str) -> Option<Vec<Item>> {
        serde_json::from_str::<Batch>(body).ok().map(|batch| batch.items)
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
        let place = |value: Value| {
            let items = parse(&json!({"items": [value]}).to_string()).unwrap();
            items[0].place(|_, column| column != "secret").map(|place| place.scope)
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
    fn a_batch_has_one_to_a_thousand_items_of_one_operation() {
        let items = |count: usize| parse(&json!({"items": vec![item(); count]}).to_string()).unwrap();
        for (count, accepted) in [(0, false), (1, true), (1_000, true), (1_001, false)] {
            assert_eq!(check(&items(count), Operation::Encrypt).is_ok(), accepted, "{count}");
        }
        for operation in [
            Operation::Decrypt,
            Operation::Index,
            Operation::Inspect,
            Operation::Rewrap,
            Operation::Export,
            Operation::Import,
        ] {
            assert!(check(&items(1), operation).is_err(), "{operation:?}");
        }
        let record = |row: Value| {
            let mut item = json!({"ref": "1", "table": "users", "column": "ssn", "record": "AA"});
            if row != Value::Null {
                item["row"] = row;
            }
            parse(&json!({"items": [item]}).to_string()).unwrap()
        };
        assert!(check(&record(json!(null)), Operation::Decrypt).is_err(), "a record opens in a row only");
        assert!(check(&record(json!(null)), Operation::Inspect).is_ok());
        assert!(check(&record(json!("42")), Operation::Inspect).is_ok());
        assert!(
            check(&record(json!(null)), Operation::Rewrap).is_err()
                && check(&record(json!("42")), Operation::Rewrap).is_ok()
        );
        let value = parse(&json!({"items": [indexed("row", json!("42"))]}).to_string()).unwrap();
        assert!(check(&value, Operation::Index).is_ok() && check(&value, Operation::Encrypt).is_err());
        let large = with("plaintext", json!("A".repeat(MAX_BODY / 2 + 1)));
        let large = parse(&json!({"items": [large, large]}).to_string()).unwrap();
        assert_eq!(check(&large, Operation::Encrypt), Err(Code::PayloadTooLarge.into()));
    }

    #[test]
    fn a_definition_out_of_range_fails_its_item() {
        let defined = |value: Value| {
            let items = parse(&json!({"items": [value]}).to_string()).unwrap();
            items[0].definition().map(|_| ())
        };
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
