//! Tokens that are worth nothing without the client's key (RFC 9449).

use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};

use super::client::{Answer, JWT_BEARER, seconds, unique};
use super::devices::DEVICE;
use super::{Journey, claims};
use crate::seed::Client;

const PATH: &str = "/files/0198e1a0-0000-7000-8000-000000000000";

impl Journey<'_> {
    /// Gets a bound token, uses it, and tries everything that somebody could who has stolen it.
    pub(super) async fn bound_tokens(&mut self) -> io::Result<()> {
        let (bound, thief) = (self.client("acme-bound")?, self.client("acme-reader")?);
        let bare = self.api.token_with(&self.api.assertion(bound)?, None).await?;
        self.report.row("a client whose tokens are bound gets none without a proof", "400 invalid_dpop_proof", {
            bare.outcome()
        });
        let assertion = self.api.assertion(bound)?;
        let asked =
            self.api.bound_token(&assertion, &self.api.proof(bound, "POST", "/oauth2/token", &json!({}))?).await?;
        self.report.row("with a proof it is told the nonce to use", "400 use_dpop_nonce", asked.outcome());
        let nonce = asked.header("dpop-nonce").to_owned();
        let proof = self.api.proof(bound, "POST", "/oauth2/token", &json!({ "nonce": nonce }))?;
        let answer = self.api.bound_token(&assertion, &proof).await?;
        self.report.row("and gets a token that is bound to its key", "200 DPoP", {
            format!("{} {}", answer.status, answer.json()["token_type"].as_str().unwrap_or_default())
        });
        let again = self.api.bound_token(&self.api.assertion(bound)?, &proof).await?;
        self.report.row("the same proof with another assertion", "400 invalid_dpop_proof", again.outcome());
        let token = answer.json()["access_token"].as_str().unwrap_or_default().to_owned();
        let ath = json!({"ath": URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()))});
        let device = claims(&token)["device"]["id"].as_str().unwrap_or("none").to_owned();
        self.report.row("which says on which device its key was made", DEVICE, device);
        let proof = self.api.proof(bound, "GET", PATH, &ath)?;
        let answer = self.api.proven(PATH, &token, &proof).await?;
        self.report.row("it passes the gate with a fresh proof", "404 not_found", answer.outcome());
        let plain = self.api.call("GET", PATH, Some(&token), None).await?;
        self.report.row("stolen, as a bearer token", "401 unauthorized", plain.outcome());
        for (what, proof) in [
            ("with the proof that was overheard", proof),
            ("with a proof of another key", self.api.proof(thief, "GET", PATH, &ath)?),
            ("with a proof of another request", self.api.proof(bound, "DELETE", PATH, &ath)?),
            ("with a proof that names no token", self.api.proof(bound, "GET", PATH, &json!({}))?),
        ] {
            let answer = self.api.proven(PATH, &token, &proof).await?;
            self.report.row(what, "401 unauthorized", answer.outcome());
        }
        Ok(())
    }
}

impl super::Api {
    /// A proof of `client`'s key over a request to `path`, with these claims besides the usual ones.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn proof(&self, client: &Client, method: &str, path: &str, more: &Value) -> io::Result<String> {
        let mut claims = json!({"jti": unique(), "htm": method, "htu": format!("{}{path}", self.base()),
            "iat": seconds(self.clock())});
        if let (Some(claims), Some(more)) = (claims.as_object_mut(), more.as_object()) {
            claims.extend(more.clone());
        }
        client.proof(&claims)
    }

    /// Asks for a token with this assertion and this proof.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn bound_token(&self, assertion: &str, proof: &str) -> io::Result<Answer> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        form.append_pair("client_assertion_type", JWT_BEARER).append_pair("client_assertion", assertion);
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("dpop", proof)];
        self.send("POST", &format!("{}/oauth2/token", self.base()), &headers, form.finish().into()).await
    }

    /// Gets `path` with a bound token and a proof.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn proven(&self, path: &str, token: &str, proof: &str) -> io::Result<Answer> {
        let authorization = format!("DPoP {token}");
        let headers = [("authorization", authorization.as_str()), ("dpop", proof)];
        self.send("GET", &format!("{}{path}", self.base()), &headers, Bytes::new()).await
    }
}
