//! What the authorizer is configured with.

use shared::config::Reader;
use shared::trust::Accepts;

/// Reads `PORTCULLIS_ENV`, `PORTCULLIS_ISSUER` and `PORTCULLIS_AUDIENCE`; faults stay in the reader.
pub fn read(reader: &Reader<'_>) -> Accepts {
    reader.text("PORTCULLIS_ENV");
    Accepts { issuer: reader.issuer("PORTCULLIS_ISSUER"), audience: reader.text("PORTCULLIS_AUDIENCE") }
}
