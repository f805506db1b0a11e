//! The operations of S3 that Portcullis and its operators use, over the [`Store`]. All others stay what s3s makes of
//! them: 501 NotImplemented.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{SHA256, digest as hash};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Bucket, Checksum, ChecksumType,
    CompleteMultipartUploadInput, CompleteMultipartUploadOutput, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, DeleteBucketLifecycleInput, DeleteBucketLifecycleOutput, DeleteObjectInput,
    DeleteObjectOutput, ETag, GetBucketLifecycleConfigurationInput, GetBucketLifecycleConfigurationOutput,
    GetObjectInput, GetObjectOutput, HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput,
    ListBucketsInput, ListBucketsOutput, ListObjectsInput, ListObjectsOutput, ListObjectsV2Input, ListObjectsV2Output,
    ListPartsInput, ListPartsOutput, Owner, PutBucketLifecycleConfigurationInput,
    PutBucketLifecycleConfigurationOutput, PutObjectInput, PutObjectOutput, StreamingBlob, Timestamp, UploadPartInput,
    UploadPartOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use tokio::sync::mpsc::UnboundedSender;

use super::access::{self, Caller};
use super::conditions::{self, ReadConditions};
use super::lifecycle::{Lifecycle, Lifecycles};
use super::listing::{self, Listing};
use super::multipart::{HeldPart, Uploads};
use super::refusal::{VERSION_ID, error, not_implemented, with_element, with_header, with_status};
use super::store::{self, Attributes, Committed, Encryption, Found, Object, Store, Version};
use super::{ObjectCreated, digest, encryption, multipart};
use crate::account::Account;
use crate::kms::Kms;

/// The implementation behind s3s.
pub(crate) struct Operations {
    pub(crate) account: Arc<Account>,
    pub(crate) store: Arc<Store>,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) events: UnboundedSender<ObjectCreated>,
    /// Whom to ask about the state of a key, where there is a KMS.
    pub(crate) kms: Arc<OnceLock<Arc<Kms>>>,
    pub(crate) lifecycles: Arc<Lifecycles>,
}

const LONGEST_KEY: usize = 1024;
/// Of names and values of user-defined metadata together, in bytes.
const MOST_METADATA: usize = 2048;

#[async_trait::async_trait]
impl s3s::S3 for Operations {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let caller = access::caller(&request.extensions)?;
        let mut input = request.input;
        refuse_unknown_features(&input)?;
        let condition = conditions::write_condition(&input)?;
        let asked = (input.server_side_encryption.as_ref(), input.ssekms_key_id.as_deref(), input.bucket_key_enabled);
        let encryption = encryption::requested(asked, &self.account)?;
        refuse_oversized(&input.key, input.metadata.as_ref())?;
        if let Encryption::Kms { key_arn, bucket_key } = &encryption {
            let context = encryption::context(&input.bucket, &input.key, *bucket_key);
            access::use_key((&self.account, self.kms.get()), &caller, "kms:GenerateDataKey", key_arn, &context)?;
        }

        let body = match input.body.take() {
            Some(body) => collect(body).await?,
            None => Bytes::new(),
        };
        let trailers = request.trailing_headers.and_then(|trailers| trailers.take());
        let announced = request.headers.get("x-amz-trailer").and_then(|value| value.to_str().ok());
        if let Some(announced) = announced
            && trailers.as_ref().is_none_or(|trailers| !trailers.contains_key(announced.to_ascii_lowercase()))
        {
            let message = "The request contained trailing data that was not well-formed or did not conform to our published schema.";
            return Err(error(S3ErrorCode::Custom("MalformedTrailerError".into()), message))
                .map_err(|error| with_status(error, http::StatusCode::BAD_REQUEST));
        }
        let digests = digest::verify(&(&input).into(), &request.headers, trailers.as_ref(), &body)?;

