// The AWS SDK for JavaScript v3, unmodified: KMS, SSM, STS and S3, with its two signers of URLs and forms.
import { createHash, createPublicKey, randomUUID, verify } from 'node:crypto';
import * as kms from '@aws-sdk/client-kms';
import * as s3 from '@aws-sdk/client-s3';
import * as ssm from '@aws-sdk/client-ssm';
import * as sts from '@aws-sdk/client-sts';
import { createPresignedPost } from '@aws-sdk/s3-presigned-post';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { Report, manifest, version } from './stack.mjs';

const report = new Report('aws-sdk-js', version('@aws-sdk/client-s3'));
const { access_key_id: accessKeyId, secret_access_key: secretAccessKey, endpoints } = manifest.aws;
const settings = (service, more = {}) => ({
  region: manifest.region, endpoint: endpoints[service], maxAttempts: 1, credentials: { accessKeyId, secretAccessKey }, ...more,
});
const keys = new kms.KMSClient(settings('kms'));
const parameters = new ssm.SSMClient(settings('ssm'));
const sessions = new sts.STSClient(settings('sts'));
const objects = new s3.S3Client(settings('s3'));

// `allowed`, or the code of the refusal.
async function outcome(act) {
  try {
    await act();
    return 'allowed';
  } catch (error) {
    return error.name;
  }
}

const same = (one, other) => Buffer.from(one).equals(Buffer.from(other));

