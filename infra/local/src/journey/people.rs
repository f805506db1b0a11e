//! People: from the assertion of Cloudflare Access to a session, and everything that somebody else could try with it.

use std::io;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::json;

use super::client::Answer;
use super::{Api, Journey, PATIENCE};
use crate::seed::{Client, PAGE};

const PATH: &str = "/files/0198e1a0-0000-7000-8000-000000000000";
const ADA: &str = "7335d417-61da-459d-899c-0a01c76a2f94";
const EVE: &str = "0c8a5a38-7b6a-4f0e-9d1e-5a2f1f8f3b11";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const HEADER: &str = "urn:portcullis:token-type:access-header";

impl Journey<'_> {
    /// Ada's page gets a session, uses it, and loses it to whoever shows a token twice.
    pub(super) async fn people(&mut self) -> io::Result<()> {
        // The page's key pair, which never left the browser; a seeded client's serves for it here.
        let (page, thief) = (self.client("acme-bound")?, self.client("acme-reader")?);
        let ada = self.stack.access.user_assertion(ADA, "Ada@example.com")?;
        let eve = self.stack.access.user_assertion(EVE, "eve@elsewhere.example")?;
        let stranger = self.api.exchange(page, JWT, &eve, None).await?;
        self.report.row("somebody whom no row knows gets no token", "400 invalid_request", stranger.outcome());
        let answer = self.api.exchange(page, HEADER, "header", Some(&ada)).await?;
        self.report.row("Ada's page exchanges her Access assertion (RFC 8693)", "200 DPoP", shown(&answer));
        let (token, refresh) = both(&answer);
        let beside = self.api.beside(page, &token, Some(&ada)).await?;
        self.report.row("her token passes the gate beside her assertion", "404 not_found", beside.outcome());
        for (what, assertion) in [("without it", None), ("beside somebody else's", Some(eve.as_str()))] {
            let answer = self.api.beside(page, &token, assertion).await?;
            self.report.row(what, "401 unauthorized", answer.outcome());
        }
        let (stray, _) = both(&self.api.exchange(thief, JWT, &ada, None).await?);
        let answer = self.api.beside(thief, &stray, Some(&ada)).await?;
        self.report.row("she herself, on a device that nobody knows", "403 forbidden", answer.outcome());
        let answer = self.api.refreshed(page, &refresh, Some(&ada)).await?;
        self.report.row("her session goes on with a new refresh token", "200 DPoP", shown(&answer));
        let (_, next) = both(&answer);
        for (what, key, assertion) in [
            ("not for who has the token but not the key", thief, Some(ada.as_str())),
            ("nor without her assertion", page, None),
            ("nor beside somebody else's", page, Some(eve.as_str())),
        ] {
            let answer = self.api.refreshed(key, &next, assertion).await?;
            self.report.row(what, "400 invalid_grant", answer.outcome());
        }
        let (access, last) = both(&self.api.refreshed(page, &next, Some(&ada)).await?);
        let again = self.api.refreshed(page, &refresh, Some(&ada)).await?;
        self.report.row(
            "a token that was used long ago shows that it was stolen",
            "400 invalid_grant",
            again.outcome(),
        );
        let ended = self.api.refreshed(page, &last, Some(&ada)).await?;
        self.report.row("and the session is over for everybody", "400 invalid_grant", ended.outcome());
        self.stack.events.idle().await;
        let dead = self.gone(page, &access, &ada).await?;
        self.report.row("its living tokens with it, within seconds", "401 unauthorized", dead);
        Ok(())
    }

    /// What the gate says once it has read the revocations again.
    async fn gone(&self, page: &Client, token: &str, assertion: &str) -> io::Result<String> {
        let since = self.stack.account.clock.now();
        loop {
            let said = self.api.beside(page, token, Some(assertion)).await?.outcome();
            if said.starts_with("401") || self.passed(since) > PATIENCE {
                return Ok(said);
            }
            self.moment().await;
        }
    }
}

fn shown(answer: &Answer) -> String {
    format!("{} {}", answer.status, answer.json()["token_type"].as_str().unwrap_or_default())
}

fn both(answer: &Answer) -> (String, String) {
    let body = answer.json();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (text("access_token"), text("refresh_token"))
}

impl Api {
    /// Exchanges an assertion for a session of the seeded page, bound to `key`'s key; `own` is what Access adds to the request.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn exchange(&self, key: &Client, kind: &str, subject: &str, own: Option<&str>) -> io::Result<Answer> {
        let fields =
            [("grant_type", EXCHANGE), ("client_id", PAGE), ("subject_token_type", kind), ("subject_token", subject)];
        self.by_page(key, &fields, own).await
    }

    /// Asks for the next tokens of a session.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn refreshed(&self, key: &Client, token: &str, own: Option<&str>) -> io::Result<Answer> {
        self.by_page(key, &[("grant_type", "refresh_token"), ("client_id", PAGE), ("refresh_token", token)], own).await
    }

    /// Gets a file that does not exist, with a bound token, its proof, and what Access adds.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn beside(&self, key: &Client, token: &str, own: Option<&str>) -> io::Result<Answer> {
        let ath = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()));
        let proof = self.proof(key, "GET", PATH, &json!({ "ath": ath }))?;
        let authorization = format!("DPoP {token}");
        let mut headers = vec![("authorization", authorization.as_str()), ("dpop", proof.as_str())];
        headers.extend(own.map(|own| ("cf-access-jwt-assertion", own)));
        self.send("GET", &format!("{}{PATH}", self.base()), &headers, Bytes::new()).await
    }

    /// A request to the token endpoint with a proof, and once more with the nonce that it asks for.
    async fn by_page(&self, key: &Client, fields: &[(&str, &str)], own: Option<&str>) -> io::Result<Answer> {
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields);
        let (form, mut nonce) = (form.finish(), json!({}));
        loop {
            let proof = self.proof(key, "POST", "/oauth2/token", &nonce)?;
            let mut headers = vec![("content-type", "application/x-www-form-urlencoded"), ("dpop", proof.as_str())];
            headers.extend(own.map(|own| ("cf-access-jwt-assertion", own)));
            let answer =
                self.send("POST", &format!("{}/oauth2/token", self.base()), &headers, form.clone().into()).await?;
            if nonce.get("nonce").is_some() || answer.json()["error"] != "use_dpop_nonce" {
                return Ok(answer);
            }
            nonce = json!({ "nonce": answer.header("dpop-nonce") });
        }
    }
}