        let body = store::Body::from(self.store.spool(body).await.map_err(S3Error::internal_error)?);
        let (version_id, size) = (body.version_id.clone(), body.size());
        let etag = match &encryption {
            Encryption::Managed => digests.md5,
            // Under KMS the ETag is no digest of the body: callers must not lean on it.
            Encryption::Kms { .. } => {
                let digest = hash(&SHA256, format!("{version_id}{}", digests.md5).as_bytes());
                digest::hex(digest.as_ref()).chars().take(32).collect()
            }
        };
        let checksum = digests.checksum.clone();
        let attributes = Attributes {
            content_type: input.content_type,
            content_encoding: input.content_encoding.and_then(without_transfer_coding),
            content_language: input.content_language,
            content_disposition: input.content_disposition,
            cache_control: input.cache_control,
            expires: input.expires,
            metadata: input.metadata,
            encryption: encryption.clone(),
            checksum: digests.checksum,
        };
        let description = (etag.clone(), attributes);
        let (bucket, key) = (input.bucket, input.key);
        let expiration = self.lifecycles.expiration(&bucket, &key, caller.now);
        match self.store.commit(&bucket, &key, body, description, &condition, caller.now) {
            Committed::Stored { sequencer } => {
                // Nobody listening is no reason to fail a write, here as in AWS.
                let _ = self.events.send(ObjectCreated {
                    bucket,
                    key,
                    size,
                    etag: etag.clone(),
                    version_id: version_id.clone(),
                    sequencer,
                    reason: if caller.by_form { "POST Object" } else { "PutObject" }.to_owned(),
                    request_id: caller.request_id.clone(),
                    source_ip: caller.source_ip.clone(),
                });
            }
            Committed::PreconditionFailed(header) => return Err(conditions::precondition_failed(header)),
            Committed::NoSuchKey => return Err(no_such_key(&key)),
        }
        let (server_side_encryption, ssekms_key_id, bucket_key_enabled) = encryption::echo(&encryption);
        Ok(S3Response::new(PutObjectOutput {
            expiration,
            e_tag: Some(ETag::Strong(etag)),
            version_id: Some(version_id),
            server_side_encryption,
            ssekms_key_id,
            bucket_key_enabled,
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum.checksum_type,
            ..Default::default()
        }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let caller = access::caller(&request.extensions)?;
        let input = request.input;
        if input.part_number.is_some() || input.sse_customer_key.is_some() {
            return Err(not_implemented());
        }
        let read = Read {
            bucket: &input.bucket,
            key: &input.key,
            version_id: input.version_id.as_deref(),
            conditions: ReadConditions {
                if_match: input.if_match.as_ref(),
                if_none_match: input.if_none_match.as_ref(),
                if_modified_since: input.if_modified_since.as_ref(),
                if_unmodified_since: input.if_unmodified_since.as_ref(),
            },
        };
        let (version, object) = self.locate(&caller, &read)?;
        self.decrypt(&caller, &read, &object)?;
        let (start, end, content_range) = match input.range {
            None => (0, object.size, None),
            Some(range) => {
                let satisfied = range.check(object.size).map_err(|_| invalid_range(object.size))?;
                let content_range = format!("bytes {}-{}/{}", satisfied.start, satisfied.end - 1, object.size);
                (satisfied.start, satisfied.end, Some(content_range))
            }
        };
        // The checksum covers the whole object, so a part of it comes without.
        let checksum = match (&input.checksum_mode, &content_range) {
            (Some(_), None) => object.attributes.checksum.clone(),
            _ => Checksum::default(),
        };
        let attributes = object.attributes.clone();
        let (server_side_encryption, ssekms_key_id, bucket_key_enabled) = encryption::echo(&attributes.encryption);
        Ok(S3Response::new(GetObjectOutput {
            expiration: self.expiration(&read, &version),
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(to_i64(end.saturating_sub(start))?),
            body: Some(StreamingBlob::wrap(object.stream(start, end))),
            content_range,
            content_type: Some(content_type(&attributes)),
            content_encoding: attributes.content_encoding,
            content_language: attributes.content_language,
            content_disposition: attributes.content_disposition,
            cache_control: attributes.cache_control,
            expires: attributes.expires,
            metadata: attributes.metadata,
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(Timestamp::from(version.modified)),
            version_id: Some(version.id),
            server_side_encryption,
            ssekms_key_id,
            bucket_key_enabled,
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum.checksum_type,
            ..Default::default()
        }))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let caller = access::caller(&request.extensions)?;
        let input = request.input;
        if input.part_number.is_some() || input.sse_customer_key.is_some() || input.range.is_some() {
            return Err(not_implemented());
        }
        let read = Read {
            bucket: &input.bucket,
            key: &input.key,
            version_id: input.version_id.as_deref(),
            conditions: ReadConditions {
                if_match: input.if_match.as_ref(),
                if_none_match: input.if_none_match.as_ref(),
                if_modified_since: input.if_modified_since.as_ref(),
                if_unmodified_since: input.if_unmodified_since.as_ref(),
            },
        };
        let (version, object) = self.locate(&caller, &read)?;
        let checksum = match &input.checksum_mode {
            Some(_) => {
                // The checksum is stored encrypted too, so asking for it is a use of the key.
                self.decrypt(&caller, &read, &object)?;
                object.attributes.checksum.clone()
            }
            None => Checksum::default(),
        };
        let attributes = object.attributes.clone();
        let (server_side_encryption, ssekms_key_id, bucket_key_enabled) = encryption::echo(&attributes.encryption);
        let output = HeadObjectOutput {
            expiration: self.expiration(&read, &version),
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(to_i64(object.size)?),
            content_type: Some(content_type(&attributes)),
            content_encoding: attributes.content_encoding,
            content_language: attributes.content_language,
            content_disposition: attributes.content_disposition,
            cache_control: attributes.cache_control,
            expires: attributes.expires,
            metadata: attributes.metadata,
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(Timestamp::from(version.modified)),
            version_id: Some(version.id),
            server_side_encryption,
            ssekms_key_id,
            bucket_key_enabled,
            checksum_crc32: checksum.checksum_crc32,
            checksum_crc32c: checksum.checksum_crc32c,
            checksum_crc64nvme: checksum.checksum_crc64nvme,
            checksum_sha1: checksum.checksum_sha1,
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum.checksum_type,
            ..Default::default()
        };
        let overrides = [
            (http::header::CACHE_CONTROL, input.response_cache_control),
            (http::header::CONTENT_DISPOSITION, input.response_content_disposition),
            (http::header::CONTENT_ENCODING, input.response_content_encoding),
            (http::header::CONTENT_LANGUAGE, input.response_content_language),
            (http::header::CONTENT_TYPE, input.response_content_type),
            (http::header::EXPIRES, input.response_expires.as_ref().and_then(conditions::http_date)),
        ];
        Ok(S3Response::with_headers(output, overridden(overrides)?))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let caller = access::caller(&request.extensions)?;
        let input = request.input;
        let conditional = input.if_match.is_some()
            || input.if_match_size.is_some()
            || input.if_match_last_modified_time.is_some()
            || input.mfa.is_some();
        if conditional {
            return Err(not_implemented());
        }
        let version_id = input.version_id.as_deref();
        let deleted = self.store.delete(&input.bucket, &input.key, version_id, caller.now);
        let output = match deleted {
            Some((id, marker)) => {
                DeleteObjectOutput { version_id: Some(id), delete_marker: marker.then_some(true), ..Default::default() }
            }
            None => DeleteObjectOutput { version_id: input.version_id, ..Default::default() },
        };
        Ok(S3Response::with_status(output, http::StatusCode::NO_CONTENT))
    }

    async fn put_bucket_lifecycle_configuration(
        &self,
        request: S3Request<PutBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<PutBucketLifecycleConfigurationOutput>> {
        let input = request.input;
        if input.transition_default_minimum_object_size.is_some() {
            return Err(not_implemented());
        }
        let given = input.lifecycle_configuration.map(|one| one.rules).unwrap_or_default();
        self.lifecycles.set(&input.bucket, Some(Lifecycle::read(given)?));
        Ok(S3Response::new(PutBucketLifecycleConfigurationOutput::default()))
    }

    async fn get_bucket_lifecycle_configuration(
        &self,
        request: S3Request<GetBucketLifecycleConfigurationInput>,
    ) -> S3Result<S3Response<GetBucketLifecycleConfigurationOutput>> {
        let Some(held) = self.lifecycles.of(&request.input.bucket) else {
            let message = "The lifecycle configuration does not exist";
            return Err(error(S3ErrorCode::NoSuchLifecycleConfiguration, message));
        };
        let rules = Some(held.given());
        Ok(S3Response::new(GetBucketLifecycleConfigurationOutput { rules, ..Default::default() }))
    }

    async fn delete_bucket_lifecycle(
        &self,
        request: S3Request<DeleteBucketLifecycleInput>,
    ) -> S3Result<S3Response<DeleteBucketLifecycleOutput>> {
        self.lifecycles.set(&request.input.bucket, None);
        Ok(S3Response::with_status(DeleteBucketLifecycleOutput {}, http::StatusCode::NO_CONTENT))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let caller = access::caller(&request.extensions)?;
        let input = request.input;
        refuse_unknown_features_of_parts(&input)?;
        multipart::refuse_other_digests(&input)?;
        let asked = (input.server_side_encryption.as_ref(), input.ssekms_key_id.as_deref(), input.bucket_key_enabled);
        let encryption = encryption::requested(asked, &self.account)?;
        refuse_oversized(&input.key, input.metadata.as_ref())?;
        self.use_key(&caller, (&input.bucket, &input.key), &encryption, &["kms:GenerateDataKey"])?;
        let attributes = Attributes {
            content_type: input.content_type,
            content_encoding: input.content_encoding,
            content_language: input.content_language,
            content_disposition: input.content_disposition,
            cache_control: input.cache_control,
            expires: input.expires,
            metadata: input.metadata,
            encryption: encryption.clone(),
            checksum: Checksum::default(),
        };
        let upload_id = self.uploads.begin(&input.bucket, &input.key, attributes, caller.now);
        let (server_side_encryption, ssekms_key_id, bucket_key_enabled) = encryption::echo(&encryption);
        Ok(S3Response::new(CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(upload_id),
            checksum_algorithm: input.checksum_algorithm,
            checksum_type: input.checksum_type,
            server_side_encryption,
            ssekms_key_id,
            bucket_key_enabled,
            ..Default::default()
        }))
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let caller = access::caller(&request.extensions)?;
        let mut input = request.input;
        if input.sse_customer_key.is_some() || request.headers.contains_key("x-amz-trailer") {
            return Err(not_implemented());
        }
        let number = multipart::part_number(input.part_number)?;
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let encryption = self.uploads.with(&bucket, &key, &id, |upload| upload.attributes.encryption.clone())?;
        self.use_key(&caller, (&bucket, &key), &encryption, &["kms:GenerateDataKey", "kms:Decrypt"])?;
        let body = match input.body.take() {
            Some(body) => collect(body).await?,
            None => Bytes::new(),
        };
        let digests = digest::verify(&(&input).into(), &request.headers, None, &body)?;
        let sha256 = digests.checksum.checksum_sha256.ok_or_else(multipart::wrong_digest)?;
        let spooled = Arc::new(self.store.spool(body).await.map_err(S3Error::internal_error)?);
        let etag = match &encryption {
            Encryption::Managed => digests.md5,
            Encryption::Kms { .. } => {
                let digest = hash(&SHA256, format!("{}{}", spooled.version_id, digests.md5).as_bytes());
                digest::hex(digest.as_ref()).chars().take(32).collect()
            }
        };
        let held = HeldPart { spooled, etag: etag.clone(), sha256: sha256.clone() };
        self.uploads.with(&bucket, &key, &id, |upload| upload.add(number, held))?;
        let (server_side_encryption, ssekms_key_id, bucket_key_enabled) = encryption::echo(&encryption);
        Ok(S3Response::new(UploadPartOutput {
            e_tag: Some(ETag::Strong(etag)),
            checksum_sha256: Some(sha256),
            server_side_encryption,
            ssekms_key_id,
            bucket_key_enabled,
            ..Default::default()
        }))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let caller = access::caller(&request.extensions)?;
        let input = request.input;
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let encryption = self.uploads.with(&bucket, &key, &id, |upload| upload.attributes.encryption.clone())?;
        self.use_key(&caller, (&bucket, &key), &encryption, &["kms:Decrypt"])?;
        self.uploads.with(&bucket, &key, &id, |upload| upload.list(input))?.map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let caller = access::caller(&request.extensions)?;
        let input = request.input;
        let whole = input.checksum_type.as_ref().is_some_and(|given| given.as_str() != ChecksumType::COMPOSITE);
        let digest = input.checksum_crc32.is_some()
            || input.checksum_crc32c.is_some()
            || input.checksum_crc64nvme.is_some()
            || input.checksum_sha1.is_some()
            || input.checksum_sha256.is_some();
        if whole || digest || input.sse_customer_key.is_some() {
            return Err(not_implemented());
        }
        let condition = conditions::condition(input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let (bucket, key, id) = (input.bucket.clone(), input.key.clone(), input.upload_id.clone());
        let encryption = self.uploads.with(&bucket, &key, &id, |upload| upload.attributes.encryption.clone())?;
        self.use_key(&caller, (&bucket, &key), &encryption, &["kms:Decrypt"])?;
        let assembled = self.uploads.with(&bucket, &key, &id, |upload| upload.assemble(&input))??;
        let body = store::Body::from(assembled.parts);
        let (version_id, size, etag) = (body.version_id.clone(), body.size(), assembled.etag.clone());
        let checksum = assembled.attributes.checksum.clone();
        let description = (assembled.etag, assembled.attributes);
        match self.store.commit(&bucket, &key, body, description, &condition, caller.now) {
            Committed::Stored { sequencer } => {
                let _ = self.uploads.end(&bucket, &key, &id);
                let _ = self.events.send(ObjectCreated {
                    bucket: bucket.clone(),
                    key: key.clone(),
                    size,
                    etag: etag.clone(),
                    version_id: version_id.clone(),
                    sequencer,
                    reason: "CompleteMultipartUpload".to_owned(),
                    request_id: caller.request_id.clone(),
                    source_ip: caller.source_ip.clone(),
                });
            }
            Committed::PreconditionFailed(header) => return Err(conditions::precondition_failed(header)),
            Committed::NoSuchKey => return Err(no_such_key(&key)),
        }
        let (server_side_encryption, ssekms_key_id, bucket_key_enabled) = encryption::echo(&encryption);
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            bucket: Some(bucket),
            key: Some(key),
            e_tag: Some(ETag::Strong(etag)),
            version_id: Some(version_id),
            checksum_sha256: checksum.checksum_sha256,
            checksum_type: checksum.checksum_type,
            server_side_encryption,
            ssekms_key_id,
            bucket_key_enabled,
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        access::caller(&request.extensions)?;
        let input = request.input;
        if input.if_match_initiated_time.is_some() {
            return Err(not_implemented());
        }
        self.uploads.end(&input.bucket, &input.key, &input.upload_id)?;
        Ok(S3Response::with_status(AbortMultipartUploadOutput::default(), http::StatusCode::NO_CONTENT))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let after = match &input.continuation_token {
            Some(token) => Some(listing::position(token)?),
            None => input.start_after.clone(),
        };
        let page = listing::page(
            &self.store,
            &Listing {
                bucket: &input.bucket,
                prefix: input.prefix.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
                after: after.as_deref(),
                max_keys: input.max_keys,
                encode: listing::encodes(input.encoding_type.as_ref())?,
            },
        )?;
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: Some(page.spell(&input.prefix.unwrap_or_default())),
            max_keys: Some(page.max_keys),
            key_count: i32::try_from(page.contents.len() + page.prefixes.len()).ok(),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next.as_deref().map(listing::token),
            continuation_token: input.continuation_token,
            start_after: input.start_after.map(|key| page.spell(&key)),
            delimiter: input.delimiter.map(|delimiter| page.spell(&delimiter)),
            encoding_type: input.encoding_type,
            contents: Some(page.contents),
            common_prefixes: Some(page.prefixes),
            ..Default::default()
        }))
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let page = listing::page(
            &self.store,
            &Listing {
                bucket: &input.bucket,
                prefix: input.prefix.as_deref().unwrap_or_default(),
                delimiter: input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty()),
                after: input.marker.as_deref(),
                max_keys: input.max_keys,
                encode: listing::encodes(input.encoding_type.as_ref())?,
            },
        )?;
        Ok(S3Response::new(ListObjectsOutput {
            name: Some(input.bucket),
            prefix: Some(page.spell(&input.prefix.unwrap_or_default())),
            marker: Some(page.spell(&input.marker.unwrap_or_default())),
            max_keys: Some(page.max_keys),
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next.as_deref().filter(|_| input.delimiter.is_some()).map(|key| page.spell(key)),
            delimiter: input.delimiter.map(|delimiter| page.spell(&delimiter)),
            encoding_type: input.encoding_type,
            contents: Some(page.contents),
            common_prefixes: Some(page.prefixes),
            ..Default::default()
        }))
    }

    async fn head_bucket(&self, _: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        let bucket_region = Some(self.account.region.clone());
        Ok(S3Response::new(HeadBucketOutput { bucket_region, ..Default::default() }))
    }

    async fn list_buckets(&self, request: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let ListBucketsInput { bucket_region, continuation_token, max_buckets, prefix } = request.input;
        if bucket_region.is_some() || continuation_token.is_some() || max_buckets.is_some() || prefix.is_some() {
            return Err(not_implemented());
        }
        let creation_date = Some(Timestamp::from(self.store.created()));
        let buckets = self.store.names().into_iter().map(|name| Bucket {
            name: Some(name),
            creation_date: creation_date.clone(),
            ..Default::default()
        });
        let owner = Owner { id: Some(self.account.id.clone()), ..Default::default() };
        Ok(S3Response::new(ListBucketsOutput {
            buckets: Some(buckets.collect()),
            owner: Some(owner),
            ..Default::default()
        }))
    }
}