// KMS
const KeyId = manifest.kms_keys.data;
const EncryptionContext = { tenant: 'acme', purpose: 'field' };
const made = await keys.send(new kms.GenerateDataKeyCommand({ KeyId, KeySpec: 'AES_256', EncryptionContext }));
report.row('GenerateDataKey gives 32 bytes', 32, made.Plaintext.length);
const opened = await keys.send(new kms.DecryptCommand({ CiphertextBlob: made.CiphertextBlob, EncryptionContext }));
report.row('Decrypt gives them back', true, same(opened.Plaintext, made.Plaintext));
report.row('and names the key', KeyId, opened.KeyId);
const flipped = Uint8Array.from(made.CiphertextBlob);
flipped[flipped.length - 1] ^= 1;
const refused = (changes) => outcome(() => keys.send(new kms.DecryptCommand({ CiphertextBlob: made.CiphertextBlob, EncryptionContext, ...changes })));
report.row('Decrypt of a blob with one bit flipped', 'InvalidCiphertextException', await refused({ CiphertextBlob: flipped }));
report.row('Decrypt in another context', 'InvalidCiphertextException', await refused({ EncryptionContext: { tenant: 'globex' } }));
report.row('Decrypt under another key', 'IncorrectKeyException', await refused({ KeyId: manifest.kms_keys.bucket }));
const pair = (await keys.send(new kms.CreateKeyCommand({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' }))).KeyMetadata.Arn;
const Message = createHash('sha256').update('message').digest();
const rule = { KeyId: pair, MessageType: 'DIGEST', SigningAlgorithm: 'ECDSA_SHA_256' };
const { Signature } = await keys.send(new kms.SignCommand({ ...rule, Message }));
const { PublicKey } = await keys.send(new kms.GetPublicKeyCommand({ KeyId: pair }));
const spki = createPublicKey({ key: Buffer.from(PublicKey), format: 'der', type: 'spki' });
report.row("Sign, which Node's OpenSSL verifies under GetPublicKey", true, verify('sha256', Buffer.from('message'), spki, Signature));
report.row('Verify of another message', 'KMSInvalidSignatureException',
  await outcome(() => keys.send(new kms.VerifyCommand({ ...rule, Message: createHash('sha256').update('other').digest(), Signature }))));
const stranger = new kms.KMSClient(settings('kms', { credentials: { accessKeyId, secretAccessKey: 'x'.repeat(40) } }));
report.row('a wrong secret', 'InvalidSignatureException', await outcome(() => stranger.send(new kms.ListKeysCommand({}))));
const elsewhere = new kms.KMSClient(settings('kms', { region: 'eu-west-1' }));
report.row('another region', 'InvalidSignatureException', await outcome(() => elsewhere.send(new kms.ListKeysCommand({}))));

// SSM
const Name = `/client-tests/${randomUUID()}`;
await parameters.send(new ssm.PutParameterCommand({ Name, Value: 'a secret', Type: 'SecureString' }));
const parameter = async (more) => (await parameters.send(new ssm.GetParameterCommand({ Name, ...more }))).Parameter;
report.row('a SecureString, decrypted', 'a secret', (await parameter({ WithDecryption: true })).Value);
report.row('and not', false, (await parameter({})).Value.includes('a secret'));
report.row('PutParameter of what is there', 'ParameterAlreadyExists',
  await outcome(() => parameters.send(new ssm.PutParameterCommand({ Name, Value: 'x', Type: 'SecureString' }))));
report.row('GetParameter of nothing', 'ParameterNotFound', await outcome(() => parameters.send(new ssm.GetParameterCommand({ Name: `${Name}/none` }))));

// STS
report.row('GetCallerIdentity', '111122223333', (await sessions.send(new sts.GetCallerIdentityCommand({}))).Account);
report.row('AssumeRole of a role that trusts somebody else', 'AccessDenied', await outcome(() => sessions.send(new sts.AssumeRoleCommand({
  RoleArn: `arn:aws:iam::111122223333:role/portcullis-${manifest.env}-upload-signer`, RoleSessionName: 'client-tests' }))));

// S3
const Bucket = manifest.trust_bucket;
const Key = `client-tests/${randomUUID()}`;
const content = Buffer.from('what is in an object');
await objects.send(new s3.PutObjectCommand({ Bucket, Key, Body: content }));
const got = await objects.send(new s3.GetObjectCommand({ Bucket, Key, ChecksumMode: 'ENABLED' }));
report.row('an object, read with its checksum verified', content.toString(), await got.Body.transformToString());
report.row('written once: If-None-Match on what is there', 'PreconditionFailed',
  await outcome(() => objects.send(new s3.PutObjectCommand({ Bucket, Key, Body: 'x', IfNoneMatch: '*' }))));
report.row('a body that is not its checksum', 'BadDigest',
  await outcome(() => objects.send(new s3.PutObjectCommand({ Bucket, Key, Body: 'x', ChecksumSHA256: Buffer.alloc(32).toString('base64') }))));
report.row('GetObject of nothing', 'NoSuchKey', await outcome(() => objects.send(new s3.GetObjectCommand({ Bucket, Key: `${Key}/none` }))));
const names = [];
for await (const page of s3.paginateListObjectsV2({ client: objects, pageSize: 1 }, { Bucket, Prefix: 'trust/' })) {
  names.push(...(page.Contents ?? []).map((entry) => entry.Key));
}
report.row('a paginated listing', true, names.includes('trust/keys.json'));

const url = await getSignedUrl(objects, new s3.GetObjectCommand({ Bucket, Key }), { expiresIn: 60 });
const answer = await fetch(url);
report.row('a URL signed by s3-request-presigner', [200, content.toString()], [answer.status, await answer.text()]);
report.row('with another key written in', 403, (await fetch(url.replace(Key, `${Key}x`))).status);
report.row('with a longer life written in', 403, (await fetch(url.replace('X-Amz-Expires=60', 'X-Amz-Expires=600'))).status);
report.row('used to write', 403, (await fetch(url, { method: 'PUT', body: 'x' })).status);
const past = await getSignedUrl(objects, new s3.GetObjectCommand({ Bucket, Key }), { expiresIn: 60, signingDate: new Date(Date.now() - 120_000) });
const late = await fetch(past);
report.row('expired a minute ago', [403, true], [late.status, (await late.text()).includes('Request has expired')]);
const written = `client-tests/${randomUUID()}`;
const forWriting = (client) => getSignedUrl(client, new s3.PutObjectCommand({ Bucket, Key: written, ContentType: 'text/plain' }),
  { expiresIn: 60, signableHeaders: new Set(['content-type']) });
// By default it signs the checksum of the body that the command has, which here is none.
const empty = await forWriting(objects);
report.row('a URL for writing that signs the checksum of nothing', 400, (await fetch(empty, { method: 'PUT', body: 'x', headers: { 'content-type': 'text/plain' } })).status);
const put = await forWriting(new s3.S3Client(settings('s3', { requestChecksumCalculation: 'WHEN_REQUIRED' })));
report.row('one that signs none, with another type than signed', 403, (await fetch(put, { method: 'PUT', body: 'x', headers: { 'content-type': 'text/html' } })).status);
report.row('and with the right one', 200, (await fetch(put, { method: 'PUT', body: 'x', headers: { 'content-type': 'text/plain' } })).status);

const form = await createPresignedPost(objects, { Bucket, Key: `client-tests/${randomUUID()}`, Expires: 60, Conditions: [['content-length-range', 1, 10]] });
async function post(body, changes = {}) {
  const data = new FormData();
  for (const [name, value] of Object.entries({ ...form.fields, ...changes })) data.append(name, value);
  data.append('file', new Blob([body]), 'a.bin');
  const said = await fetch(form.url, { method: 'POST', body: data });
  return `${said.status} ${/<Code>(.*?)<\/Code>/.exec(await said.text())?.[1] ?? ''}`.trim();
}
report.row('a form signed by s3-presigned-post', '204', await post('a file'));
report.row('with more bytes than it allows', '400 EntityTooLarge', await post('more than ten bytes'));
report.row('with another signature', '403 SignatureDoesNotMatch', await post('a file', { 'X-Amz-Signature': '0'.repeat(64) }));
report.row('with a field more', '403 AccessDenied', await post('a file', { acl: 'public-read' }));
report.end();
