//! base64url without padding, into buffers that a batch uses again and again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroize as _;

use crate::name::Malformed;

/// Appends the encoding of `bytes` to `out`.
pub fn encode_into(bytes: &[u8], out: &mut String) {
    URL_SAFE_NO_PAD.encode_string(bytes, out);
}

/// Replaces `out` by what `text` decodes to. Padding, white space, another alphabet and non-zero trailing bits are refused.
///
/// `out` never grows by reallocation, which would leave a copy of a plaintext behind.
pub fn decode_into(text: &str, out: &mut Vec<u8>) -> Result<(), Malformed> {
    out.clear();
    let room = text.len().saturating_add(3);
    if out.capacity() < room {
        out.zeroize();
        out.reserve_exact(room);
    }
    URL_SAFE_NO_PAD.decode_vec(text, out).map_err(|_| Malformed("base64url text"))
}