struct Read<'a> {
    bucket: &'a str,
    key: &'a str,
    version_id: Option<&'a str>,
    conditions: ReadConditions<'a>,
}

/// Refuses a key or metadata larger than S3 takes.
fn refuse_oversized(key: &str, metadata: Option<&s3s::dto::Metadata>) -> S3Result<()> {
    if key.len() > LONGEST_KEY {
        return Err(error(S3ErrorCode::KeyTooLongError, "Your key is too long"));
    }
    let size: usize = metadata.into_iter().flatten().map(|(name, value)| name.len() + value.len()).sum();
    if size > MOST_METADATA {
        let message = "Your metadata headers exceed the maximum allowed metadata size";
        return Err(error(S3ErrorCode::MetadataTooLarge, message));
    }
    Ok(())
}

impl Operations {
    /// Finds the version a read asks for and judges its conditions.
    fn locate(&self, caller: &Caller, read: &Read<'_>) -> S3Result<(Version, Arc<Object>)> {
        let version_id = read.version_id.map(parse_version_id).transpose()?;
        let (version, object) = match self.store.find(read.bucket, read.key, version_id) {
            Found::Object { version, object } => (version, object),
            Found::NoSuchVersion => {
                return Err(error(S3ErrorCode::NoSuchVersion, "The specified version does not exist."));
            }
            Found::DeleteMarker(marker) if version_id.is_some() => {
                let message = "The specified method is not allowed against this resource.";
                let refused = error(S3ErrorCode::MethodNotAllowed, message);
                return Err(with_header(with_header(refused, "x-amz-delete-marker", "true"), VERSION_ID, &marker.id));
            }
            missing => {
                if !access::may_list(&self.account, caller, read.bucket) {
                    return Err(error(S3ErrorCode::AccessDenied, "Access Denied"));
                }
                let refused = no_such_key(read.key);
                return Err(match missing {
                    Found::DeleteMarker(marker) => {
                        with_header(with_header(refused, "x-amz-delete-marker", "true"), VERSION_ID, &marker.id)
                    }
                    _ => refused,
                });
            }
        };
        conditions::judge(&read.conditions, &version, &object)?;
        Ok((version, object))
    }

