#!/usr/bin/env bash
# Uploads a file through Portcullis with curl, jq and openssl: up to 64 MiB by one PUT, larger ones in parts.
#
#   API=https://api.example.com TOKEN_COMMAND=./token ./upload.sh report.pdf application/pdf
#   API=… TOKEN_COMMAND=./token RESUME=FILE_ID ./upload.sh backup.zip application/zip     # after a stop, with the same file
#
# TOKEN_COMMAND prints an access token. Tokens live for minutes: it is asked again when one ends on the way. With TOKEN=… there
# is that one token, and what lasts longer stops and goes on with RESUME. PART_SIZE must stay the same when it goes on; WHOLE is the most
# that goes by one PUT.
# Prints the file's id. CURL_OPTIONS are curl's (--cacert ca.pem). Nothing of the token goes to the bucket, nor to the list of processes.
set -euo pipefail
file=$1 type=${2:-application/octet-stream}
size=$(stat -c %s "$file")
read -ra options <<<"${CURL_OPTIONS:-}"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
part=$folder/part headers=$folder/headers said=$folder/said bearer=$folder/bearer
key=$(openssl rand -hex 16) # the same for every try: nothing is made twice

renew() { # the token that the next requests carry
  [ -n "${TOKEN_COMMAND:-}" ] && TOKEN=$(bash -c "$TOKEN_COMMAND") && printf 'authorization: Bearer %s\n' "$TOKEN" >"$bearer"
}
if [ -n "${TOKEN:-}" ]; then printf 'authorization: Bearer %s\n' "$TOKEN" >"$bearer"; else renew; fi

pause() { sleep "$1.$((RANDOM % 1000))"; }

api() { # method, path, body: the API's answer, or its refusal on stderr
  local more=() status tries refused=
  [ -z "${3:-}" ] || more=(--header 'content-type: application/json' --data "$3")
  for tries in 1 2 3 4 5; do
    status=$(curl --silent --show-error "${options[@]}" --request "$1" --header "@$bearer" --header "idempotency-key: $key" "${more[@]}" \
      --output "$said" --write-out '%{http_code}' "$API$2") || status=000
    case $status in
      2??) cat "$said" && return ;;
      401) # ended: another one, but not for ever
        [ -z "$refused" ] && renew || break
        refused=yes
        continue ;;
      409) # completed already, though nobody heard of it; anything else may pass
        [ "$(jq -r .code "$said")" != file_already_uploaded ] || { echo '{"parts":[],"completed":true}' && return; }
        [ "$(jq -r .code "$said")" != idempotency_conflict ] || break ;;
      000 | 429 | 5??) ;;
      *) break ;;
    esac
    refused=
    pause "$tries"
  done
  echo "$1 $2: $status $(cat "$said" 2>/dev/null)" >&2
  return 1
}

digest() { openssl dgst -sha256 -binary "$1" | base64 -w0; }

send() { # what, the signed request as JSON: exactly its headers, and no others
  jq -r '.headers | to_entries[] | "\(.key): \(.value)"' <<<"$2" >"$headers"
  local status
  status=$(curl --silent --show-error "${options[@]}" --header "@$headers" --upload-file "$1" \
    --output "$said" --write-out '%{http_code}' "$(jq -r .url <<<"$2")") || status=000
  # 412: an earlier try got through, though its answer did not.
  [ "$status" = 200 ] || [ "$status" = 412 ] || { echo "the bucket: $status $(cat "$said" 2>/dev/null)" >&2; return 1; }
}

again() { # command ...: up to five times, each with a URL of its own, unless it ends with 2: what the API refused stays refused
  local tries status
  for tries in 1 2 3 4 5; do
    status=0
    "$@" || status=$?
    [ "$status" = 1 ] || return "$status"
    pause "$tries"
  done
  return 1
}

whole() {
  local plan one
  plan=$(api POST /files "$1") || return 2
  # Without a URL: an earlier try got through.
  one=$(jq -c '.upload // empty' <<<"$plan")
  [ -z "$one" ] || send "$file" "$one" || return 1
  jq -r .id <<<"$plan"
}

if [ -z "${RESUME:-}" ] && [ "$size" -le "${WHOLE:-$((64 << 20))}" ]; then
  again whole "$(jq -nc --arg name "$(basename "$file")" --arg type "$type" --argjson size "$size" --arg sha256 "$(digest "$file")" \
    '{name: $name, content_type: $type, size: $size, sha256: $sha256, mode: "put"}')"
  exit
fi

each=${PART_SIZE:-$((8 << 20))}
id=${RESUME:-}
resume=false # whether to ask what is there
if [ -z "$id" ]; then
  id=$(api POST /files "$(jq -nc --arg name "$(basename "$file")" --arg type "$type" --argjson size "$size" --argjson each "$each" \
    '{name: $name, content_type: $type, size: $size, part_size: $each, mode: "multipart"}')" | jq -r .id)
  echo "RESUME=$id goes on after a stop" >&2
else
  resume=true
fi
count=$(((size + each - 1) / each))

one_part() { # number
  local signed one
  signed=$(api POST "/files/$id/parts" "$(jq -nc --argjson part "$1" --argjson size "$(stat -c %s "$part")" --arg sha256 "$(digest "$part")" \
    --argjson resume "$resume" '{parts: [{part: $part, size: $size, sha256: $sha256}], resume: $resume}')") || return 2
  one=$(jq -c '.parts[0] // empty' <<<"$signed")
  if [ -z "$one" ]; then
    echo "part $1 of $count is there" >&2
    return
  fi
  resume=true # if this fails, its answer alone may have been lost
  send "$part" "$one" || return 1
  [ -n "${RESUME:-}" ] || resume=false
  echo "part $1 of $count sent" >&2
}
for number in $(seq "$count"); do
  dd if="$file" of="$part" bs=1M skip=$(((number - 1) * each)) count="$each" iflag=skip_bytes,count_bytes status=none
  again one_part "$number"
done
api POST "/files/$id/complete" >/dev/null
echo "$id"
