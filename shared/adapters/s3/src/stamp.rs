//! Moments as Signature Version 4 writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use shared::clock::Timestamp;
use shared::name::Malformed;

/// The whole second that has begun.
pub(crate) fn at(now: Timestamp) -> Result<SystemTime, Malformed> {
    let seconds = u64::try_from(now.seconds()).map_err(|_| Malformed("date"))?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).ok_or(Malformed("date"))
}

/// RFC 3339 in whole seconds of UTC.
pub(crate) fn text(at: Timestamp) -> Result<String, Malformed> {
    DateTime::from_secs(at.seconds()).fmt(Format::DateTime).map_err(|_| Malformed("date"))
}

/// `YYYYMMDDTHHMMSSZ`
pub(crate) fn compact(at: Timestamp) -> Result<String, Malformed> {
    Ok(text(at)?.replace(['-', ':'], ""))
}
