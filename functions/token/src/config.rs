//! What the token endpoint is configured with.

use shared::config::Reader;
use shared::jwks::Algorithm;

/// The token endpoint's own settings; adapters read theirs, the place of the signing keys
/// ([`KeyStore`](shared::key_store::KeyStore)) among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// `PORTCULLIS_ISSUER`: the external base URL, and `iss` of every token.
    pub issuer: String,
    /// `PORTCULLIS_AUDIENCE`: the API's identifier, and `aud` of every token.
    pub audience: String,
    /// `PORTCULLIS_SIGNING_ALG`: `RS256` (default), `ES256` or `EdDSA`.
    pub algorithm: Algorithm,
}

impl Settings {
    /// Reads the settings; faults stay in the reader.
    pub fn read(reader: &Reader<'_>) -> Self {
        reader.text("PORTCULLIS_ENV");
        Self {
            issuer: reader.issuer("PORTCULLIS_ISSUER"),
            audience: reader.text("PORTCULLIS_AUDIENCE"),
            algorithm: reader.choice(
                "PORTCULLIS_SIGNING_ALG",
                &[("RS256", Algorithm::Rs256), ("ES256", Algorithm::Es256), ("EdDSA", Algorithm::EdDsa)],
                Algorithm::Rs256,
            ),
        }
    }
}