    /// `x-amz-expiration`, which only the current version has.
    fn expiration(&self, read: &Read<'_>, version: &Version) -> Option<String> {
        match self.store.find(read.bucket, read.key, None) {
            Found::Object { version: current, .. } if current.id == version.id => {
                self.lifecycles.expiration(read.bucket, read.key, version.modified)
            }
            _ => None,
        }
    }

    fn use_key(
        &self,
        caller: &Caller,
        (bucket, key): (&str, &str),
        encryption: &Encryption,
        actions: &[&str],
    ) -> S3Result<()> {
        let Encryption::Kms { key_arn, bucket_key } = encryption else { return Ok(()) };
        let context = encryption::context(bucket, key, *bucket_key);
        actions
            .iter()
            .try_for_each(|action| access::use_key((&self.account, self.kms.get()), caller, action, key_arn, &context))
    }

    fn decrypt(&self, caller: &Caller, read: &Read<'_>, object: &Object) -> S3Result<()> {
        let Encryption::Kms { key_arn, bucket_key } = &object.attributes.encryption else { return Ok(()) };
        let context = encryption::context(read.bucket, read.key, *bucket_key);
        access::use_key((&self.account, self.kms.get()), caller, "kms:Decrypt", key_arn, &context)
    }
}

fn refuse_unknown_features_of_parts(input: &CreateMultipartUploadInput) -> S3Result<()> {
    let unknown = input.acl.is_some()
        || input.grant_full_control.is_some()
        || input.grant_read.is_some()
        || input.grant_read_acp.is_some()
        || input.grant_write_acp.is_some()
        || input.tagging.is_some()
        || input.object_lock_mode.is_some()
        || input.object_lock_legal_hold_status.is_some()
        || input.object_lock_retain_until_date.is_some()
        || input.sse_customer_algorithm.is_some()
        || input.sse_customer_key.is_some()
        || input.ssekms_encryption_context.is_some()
        || input.website_redirect_location.is_some()
        || input.storage_class.as_ref().is_some_and(|class| class.as_str() != "STANDARD");
    if unknown { Err(not_implemented()) } else { Ok(()) }
}

