//! Uploads in parts, as Portcullis makes them: SHA-256 of each part, the composite digest over all, written once.
//!
//! Other algorithms and whole-object digests are refused, as is everything else that nobody here uses.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest as hash};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use s3s::dto::{
    Checksum, ChecksumAlgorithm, ChecksumType, CompleteMultipartUploadInput, CompletedPart, CreateMultipartUploadInput,
    ETag, ListPartsInput, ListPartsOutput, Part,
};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::lifecycle::Rule;
use super::refusal::{error, not_implemented, with_element, with_status};
use super::store::{Attributes, Spooled};
use crate::account::letters;

/// No part but the last may be smaller, in bytes.
const SMALLEST: u64 = 5 * 1024 * 1024;
const MOST: i32 = 10_000;
/// A page of `ListParts`.
const PAGE: usize = 1000;

/// An upload that is no object yet.
#[derive(Debug)]
pub(crate) struct Upload {
    bucket: String,
    key: String,
    begun: SystemTime,
    pub(crate) attributes: Attributes,
    parts: BTreeMap<i32, HeldPart>,
}

/// A part that has arrived.
#[derive(Debug)]
pub(crate) struct HeldPart {
    pub(crate) spooled: Arc<Spooled>,
    pub(crate) etag: String,
    /// Base64.
    pub(crate) sha256: String,
}

/// All uploads that are no objects yet.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<BTreeMap<String, Upload>>);

/// What an object is made of, in order.
pub(crate) struct Assembled {
    pub(crate) attributes: Attributes,
    pub(crate) parts: Vec<Arc<Spooled>>,
    pub(crate) etag: String,
}

impl Uploads {
    pub(crate) fn begin(&self, bucket: &str, key: &str, attributes: Attributes, now: SystemTime) -> String {
        let id = letters(64);
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        self.lock().insert(id.clone(), Upload { bucket, key, begun: now, attributes, parts: BTreeMap::new() });
        id
    }

    /// Gives up what these rules of a bucket say is given up by now.
    pub(crate) fn follow(&self, bucket: &str, rules: &[Rule], now: SystemTime) {
        let over = |upload: &Upload| rules.iter().any(|rule| rule.upload_is_over(&upload.key, upload.begun, now));
        self.lock().retain(|_, upload| upload.bucket != bucket || !over(upload));
    }

