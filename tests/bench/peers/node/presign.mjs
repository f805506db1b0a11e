// A URL for one PUT by the JavaScript SDK, with everything signed that the upload function signs.
import { randomUUID } from 'node:crypto';
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';

// Nothing is sent to the bucket.
const s3 = new S3Client({
  region: 'us-east-1',
  credentials: { accessKeyId: 'AKIDEXAMPLEEXAMPLE00', secretAccessKey: 'bench', sessionToken: 't'.repeat(400) },
  requestChecksumCalculation: 'WHEN_REQUIRED',
});
const signed = new Set([
  'content-type', 'content-length', 'if-none-match', 'x-amz-checksum-sha256', 'x-amz-server-side-encryption',
  'x-amz-server-side-encryption-aws-kms-key-id',
]);

export const handler = async (event) => {
  const asked = JSON.parse(event.body);
  const command = new PutObjectCommand({
    Bucket: 'portcullis-bench-objects',
    Key: `files/acme/${randomUUID()}`,
    ContentType: asked.content_type,
    ContentLength: asked.size,
    ChecksumSHA256: asked.sha256,
    IfNoneMatch: '*',
    ServerSideEncryption: 'aws:kms',
    SSEKMSKeyId: 'arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab',
  });
  const url = await getSignedUrl(s3, command, { expiresIn: 300, signableHeaders: signed, unhoistableHeaders: signed });
  return { statusCode: 201, headers: { 'content-type': 'application/json' }, body: JSON.stringify({ url }) };
};
