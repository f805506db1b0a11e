//! RSA keys for tests. Making one takes a tenth of a second, so that all tests of a program share these.

use std::sync::OnceLock;

use aws_lc_rs::rsa::{KeyPair, KeySize};

/// One of three keys.
pub(crate) fn pair(which: usize) -> &'static KeyPair {
    static PAIRS: [OnceLock<KeyPair>; 3] = [const { OnceLock::new() }; 3];
    PAIRS[which].get_or_init(|| KeyPair::generate(KeySize::Rsa2048).unwrap())
}
