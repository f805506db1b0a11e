//! What a file may be and how it may be reached: keys, names, types, sizes, digests, the life of a signed URL, and the
//! ports behind which S3 and STS sit.
//!
//! File bytes never pass through a function. A client gets a URL that is exact about one key, size, type, digest and
//! time, so everything that such a URL is made of is a type here that cannot be wrong.

mod content_type;
mod digest;
mod key;
mod life;
mod magic;
mod name;
mod port;
mod settings;
mod size;
mod status;

pub use content_type::ContentType;
pub use digest::{Sha256Digest, Sha256Hasher};
pub use key::{FileId, ObjectKey, UploadId, VersionId};
pub use life::{TooShort, UrlLife};
pub use name::FileName;
pub use port::{
    Completion, FormTerms, Head, HeldPart, ObjectHead, ObjectStore, Part, PartStore, PartTerms, Presign, ReadTerms,
    SignedForm, SignedRequest, SignedUrl, SignerReach, SignerSession, SignerSessions, WriteTerms,
};
pub use settings::{Scan, SigningSettings};
pub use size::{MAX_FILE, MAX_PUT, Parts, Size, SizeFault};
pub use status::FileStatus;