fn refuse_unknown_features(input: &PutObjectInput) -> S3Result<()> {
    let acl = input.acl.is_some()
        || input.grant_full_control.is_some()
        || input.grant_read.is_some()
        || input.grant_read_acp.is_some()
        || input.grant_write_acp.is_some();
    if acl {
        let code = S3ErrorCode::Custom("AccessControlListNotSupported".into());
        let refused = error(code, "The bucket does not allow ACLs");
        return Err(with_status(refused, http::StatusCode::BAD_REQUEST));
    }
    let unknown = input.tagging.is_some()
        || input.object_lock_mode.is_some()
        || input.object_lock_legal_hold_status.is_some()
        || input.object_lock_retain_until_date.is_some()
        || input.sse_customer_algorithm.is_some()
        || input.sse_customer_key.is_some()
        || input.ssekms_encryption_context.is_some()
        || input.website_redirect_location.is_some()
        || input.write_offset_bytes.is_some()
        || input.storage_class.as_ref().is_some_and(|class| class.as_str() != "STANDARD");
    if unknown { Err(not_implemented()) } else { Ok(()) }
}

/// `aws-chunked` is how the body travelled, not what it is.
fn without_transfer_coding(content_encoding: String) -> Option<String> {
    let kept: Vec<&str> = content_encoding
        .split(',')
        .map(str::trim)
        .filter(|coding| !coding.is_empty() && *coding != "aws-chunked")
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}

