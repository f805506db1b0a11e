//! The body and headers of `POST /files`, parsed into what a file may be.

use serde::Deserialize;
use serde_json::json;
use shared::http::Request;
use shared::object::{ContentType, FileName, Sha256Digest, Size, SizeFault};
use shared::problem::{Code, Problem};

/// More than any well-formed body needs, in bytes.
const LARGEST_BODY: usize = 8 * 1024;

/// A file that its caller declares. Key, bucket and tenant are nobody's to name: a body that has them is refused.
#[derive(Clone, Debug)]
pub(crate) struct NewFile {
    pub(crate) name: FileName,
    pub(crate) bytes: DeclaredBytes,
}

/// What a caller says of a file's bytes, and what is signed for.
#[derive(Clone, Debug)]
pub(crate) struct DeclaredBytes {
    pub(crate) content_type: ContentType,
    pub(crate) size: Size,
    pub(crate) sha256: Sha256Digest,
}

impl NewFile {
    pub(crate) fn read(request: &Request) -> Result<NewFile, Problem> {
        #[derive(Deserialize)]
        struct Mode {
            mode: String,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            name: String,
            content_type: String,
            size: u64,
            sha256: String,
            #[serde(rename = "mode")]
            _mode: String,
        }
        // The mode first: each mode has a body of its own, and what does not exist here is not malformed.
        if request.json::<Mode>(LARGEST_BODY)?.mode != "put" {
            return Err(Code::UnsupportedMode.into());
        }
        let body: Body = request.json(LARGEST_BODY)?;
        Ok(NewFile {
            name: FileName::clean(&body.name),
            bytes: DeclaredBytes {
                content_type: ContentType::parse(&body.content_type).map_err(|_| Code::UnsupportedType)?,
                size: Size::of_put(body.size).map_err(|fault| match fault {
                    SizeFault::Empty => Code::MalformedRequest,
                    SizeFault::TooLarge => Code::PayloadTooLarge,
                })?,
                sha256: Sha256Digest::parse(&body.sha256).map_err(|_| Code::MalformedRequest)?,
            },
        })
    }

    /// What makes two requests the same one: their meaning, not their spelling.
    pub(crate) fn fingerprint(&self) -> Sha256Digest {
        let parts = json!([
            "put",
            self.name.as_str(),
            self.bytes.content_type.declared(),
            self.bytes.size.bytes(),
            self.bytes.sha256.to_string()
        ]);
        Sha256Digest::of(parts.to_string().as_bytes())
    }
}

/// Refuses a body where there is nothing to say: whoever sends one believes that it names something.
pub(crate) fn no_body(request: &Request) -> Result<(), Problem> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    if request.body.is_empty() {
        return Ok(());
    }
    request.json(LARGEST_BODY).map(|Nothing {}| ())
}

/// The `Idempotency-Key`, if there is one: a single value of 1 to 255 visible ASCII characters.
pub(crate) fn idempotency_key(request: &Request) -> Result<Option<String>, Problem> {
    let mut values = request.headers.all("idempotency-key");
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(key), None) if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(Some(key.to_owned()))
        }
        _ => Err(Code::MalformedRequest.into()),
    }
}
