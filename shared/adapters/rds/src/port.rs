//! TEMPORARY mirror of shared::port
use serde_json::Value;
use uuid::Uuid;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind { Throttled, Denied, NotFound, Invalid, Conflict, Unavailable }
#[derive(Debug)]
pub struct Fault { pub kind: FaultKind, service: &'static str, operation: &'static str, source: Option<Box<dyn std::error::Error + Send + Sync>> }
impl Fault {
    pub fn new(kind: FaultKind, service: &'static str, operation: &'static str) -> Self { Self { kind, service, operation, source: None } }
    pub fn caused_by(mut self, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self { self.source = Some(e.into()); self }
}
impl std::fmt::Display for Fault { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { write!(f, "{} {}: {:?}", self.service, self.operation, self.kind) } }
impl std::error::Error for Fault { fn source(&self) -> Option<&(dyn std::error::Error + 'static)> { self.source.as_ref().map(|e| &**e as _) } }
pub enum Parameter { Text(String), OptionalText(Option<String>), Uuid(Uuid), OptionalUuid(Option<Uuid>), Bytes(Vec<u8>), OptionalBytes(Option<Vec<u8>>), Int(i64), OptionalInt(Option<i64>), Bool(bool), Json(Value), Texts(Vec<String>), Uuids(Vec<Uuid>) }
pub trait Database { fn call(&self, function: &'static str, parameters: Vec<Parameter>) -> impl Future<Output = Result<Value, Fault>> + Send; }
