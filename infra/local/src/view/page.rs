//! The view as a page, on 127.0.0.1 and nowhere else.
//!
//! Everything lies below a random folder, so that neither another user of the machine nor a page that guesses ports gets anything. A
//! `Host` that is not this listener's is refused (DNS rebinding), and so is what a browser sends for another origin. What the page shows
//! was written by attackers: it is data to it (`textContent`), its policy lets nothing run but its own file, and nothing is loaded from anywhere.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::account::{Account, letters};
use crate::http::{Request, Response, Server, answer, serve};

/// The longest body: a list of faults.
const LIMIT: usize = 64 * 1024;
/// How long a question for news waits.
const PATIENCE: Duration = Duration::from_secs(20);
/// News that come together are told together.
const PAUSE: Duration = Duration::from_millis(80);

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const FILES: [(&str, &str, &str); 3] = [
    ("", "text/html; charset=utf-8", include_str!("page/page.html")),
    ("page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
    ("page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
];

/// The page as it is served. It ends when this is dropped.
#[derive(Debug)]
pub struct Page {
    /// Where it is, the folder that nobody guesses included.
    pub url: String,
    _server: Server,
}

/// What the page needs to know.
struct Shown {
    account: Arc<Account>,
    authority: [String; 2],
    folder: String,
}

impl Page {
    /// Serves the page of this account's view and the control of its faults.
    ///
    /// # Errors
    /// When the listener is not on loopback.
    pub async fn serve(account: Arc<Account>, listener: TcpListener) -> io::Result<Self> {
        let port = listener.local_addr()?.port();
        let folder = format!("/{}/", letters(26).to_ascii_lowercase());
        let authority = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
        let url = format!("http://127.0.0.1:{port}{folder}");
        let shown = Arc::new(Shown { account, authority, folder });
        let server = serve(listener, None, LIMIT, move |request| {
            let shown = Arc::clone(&shown);
            async move { shown.respond(&request).await }
        })
        .await?;
        Ok(Self { url, _server: server })
    }
}

impl Shown {
    async fn respond(&self, request: &Request) -> Response {
        let mut response = match self.admit(request) {
            Ok(path) => self.route(request, path).await,
            Err(status) => answer(status, &[], ""),
        };
        let headers = [
            ("cache-control", "no-store"),
            ("content-security-policy", POLICY),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
        ];
        for (name, value) in headers {
            response.headers_mut().insert(name, http::HeaderValue::from_static(value));
        }
        response
    }

    /// The path below the folder, for whoever may ask.
    fn admit<'a>(&self, request: &'a Request) -> Result<&'a str, StatusCode> {
        let one = |name: &str| {
            let mut values = request.headers.get_all(name).iter();
            (values.next().and_then(|value| value.to_str().ok()), values.next().is_none())
        };
        let (Some(host), true) = one("host") else { return Err(StatusCode::MISDIRECTED_REQUEST) };
        if !request.peer.ip().is_loopback() || !self.authority.iter().any(|own| own == host) {
            return Err(StatusCode::MISDIRECTED_REQUEST);
        }
        let own_origin = |origin: &str| origin.strip_prefix("http://") == Some(host);
        let foreign = request.headers.contains_key("origin")
            && !matches!(one("origin"), (Some(origin), true) if own_origin(origin));
        let (site, _) = one("sec-fetch-site");
        if foreign || site.is_some_and(|site| site != "same-origin" && site != "none") {
            return Err(StatusCode::FORBIDDEN);
        }
        request.uri.path().strip_prefix(self.folder.as_str()).ok_or(StatusCode::NOT_FOUND)
    }

    async fn route(&self, request: &Request, path: &str) -> Response {
        if let Some((_, kind, text)) = FILES.iter().find(|(name, ..)| *name == path && request.method == Method::GET) {
            return answer(StatusCode::OK, &[("content-type", kind)], *text);
        }
        match (&request.method, path) {
            (&Method::GET, "news") => self.news(request).await,
            (&Method::GET, "faults") => self.faults(),
            (&Method::PUT, "faults") => self.set_faults(request),
            (&Method::GET, path) => match path.strip_prefix("requests/").and_then(|number| number.parse().ok()) {
                Some(number) => match self.account.view.find(number) {
                    Some(seen) => told(StatusCode::OK, &json!(seen)),
                    None => told(StatusCode::NOT_FOUND, &json!({"error": "that request is forgotten"})),
                },
                None => answer(StatusCode::NOT_FOUND, &[], ""),
            },
            _ => answer(StatusCode::NOT_FOUND, &[], ""),
        }
    }

    /// What is newer than `?after=N`; waits for it unless `?wait=0`.
    async fn news(&self, request: &Request) -> Response {
        let query = request.uri.query().unwrap_or_default();
        let number = |name: &str| {
            let value = url::form_urlencoded::parse(query.as_bytes()).find(|(held, _)| held == name);
            value.and_then(|(_, value)| value.parse::<u64>().ok())
        };
        let after = number("after").unwrap_or_default();
        let view = &self.account.view;
        if number("wait") != Some(0) {
            view.newer(after, PATIENCE).await;
            tokio::time::sleep(PAUSE).await;
        }
        let (version, requests, notices) = view.after(after);
        told(StatusCode::OK, &json!({"version": version, "requests": requests, "notices": notices}))
    }

    fn faults(&self) -> Response {
        told(StatusCode::OK, &self.account.faults.told())
    }

    /// Takes `{"faults": TEXT, "seed": NUMBER}` in place of the faults so far. The content type is one that no page can send to another
    /// origin without asking first.
    fn set_faults(&self, request: &Request) -> Response {
        let refused = |text: &str| told(StatusCode::BAD_REQUEST, &json!({ "error": text }));
        if request.headers.get("content-type").is_none_or(|kind| kind != "application/json") {
            return told(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                &json!({"error": "the content type must be application/json"}),
            );
        }
        let Ok(body) = serde_json::from_slice::<Value>(&request.body) else { return refused("the body is not JSON") };
        let known = body.as_object().is_some_and(|body| body.keys().all(|name| name == "faults" || name == "seed"));
        let (Some(text), true) = (body.get("faults").and_then(Value::as_str), known) else {
            return refused("wanted: {\"faults\": text, \"seed\": number}");
        };
        let seed = match body.get("seed") {
            None | Some(Value::Null) => None,
            Some(seed) => match seed.as_u64() {
                Some(seed) => Some(seed),
                None => return refused("the seed is no whole number"),
            },
        };
        match self.account.faults.replace(text, seed) {
            Ok(()) => {
                let now = self.account.clock.now();
                self.account.view.notice(
                    now,
                    "info",
                    &format!("faults: {}", if text.trim().is_empty() { "none" } else { text }),
                );
                self.faults()
            }
            Err(wrong) => refused(&wrong.to_string()),
        }
    }
}

fn told(status: StatusCode, body: &Value) -> Response {
    answer(status, &[("content-type", "application/json")], body.to_string())
}
