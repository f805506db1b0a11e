#!/usr/bin/env bash
# Uploads a file through Portcullis with curl, jq and openssl: up to 64 MiB by one PUT, larger ones in parts.
#
#   API=https://api.example.com TOKEN=… ./upload.sh report.pdf application/pdf
#   API=https://api.example.com TOKEN=… RESUME=FILE_ID ./upload.sh backup.zip application/zip     # after a stop, with the same file
#
# Prints the file's id. CURL_OPTIONS are curl's (--cacert ca.pem). Nothing of the token goes to the bucket.
set -euo pipefail
file=$1 type=${2:-application/octet-stream}
size=$(stat -c %s "$file")
read -ra options <<<"${CURL_OPTIONS:-}"
part=$(mktemp) headers=$(mktemp) answer=$(mktemp)
trap 'rm -f "$part" "$headers" "$answer"' EXIT

api() { # method, path, body: the API's answer, or its refusal on stderr
  local more=()
  [ -z "${3:-}" ] || more=(--header 'content-type: application/json' --data "$3")
  curl --silent --show-error --fail-with-body --retry 4 "${options[@]}" --request "$1" --header "authorization: Bearer $TOKEN" \
    --header "idempotency-key: $(openssl rand -hex 16)" "${more[@]}" "$API$2" || { echo >&2; return 1; }
}

digest() { openssl dgst -sha256 -binary "$1" | base64 -w0; }

send() { # what, the signed request as JSON: exactly its headers, and no others
  jq -r '.headers | to_entries[] | "\(.key): \(.value)"' <<<"$2" >"$headers"
  local status
  status=$(curl --silent --show-error --retry 4 --retry-all-errors "${options[@]}" --header "@$headers" --upload-file "$1" \
    --output "$answer" --write-out '%{http_code}' "$(jq -r .url <<<"$2")")
  # 412: an earlier try got through, though its answer did not.
  [ "$status" = 200 ] || [ "$status" = 412 ] || { cat "$answer" >&2; return 1; }
}

if [ -z "${RESUME:-}" ] && [ "$size" -le $((64 << 20)) ]; then
  plan=$(api POST /files "$(jq -nc --arg name "$(basename "$file")" --arg type "$type" --argjson size "$size" --arg sha256 "$(digest "$file")" \
    '{name: $name, content_type: $type, size: $size, sha256: $sha256, mode: "put"}')")
  send "$file" "$(jq -c .upload <<<"$plan")"
  jq -r .id <<<"$plan"
  exit
fi

each=${PART_SIZE:-$((8 << 20))} # the same one when it goes on after a stop
id=${RESUME:-}
if [ -z "$id" ]; then
  id=$(api POST /files "$(jq -nc --arg name "$(basename "$file")" --arg type "$type" --argjson size "$size" --argjson each "$each" \
    '{name: $name, content_type: $type, size: $size, part_size: $each, mode: "multipart"}')" | jq -r .id)
  echo "RESUME=$id goes on after a stop" >&2
fi
count=$(((size + each - 1) / each))
for number in $(seq "$count"); do
  dd if="$file" of="$part" bs="$each" skip=$((number - 1)) count=1 status=none
  signed=$(api POST "/files/$id/parts" "$(jq -nc --argjson part "$number" --argjson size "$(stat -c %s "$part")" --arg sha256 "$(digest "$part")" \
    '{parts: [{part: $part, size: $size, sha256: $sha256}], resume: true}')")
  # What is there already is told in `uploaded` and gets no URL.
  one=$(jq -c '.parts[0] // empty' <<<"$signed")
  [ -z "$one" ] || send "$part" "$one"
  echo "part $number of $count" >&2
done
api POST "/files/$id/complete" >/dev/null
echo "$id"
