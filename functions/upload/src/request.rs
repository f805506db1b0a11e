//! The body and headers of `POST /files`, parsed into what a file may be.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;
use shared::http::Request;
use shared::object::{ContentType, FileName, Part, Parts, Sha256Digest, Size, SizeFault};
use shared::problem::{Code, Problem};

/// More than any well-formed body needs, in bytes.
const LARGEST_BODY: usize = 8 * 1024;

/// A file that its caller declares. Key, bucket and tenant are nobody's to name: a body that has them is refused.
#[derive(Clone, Debug)]
pub(crate) struct NewFile {
    pub(crate) name: FileName,
    pub(crate) declared: Declared,
}

/// What a caller says of a file's bytes, and what is signed for.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) content_type: ContentType,
    pub(crate) bytes: Bytes,
}

/// How the bytes come, and what is known of them before.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    /// By one PUT of exactly these.
    Put { size: Size, sha256: Sha256Digest },
    /// By a form, up to a size.
    Form { longest: Size },
    /// In parts.
    Parts(Parts),
}

impl Bytes {
    /// The mode's name.
    pub(crate) fn mode(&self) -> &'static str {
        match self {
            Bytes::Put { .. } => "put",
            Bytes::Form { .. } => "post",
            Bytes::Parts(_) => "multipart",
        }
    }
}

impl NewFile {
    pub(crate) fn read(request: &Request) -> Result<NewFile, Problem> {
        #[derive(Deserialize)]
        struct Mode {
            mode: String,
        }
        // The mode first: each mode has a body of its own, and what does not exist here is not malformed.
        match request.json::<Mode>(LARGEST_BODY)?.mode.as_str() {
            "put" => NewFile::put(request),
            "post" => NewFile::form(request),
            "multipart" => NewFile::in_parts(request),
            _ => Err(Code::UnsupportedMode.into()),
        }
    }

    fn put(request: &Request) -> Result<NewFile, Problem> {
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
        let body: Body = request.json(LARGEST_BODY)?;
        let content_type = content_type(&body.content_type)?;
        let size = Size::of_put(body.size).map_err(size_fault)?;
        let sha256 = Sha256Digest::parse(&body.sha256).map_err(|_| Code::MalformedRequest)?;
        Ok(NewFile {
            name: FileName::clean(&body.name),
            declared: Declared { content_type, bytes: Bytes::Put { size, sha256 } },
        })
    }

    fn form(request: &Request) -> Result<NewFile, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            name: String,
            content_type: String,
            max_size: u64,
            #[serde(rename = "mode")]
            _mode: String,
        }
        let body: Body = request.json(LARGEST_BODY)?;
        let content_type = content_type(&body.content_type)?;
        let longest = Size::of_put(body.max_size).map_err(size_fault)?;
        Ok(NewFile {
            name: FileName::clean(&body.name),
            declared: Declared { content_type, bytes: Bytes::Form { longest } },
        })
    }

    fn in_parts(request: &Request) -> Result<NewFile, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            name: String,
            content_type: String,
            size: u64,
            part_size: Option<u64>,
            #[serde(rename = "mode")]
            _mode: String,
        }
        let body: Body = request.json(LARGEST_BODY)?;
        let content_type = content_type(&body.content_type)?;
        let parts = Size::of_file(body.size).and_then(|size| Parts::of(size, body.part_size)).map_err(size_fault)?;
        Ok(NewFile {
            name: FileName::clean(&body.name),
            declared: Declared { content_type, bytes: Bytes::Parts(parts) },
        })
    }

    /// What makes two requests the same one: their meaning, not their spelling.
    pub(crate) fn fingerprint(&self) -> Sha256Digest {
        let (name, content_type) = (self.name.as_str(), self.declared.content_type.declared());
        let mode = self.declared.bytes.mode();
        let parts = match &self.declared.bytes {
            Bytes::Put { size, sha256 } => json!([mode, name, content_type, size.bytes(), sha256.to_string()]),
            Bytes::Form { longest } => json!([mode, name, content_type, longest.bytes()]),
            Bytes::Parts(parts) => json!([mode, name, content_type, parts.size().bytes(), parts.each()]),
        };
        Sha256Digest::of(parts.to_string().as_bytes())
    }
}

/// The parts that are asked to be signed: 1 to 500, each once.
#[derive(Clone, Debug)]
pub(crate) struct SomeParts {
    pub(crate) parts: Vec<Part>,
    /// Whether parts that are there already are wanted to be told and not signed for.
    pub(crate) resume: bool,
}

impl SomeParts {
    /// The most that one call signs for.
    const MOST: usize = 500;
    /// More than 500 parts need, in bytes.
    const LARGEST_BODY: usize = 128 * 1024;

    pub(crate) fn read(request: &Request) -> Result<SomeParts, Problem> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            parts: Vec<Row>,
            #[serde(default)]
            resume: bool,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Row {
            part: u32,
            size: u64,
            sha256: String,
        }
        let body: Body = request.json(Self::LARGEST_BODY)?;
        if body.parts.is_empty() {
            return Err(Code::MalformedRequest.into());
        }
        if body.parts.len() > Self::MOST {
            return Err(Code::PayloadTooLarge.into());
        }
        let mut seen = BTreeSet::new();
        let mut parts = Vec::with_capacity(body.parts.len());
        for Row { part, size, sha256 } in body.parts {
            let known = (1..=Parts::MOST).contains(&u64::from(part)) && (1..=Parts::LARGEST).contains(&size);
            if !known || !seen.insert(part) {
                return Err(Code::MalformedRequest.into());
            }
            let sha256 = Sha256Digest::parse(&sha256).map_err(|_| Code::MalformedRequest)?;
            parts.push(Part { number: part, size, sha256 });
        }
        Ok(SomeParts { parts, resume: body.resume })
    }
}

fn content_type(text: &str) -> Result<ContentType, Problem> {
    ContentType::parse(text).map_err(|_| Code::UnsupportedType.into())
}

fn size_fault(fault: SizeFault) -> Problem {
    match fault {
        SizeFault::Empty => Code::MalformedRequest.into(),
        SizeFault::TooLarge => Code::PayloadTooLarge.into(),
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
