//! Listings: pages, common prefixes, tokens and the encoding of keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use s3s::dto::{CommonPrefix, ETag, EncodingType, Object as ListedObject, ObjectStorageClass, Timestamp};
use s3s::{S3Error, S3ErrorCode, S3Result};

use super::refusal::{error, with_element};
use super::store::Store;

const LONGEST_LISTING: i32 = 1000;

/// What a listing asks for.
pub(crate) struct Listing<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) prefix: &'a str,
    pub(crate) delimiter: Option<&'a str>,
    pub(crate) after: Option<&'a str>,
    pub(crate) max_keys: Option<i32>,
    pub(crate) encode: bool,
}

/// One page of a listing.
pub(crate) struct Page {
    pub(crate) contents: Vec<ListedObject>,
    pub(crate) prefixes: Vec<CommonPrefix>,
    pub(crate) next: Option<String>,
    pub(crate) max_keys: i32,
    pub(crate) encode: bool,
}

impl Page {
    /// A key as this page writes it: `encoding-type=url` or plain.
    pub(crate) fn spell(&self, text: &str) -> String {
        const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'*').remove(b'/');
        if self.encode { utf8_percent_encode(text, KEPT).to_string() } else { text.to_owned() }
    }
}

/// Fills one page from the bucket's current objects.
///
/// # Errors
/// `InvalidArgument` for a negative number of keys.
pub(crate) fn page(store: &Store, listing: &Listing<'_>) -> S3Result<Page> {
    let max_keys = listing.max_keys.unwrap_or(LONGEST_LISTING);
    if max_keys < 0 {
        let refused =
            error(S3ErrorCode::InvalidArgument, "Argument maxKeys must be an integer between 0 and 2147483647");
        return Err(with_element(refused, "ArgumentName", "maxKeys"));
    }
    let max_keys = max_keys.min(LONGEST_LISTING);
    let limit = usize::try_from(max_keys).unwrap_or_default();
    let mut page = Page { contents: Vec::new(), prefixes: Vec::new(), next: None, max_keys, encode: listing.encode };
    let mut last: Option<String> = None;
    for (key, modified, object) in store.list(listing.bucket, listing.prefix) {
        let group = listing.delimiter.and_then(|delimiter| {
            let rest = key.get(listing.prefix.len()..)?;
            let end = listing.prefix.len() + rest.find(delimiter)? + delimiter.len();
            key.get(..end).map(str::to_owned)
        });
        let name = group.clone().unwrap_or_else(|| key.clone());
        // A group that was listed already, or that the page starts after, stands for all its keys.
        if last.as_deref() == Some(name.as_str()) || listing.after.is_some_and(|after| name.as_str() <= after) {
            continue;
        }
        if page.contents.len() + page.prefixes.len() >= limit {
            page.next = last.filter(|_| limit > 0);
            break;
        }
        match &group {
            Some(prefix) => page.prefixes.push(CommonPrefix { prefix: Some(page.spell(prefix)) }),
            None => page.contents.push(ListedObject {
                key: Some(page.spell(&key)),
                e_tag: Some(ETag::Strong(object.etag.clone())),
                last_modified: Some(Timestamp::from(modified)),
                size: Some(i64::try_from(object.size).map_err(S3Error::internal_error)?),
                storage_class: Some(ObjectStorageClass::from_static(ObjectStorageClass::STANDARD)),
                ..Default::default()
            }),
        }
        last = Some(name);
    }
    Ok(page)
}

/// Whether keys are to be URL-encoded.
///
/// # Errors
/// `InvalidArgument` for any encoding but `url`.
pub(crate) fn encodes(encoding: Option<&EncodingType>) -> S3Result<bool> {
    match encoding.map(EncodingType::as_str) {
        None => Ok(false),
        Some("url") => Ok(true),
        Some(_) => Err(error(S3ErrorCode::InvalidArgument, "Invalid Encoding Method specified in Request")),
    }
}

/// The continuation token of a page that ends with this key.
pub(crate) fn token(key: &str) -> String {
    URL_SAFE_NO_PAD.encode(key)
}

/// The key behind a continuation token.
///
/// # Errors
/// `InvalidArgument` for a token that is none of ours.
pub(crate) fn position(token: &str) -> S3Result<String> {
    let decoded = URL_SAFE_NO_PAD.decode(token).ok();
    decoded
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| error(S3ErrorCode::InvalidArgument, "The continuation token provided is incorrect"))
}
