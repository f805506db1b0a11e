//! Lines to paste.

use std::path::Path;

use crate::stack::{self, Stack};

/// What a person needs who has just started a stack.
#[must_use]
pub fn hints(stack: &Stack, manifest: &Path, page: &str) -> String {
    let places = &stack.places;
    let (gateway, ca) = (&places.gateway, places.ca_file.display());
    let (kms, s3, lambda) = (stack.endpoint("kms"), stack.endpoint("s3"), stack.endpoint("lambda"));
    let (ssm, sts) = (stack.endpoint("ssm"), stack.endpoint("sts"));
    let (proxy, database) = (places.proxy_port, stack::DATABASE);
    let (key, secret) = (&stack.operator.access_key_id, &stack.operator.secret_access_key);
    format!(
        "
what the gate decides, request by request: {page}
everything an outside client needs: {manifest}
what a function needs that runs by itself (docs/local-stack.md): {functions}/*.env

  curl --cacert {ca} {gateway}/.well-known/oauth-authorization-server
  curl --cacert {ca} {gateway}/.well-known/jwks.json

  export AWS_ACCESS_KEY_ID={key} AWS_SECRET_ACCESS_KEY={secret} AWS_DEFAULT_REGION={region}
  export AWS_ENDPOINT_URL_KMS={kms} AWS_ENDPOINT_URL_SSM={ssm} AWS_ENDPOINT_URL_S3={s3} AWS_ENDPOINT_URL_STS={sts}
  aws --endpoint-url {kms} kms generate-data-key --key-id {data_key} --key-spec AES_256
  aws --endpoint-url {ssm} ssm put-parameter --name /demo/secret --type SecureString --value x
  aws --endpoint-url {s3} s3api list-objects-v2 --bucket {bucket}
  aws --endpoint-url {lambda} lambda invoke --function-name portcullis-{env}-admin --cli-binary-format raw-in-base64-out \\
      --payload '{{\"operation\":\"client.list\",\"operator\":\"me\",\"tenant\":\"acme\"}}' /dev/stdout
  make admin OP=client.list ARGS='{{\"tenant\":\"acme\"}}'

  PGPASSWORD=$(aws rds generate-db-auth-token --hostname localhost --port {proxy} --username token --region {region}) \\
    psql \"host=localhost port={proxy} dbname={database} user=token sslmode=verify-full sslrootcert={ca}\"

Ctrl-C stops it.
",
        manifest = manifest.display(),
        functions = manifest.with_file_name("functions").display(),
        region = stack::REGION,
        data_key = places.data_key,
        bucket = places.object_bucket,
        env = stack::ENV,
    )
}
