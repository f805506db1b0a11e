//! Files as tests ask for them: five bytes, in each way there is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use local::journey::Answer;
use serde_json::{Value, json};
use shared::digest::sha256;

use super::Running;

/// What is in every one of them.
pub const CONTENT: &[u8] = b"hello";

/// What is asked for a file that is sent whole.
pub fn new_file() -> Value {
    let digest = STANDARD.encode(sha256(CONTENT));
    json!({"name": "a.txt", "content_type": "text/plain", "size": CONTENT.len(), "sha256": digest, "mode": "put"})
}

/// The only part of a file of one part.
pub fn part() -> Value {
    json!({"part": 1, "size": CONTENT.len(), "sha256": STANDARD.encode(sha256(CONTENT))})
}

/// Sends the bytes as a plan says.
pub async fn put(running: &Running, upload: &Value) -> Answer {
    let headers = upload["headers"].as_object().unwrap();
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap())).collect();
    running.api.send("PUT", upload["url"].as_str().unwrap(), &headers, CONTENT.into()).await.unwrap()
}

/// A file of one part, which is there or is not.
pub async fn in_parts(running: &Running, token: &str, sent: bool) -> String {
    let body = json!({"name": "a.txt", "content_type": "text/plain", "size": CONTENT.len(), "mode": "multipart"});
    let plan = running.api.call("POST", "/files", Some(token), Some(&body)).await.unwrap().json();
    let id = plan["id"].as_str().unwrap().to_owned();
    if sent {
        let body = json!({"parts": [part()]});
        let signed = running.api.call("POST", &format!("/files/{id}/parts"), Some(token), Some(&body)).await.unwrap();
        let sent = put(running, &signed.json()["parts"][0]).await;
        assert_eq!(sent.status, 200, "{}", sent.outcome());
    }
    id
}
