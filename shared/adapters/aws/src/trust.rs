//! Whom TLS believes: the Amazon Trust Services roots, or one configured CA instead of them, never the machine's store.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

const AMAZON: &str = include_str!("../roots/amazon-trust-services.pem");

/// A set of root certificates. Cloning is cheap; the embedded ones are parsed on use only.
#[derive(Clone, PartialEq, Eq)]
pub struct Trust(Option<Arc<Vec<u8>>>);

impl Trust {
    /// The five Amazon Trust Services roots, to which AWS endpoints and RDS Proxy chain.
    #[must_use]
    pub const fn amazon() -> Self {
        Self(None)
    }

    /// The certificates in `pem` and nothing else.
    ///
    /// # Errors
    /// When `pem` holds no certificate, or one that cannot be a trust anchor.
    pub fn custom(pem: Vec<u8>) -> Result<Self, Malformed> {
        roots(&pem)?;
        Ok(Self(Some(Arc::new(pem))))
    }

    /// True when a configured CA replaces the embedded roots.
    #[must_use]
    pub fn is_custom(&self) -> bool {
        self.0.is_some()
    }

    /// Roots for a server whose own chain ends at the Amazon Trust Services.
    ///
    /// # Errors
    /// Only if an embedded root were damaged; a test excludes it.
    pub fn amazon_roots(&self) -> Result<RootCertStore, Malformed> {
        roots(self.amazon_pem().as_slice())
    }

    /// Roots for a server that chains to `embedded` (PEM) instead, unless a CA is configured.
    ///
    /// # Errors
    /// When `embedded` holds no usable certificate.
    pub fn roots_or(&self, embedded: &str) -> Result<RootCertStore, Malformed> {
        match &self.0 {
            Some(pem) => roots(pem),
            None => roots(embedded.as_bytes()),
        }
    }

    pub(crate) fn amazon_pem(&self) -> Vec<u8> {
        self.0.as_ref().map_or_else(|| AMAZON.as_bytes().to_vec(), |pem| pem.to_vec())
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_custom() { "Trust(configured CA)" } else { "Trust(Amazon Trust Services)" })
    }
}

/// PEM text without a usable certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no usable certificate")
    }
}

impl std::error::Error for Malformed {}

fn roots(pem: &[u8]) -> Result<RootCertStore, Malformed> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        store.add(certificate.map_err(|_| Malformed)?).map_err(|_| Malformed)?;
    }
    if store.is_empty() { Err(Malformed) } else { Ok(store) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_store_holds_the_five_amazon_roots_and_no_other() {
        let store = Trust::amazon().amazon_roots().expect("embedded roots parse");
        let subjects: Vec<String> =
            store.roots.iter().map(|root| String::from_utf8_lossy(root.subject.as_ref()).into_owned()).collect();
        assert_eq!(subjects.len(), 5);
        for name in
            ["Amazon Root CA 1", "Amazon Root CA 2", "Amazon Root CA 3", "Amazon Root CA 4", "Starfield Services Root"]
        {
            assert!(subjects.iter().any(|s| s.contains(name)), "{name}");
        }
    }

    #[test]
    fn a_configured_ca_replaces_the_embedded_roots() {
        let one = AMAZON.split_inclusive("-----END CERTIFICATE-----").next().expect("first certificate");
        let trust = Trust::custom(one.as_bytes().to_vec()).expect("one certificate");
        assert_eq!(trust.amazon_roots().expect("parses").len(), 1);
        assert_eq!(trust.roots_or(AMAZON).expect("parses").len(), 1);
        assert_eq!(Trust::amazon().roots_or(one).expect("parses").len(), 1);
    }

    #[test]
    fn pem_without_a_certificate_is_refused() {
        for pem in ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert_eq!(Trust::custom(pem.as_bytes().to_vec()), Err(Malformed), "{pem}");
        }
    }
}