async fn collect(mut body: StreamingBlob) -> S3Result<Bytes> {
    let first = body.try_next().await.map_err(broken_body)?.unwrap_or_default();
    let Some(second) = body.try_next().await.map_err(broken_body)? else { return Ok(first) };
    let mut whole = BytesMut::from(first);
    whole.extend_from_slice(&second);
    while let Some(chunk) = body.try_next().await.map_err(broken_body)? {
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.freeze())
}

/// s3s hands out stream errors without their type, so its words decide.
fn broken_body(cause: s3s::StdError) -> S3Error {
    let signature = format!("{cause:?} {cause}").contains("SignatureMismatch");
    let (code, message) = if signature {
        (
            S3ErrorCode::SignatureDoesNotMatch,
            "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
        )
    } else {
        (S3ErrorCode::IncompleteBody, "The request body terminated unexpectedly")
    };
    error(code, message)
}

fn no_such_key(key: &str) -> S3Error {
    with_element(error(S3ErrorCode::NoSuchKey, "The specified key does not exist."), "Key", key)
}

fn invalid_range(size: u64) -> S3Error {
    let refused = error(S3ErrorCode::InvalidRange, "The requested range is not satisfiable");
    let refused = with_element(refused, "ActualObjectSize", &size.to_string());
    with_header(refused, "content-range", &format!("bytes */{size}"))
}

fn parse_version_id(id: &str) -> S3Result<&str> {
    if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(id);
    }
    let refused = error(S3ErrorCode::InvalidArgument, "Invalid version id specified");
    Err(with_element(refused, "ArgumentName", "versionId"))
}

fn content_type(attributes: &Attributes) -> String {
    attributes.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())
}

fn overridden(overrides: [(HeaderName, Option<String>); 6]) -> S3Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in overrides {
        if let Some(value) = value {
            let invalid = |_| error(S3ErrorCode::InvalidArgument, "Invalid response header");
            headers.insert(name, HeaderValue::try_from(value).map_err(invalid)?);
        }
    }
    Ok(headers)
}

fn to_i64(number: u64) -> S3Result<i64> {
    i64::try_from(number).map_err(S3Error::internal_error)
}