    /// Asks something of an upload of this key.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    pub(crate) fn with<T>(&self, bucket: &str, key: &str, id: &str, act: impl FnOnce(&mut Upload) -> T) -> S3Result<T> {
        let mut uploads = self.lock();
        let found = uploads.get_mut(id).filter(|upload| upload.bucket == bucket && upload.key == key);
        found.map(act).ok_or_else(no_such_upload)
    }

    /// Ends an upload and its parts.
    ///
    /// # Errors
    /// `NoSuchUpload`.
    pub(crate) fn end(&self, bucket: &str, key: &str, id: &str) -> S3Result<()> {
        self.with(bucket, key, id, |_| ())?;
        self.lock().remove(id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Upload>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    /// A part replaces the one of its number.
    pub(crate) fn add(&mut self, number: i32, part: HeldPart) {
        self.parts.insert(number, part);
    }

    pub(crate) fn list(&self, input: ListPartsInput) -> S3Result<ListPartsOutput> {
        let after = input.part_number_marker.unwrap_or_default();
        let most = usize::try_from(input.max_parts.unwrap_or(1000)).map_err(|_| invalid_argument("max-parts"))?;
        let most = most.min(PAGE);
        let mut rest = self.parts.range(after.saturating_add(1)..);
        let page: Vec<Part> = rest
            .by_ref()
            .take(most)
            .map(|(number, part)| Part {
                part_number: Some(*number),
                size: i64::try_from(part.spooled.size).ok(),
                e_tag: Some(ETag::Strong(part.etag.clone())),
                checksum_sha256: Some(part.sha256.clone()),
                ..Default::default()
            })
            .collect();
        let truncated = rest.next().is_some();
        let last = page.last().and_then(|part| part.part_number);
        Ok(ListPartsOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            checksum_algorithm: Some(ChecksumAlgorithm::from_static(ChecksumAlgorithm::SHA256)),
            checksum_type: Some(ChecksumType::from_static(ChecksumType::COMPOSITE)),
            max_parts: i32::try_from(most).ok(),
            part_number_marker: input.part_number_marker,
            next_part_number_marker: last.filter(|_| truncated),
            is_truncated: Some(truncated),
            parts: Some(page),
            ..Default::default()
        })
    }

    /// What the parts that are named amount to.
    ///
    /// # Errors
    /// `MalformedXML`, `InvalidPartOrder`, `InvalidPart`, `EntityTooSmall` and `InvalidRequest`, as AWS has them.
    pub(crate) fn assemble(&self, input: &CompleteMultipartUploadInput) -> S3Result<Assembled> {
        let named = input.multipart_upload.as_ref().and_then(|upload| upload.parts.as_deref()).unwrap_or_default();
        if named.is_empty() {
            let message = "The XML you provided was not well-formed or did not validate against our published schema";
            return Err(error(S3ErrorCode::MalformedXML, message));
        }
        let numbers: Vec<i32> = named.iter().map(|part| part.part_number.unwrap_or_default()).collect();
        if !numbers.iter().zip(numbers.iter().skip(1)).all(|(before, after)| before < after) {
            let message = "The list of parts was not in ascending order. Parts must be ordered by part number.";
            return Err(error(S3ErrorCode::InvalidPartOrder, message));
        }
        let (mut parts, mut digests, mut size) = (Vec::new(), Vec::new(), 0_u64);
        for (place, (part, number)) in named.iter().zip(numbers).enumerate() {
            let held = self.named(number, part)?;
            if held.spooled.size < SMALLEST && place + 1 < named.len() {
                let message = "Your proposed upload is smaller than the minimum allowed size";
                return Err(error(S3ErrorCode::EntityTooSmall, message));
            }
            size += held.spooled.size;
            digests.extend(STANDARD.decode(&held.sha256).map_err(S3Error::internal_error)?);
            parts.push(Arc::clone(&held.spooled));
        }
        if input.mpu_object_size.is_some_and(|declared| u64::try_from(declared).ok() != Some(size)) {
            let message = "The provided 'x-amz-mp-object-size' header does not match what was computed.";
            return Err(error(S3ErrorCode::InvalidRequest, message));
        }
        let composite = format!("{}-{}", STANDARD.encode(hash(&SHA256, &digests)), parts.len());
        let etag = super::digest::hex(hash(&SHA256, composite.as_bytes()).as_ref());
        let etag = format!("{}-{}", etag.chars().take(32).collect::<String>(), parts.len());
        let checksum = Checksum {
            checksum_sha256: Some(composite),
            checksum_type: Some(ChecksumType::from_static(ChecksumType::COMPOSITE)),
            ..Default::default()
        };
        Ok(Assembled { attributes: Attributes { checksum, ..self.attributes.clone() }, parts, etag })
    }

    fn named(&self, number: i32, part: &CompletedPart) -> S3Result<&HeldPart> {
        let etag = part.e_tag.as_ref().map(ETag::value).unwrap_or_default();
        let Some(declared) = &part.checksum_sha256 else {
            let message = format!(
                "The upload was created using a sha256 checksum. The complete request must include the checksum for each part. It was missing for part {number} in the request."
            );
            return Err(error(S3ErrorCode::InvalidRequest, message));
        };
        let held = self.parts.get(&number).filter(|held| held.etag == etag && held.sha256 == *declared);
        held.ok_or_else(|| {
            let message = "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.";
            with_element(error(S3ErrorCode::InvalidPart, message), "PartNumber", &number.to_string())
        })
    }
}

/// The algorithm must be the one that everybody here uses.
///
/// # Errors
/// `NotImplemented` for all others.
pub(crate) fn refuse_other_digests(input: &CreateMultipartUploadInput) -> S3Result<()> {
    let algorithm = input.checksum_algorithm.as_ref().map(ChecksumAlgorithm::as_str);
    let of_parts = input.checksum_type.as_ref().is_none_or(|given| given.as_str() == ChecksumType::COMPOSITE);
    if algorithm == Some(ChecksumAlgorithm::SHA256) && of_parts { Ok(()) } else { Err(not_implemented()) }
}

/// 1 to 10,000.
///
/// # Errors
/// `InvalidArgument`.
pub(crate) fn part_number(number: i32) -> S3Result<i32> {
    if (1..=MOST).contains(&number) { Ok(number) } else { Err(invalid_argument("partNumber")) }
}

/// A part without the digest that its upload was begun for.
pub(crate) fn wrong_digest() -> S3Error {
    let message = "Checksum Type mismatch occurred, expected checksum Type: sha256, actual checksum Type: null";
    error(S3ErrorCode::InvalidRequest, message)
}

fn invalid_argument(name: &str) -> S3Error {
    let message = "Part number must be an integer between 1 and 10000, inclusive";
    with_element(error(S3ErrorCode::InvalidArgument, message), "ArgumentName", name)
}

fn no_such_upload() -> S3Error {
    let message = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.";
    with_status(error(S3ErrorCode::NoSuchUpload, message), http::StatusCode::NOT_FOUND)
}
