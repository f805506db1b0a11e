//! Preconditions of reads and writes.

use s3s::dto::{ETagCondition, PutObjectInput, Timestamp, TimestampFormat};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::refusal::{VERSION_ID, error, not_implemented, with_element, with_header};
use super::store::{Object, Version, WriteCondition};

/// The conditions a read carries.
pub(crate) struct ReadConditions<'a> {
    pub(crate) if_match: Option<&'a ETagCondition>,
    pub(crate) if_none_match: Option<&'a ETagCondition>,
    pub(crate) if_modified_since: Option<&'a Timestamp>,
    pub(crate) if_unmodified_since: Option<&'a Timestamp>,
}

/// `If-None-Match` knows only `*`, `If-Match` only an ETag, and not both.
///
/// # Errors
/// `NotImplemented` for everything else, as AWS has it.
pub(crate) fn write_condition(input: &PutObjectInput) -> S3Result<WriteCondition> {
    condition(input.if_match.as_ref(), input.if_none_match.as_ref())
}

/// The same for any write.
///
/// # Errors
/// `NotImplemented` for everything else.
pub(crate) fn condition(
    if_match: Option<&ETagCondition>,
    if_none_match: Option<&ETagCondition>,
) -> S3Result<WriteCondition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(WriteCondition::Always),
        (None, Some(ETagCondition::Any)) => Ok(WriteCondition::Absent),
        (Some(ETagCondition::ETag(etag)), None) => Ok(WriteCondition::Matches(etag.value().to_owned())),
        _ => Err(not_implemented()),
    }
}

/// The conditions of a read in the order of RFC 9110 §13.2.2.
///
/// # Errors
/// `PreconditionFailed`, or `NotModified` with the validators.
pub(crate) fn judge(read: &ReadConditions<'_>, version: &Version, object: &Object) -> S3Result<()> {
    let matches = |condition: &ETagCondition| match condition {
        ETagCondition::Any => true,
        ETagCondition::ETag(etag) => etag.value() == object.etag,
    };
    let modified = seconds(&Timestamp::from(version.modified));
    match (read.if_match, read.if_unmodified_since) {
        (Some(condition), _) if !matches(condition) => return Err(precondition_failed("If-Match")),
        (None, Some(since)) if modified > seconds(since) => return Err(precondition_failed("If-Unmodified-Since")),
        _ => {}
    }
    let unchanged = match (read.if_none_match, read.if_modified_since) {
        (Some(condition), _) => matches(condition),
        (None, Some(since)) => modified <= seconds(since),
        (None, None) => false,
    };
    if !unchanged {
        return Ok(());
    }
    let refused = with_header(S3Error::new(S3ErrorCode::NotModified), "etag", &format!("\"{}\"", object.etag));
    let refused = with_header(refused, VERSION_ID, &version.id);
    Err(match http_date(&Timestamp::from(version.modified)) {
        Some(date) => with_header(refused, "last-modified", &date),
        None => refused,
    })
}

/// 412 with the name of the header that did not hold.
pub(crate) fn precondition_failed(header: &str) -> S3Error {
    let message = "At least one of the pre-conditions you specified did not hold";
    with_element(error(S3ErrorCode::PreconditionFailed, message), "Condition", header)
}

fn seconds(timestamp: &Timestamp) -> i64 {
    time::OffsetDateTime::from(timestamp.clone()).unix_timestamp()
}

/// An HTTP date (RFC 9110 §5.6.7).
pub(crate) fn http_date(timestamp: &Timestamp) -> Option<String> {
    let mut text = Vec::new();
    timestamp.format(TimestampFormat::HttpDate, &mut text).ok()?;
    String::from_utf8(text).ok()
}
