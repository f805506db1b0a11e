//! Digests of an upload: everything the client declared is compared with what arrived, before anything is stored.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::{Checksum, ChecksumType, PutObjectInput, UploadPartInput};
use s3s::{S3Error, S3ErrorCode, S3Result};

/// The checksum algorithms of S3: name in messages, header, length of the value in bytes.
const ALGORITHMS: [(&str, &str, usize); 5] = [
    ("CRC32", "x-amz-checksum-crc32", 4),
    ("CRC32C", "x-amz-checksum-crc32c", 4),
    ("CRC64NVME", "x-amz-checksum-crc64nvme", 8),
    ("SHA1", "x-amz-checksum-sha1", 20),
    ("SHA256", "x-amz-checksum-sha256", 32),
];

/// What a body hashes to.
pub(crate) struct Digests {
    /// MD5 in lower-case hex: the ETag of an object that is not encrypted under KMS.
    pub(crate) md5: String,
    /// The checksum the client declared, or CRC64NVME, which S3 computes when none was declared.
    pub(crate) checksum: Checksum,
}

/// What a client says of a body's digests.
pub(crate) struct Declared {
    content_md5: Option<String>,
    checksum: Checksum,
}

macro_rules! declared {
    ($($input:ty)+) => {
        $(impl From<&$input> for Declared {
            fn from(input: &$input) -> Declared {
                let checksum = Checksum {
                    checksum_crc32: input.checksum_crc32.clone(),
                    checksum_crc32c: input.checksum_crc32c.clone(),
                    checksum_crc64nvme: input.checksum_crc64nvme.clone(),
                    checksum_sha1: input.checksum_sha1.clone(),
                    checksum_sha256: input.checksum_sha256.clone(),
                    checksum_type: None,
                };
                Declared { content_md5: input.content_md5.clone(), checksum }
            }
        })+
    };
}

declared!(PutObjectInput UploadPartInput);

/// Compares the body with every digest declared in the input and in the trailers of a chunked upload.
///
/// # Errors
/// `InvalidDigest` and `InvalidRequest` for values that are no digest or contradict each other, `BadDigest` for a value
/// that is not the body's.
pub(crate) fn verify(
    input: &Declared,
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
    body: &[u8],
) -> S3Result<Digests> {
    let mut md5 = Md5::new();
    md5.update(body);
    let md5 = md5.finalize();
    if let Some(declared) = &input.content_md5 {
        let declared = decode(declared, 16)
            .ok_or_else(|| refuse(S3ErrorCode::InvalidDigest, "The Content-MD5 you specified was invalid."))?;
        if declared != md5.as_ref() as &[u8] {
            let message = "The Content-MD5 you specified did not match what we received.";
            return Err(refuse(S3ErrorCode::BadDigest, message));
        }
    }

    let mut declared = None;
    for (algorithm, value) in declared_checksums(input, trailers)? {
        if declared.replace((algorithm, value)).is_some() {
            let message = "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.";
            return Err(refuse(S3ErrorCode::InvalidRequest, message));
        }
    }
    // s3s takes this one from forms only.
    if let Some(wanted) = headers.get("x-amz-sdk-checksum-algorithm") {
        let found = declared.as_ref().map(|((name, _, _), _)| name.as_bytes());
        if found != Some(wanted.as_bytes()) {
            let message = "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found.";
            return Err(refuse(S3ErrorCode::InvalidRequest, message));
        }
    }

    let ((name, header, length), value) = match declared {
        Some((algorithm, value)) => (algorithm, Some(value)),
        None => (("CRC64NVME", "x-amz-checksum-crc64nvme", 8), None),
    };
    let mut checksum = hash(name, body);
    if let Some(value) = value {
        let Some(bytes) = decode(&value, length) else {
            return Err(refuse(S3ErrorCode::InvalidRequest, format!("Value for {header} header is invalid.")));
        };
        if Some(STANDARD.encode(bytes)) != only(&checksum) {
            let message = format!("The {name} you specified did not match the calculated checksum.");
            return Err(refuse(S3ErrorCode::BadDigest, message));
        }
    }
    checksum.checksum_type = Some(ChecksumType::from_static(ChecksumType::FULL_OBJECT));
    Ok(Digests { md5: hex(md5.as_ref()), checksum })
}

/// Whether `x-amz-content-sha256`, when it is a hash and not a mode, is that of the body.
pub(crate) fn is_sha256_of(declared: &str, body: &[u8]) -> bool {
    hex(digest(&SHA256, body).as_ref()) == declared
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

type Algorithm = (&'static str, &'static str, usize);

fn declared_checksums(input: &Declared, trailers: Option<&HeaderMap>) -> S3Result<Vec<(Algorithm, String)>> {
    let mut found = Vec::new();
    for algorithm in ALGORITHMS {
        let (name, header, _) = algorithm;
        let in_header = match name {
            "CRC32" => &input.checksum.checksum_crc32,
            "CRC32C" => &input.checksum.checksum_crc32c,
            "CRC64NVME" => &input.checksum.checksum_crc64nvme,
            "SHA1" => &input.checksum.checksum_sha1,
            _ => &input.checksum.checksum_sha256,
        };
        found.extend(in_header.clone().map(|value| (algorithm, value)));
        if let Some(value) = trailers.and_then(|trailers| trailers.get(header)) {
            let invalid =
                || refuse(S3ErrorCode::InvalidRequest, format!("Value for {header} trailing header is invalid."));
            found.push((algorithm, value.to_str().map_err(|_| invalid())?.trim().to_owned()));
        }
    }
    Ok(found)
}

fn hash(name: &str, body: &[u8]) -> Checksum {
    let mut hasher = ChecksumHasher::default();
    match name {
        "CRC32" => hasher.crc32 = Some(Default::default()),
        "CRC32C" => hasher.crc32c = Some(Default::default()),
        "SHA1" => hasher.sha1 = Some(Default::default()),
        "SHA256" => hasher.sha256 = Some(Default::default()),
        _ => hasher.crc64nvme = Some(Default::default()),
    }
    hasher.update(body);
    hasher.finalize()
}

fn only(checksum: &Checksum) -> Option<String> {
    let Checksum { checksum_crc32, checksum_crc32c, checksum_crc64nvme, checksum_sha1, checksum_sha256, .. } = checksum;
    [checksum_crc32, checksum_crc32c, checksum_crc64nvme, checksum_sha1, checksum_sha256]
        .into_iter()
        .find_map(Clone::clone)
}

fn decode(value: &str, length: usize) -> Option<Vec<u8>> {
    STANDARD.decode(value).ok().filter(|bytes| bytes.len() == length)
}

fn refuse(code: S3ErrorCode, message: impl Into<std::borrow::Cow<'static, str>>) -> S3Error {
    S3Error::with_message(code, message)
}
