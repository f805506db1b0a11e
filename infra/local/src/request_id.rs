//! Request ids, which every answer of a service carries.

use aws_lc_rs::rand;

/// A random UUID in text form.
pub(crate) fn fresh() -> String {
    let mut bytes = [0; 16];
    // Nothing depends on this id being unpredictable, so an answer is not lost for want of randomness.
    let _ = rand::fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}
