//! The test cases of cloudflared's own parser (`Test_parseIngress`, `TestParseAccessConfig`, `TestMatchHostCaseInsensitive` in
//! its package `ingress`), judged by ours. What it refuses is refused here; of what it accepts nothing would be right for us.

#![allow(clippy::expect_used, reason = "helpers outside of #[test] functions; a test may fail loudly")]

mod support;

use support::{API, gate};
use tunnel::{Why, check};

fn refused(rules: &str) -> Vec<Why> {
    let text = format!("tunnel: 6ff42ae2-765d-4adf-8112-31c55c1551ef\n{rules}");
    check(&text, &gate()).expect_err(rules).into_iter().map(|fault| fault.why).collect()
}

#[test]
fn what_cloudflared_refuses_is_refused() {
    let cases = [
        ("empty", "", Why::Missing),
        (
            "last rule is no catch-all",
            "ingress:\n- hostname: api.example.com\n  service: https://localhost:8000\n",
            Why::LastRule,
        ),
        (
            "first rule is a catch-all",
            "ingress:\n- service: https://localhost:8000\n- hostname: api.example.com\n  service: https://localhost:8000\n",
            Why::MatchesEverything,
        ),
        (
            "catch-all with a path",
            "ingress:\n- service: https://localhost:8001\n  path: /subpath1/(.*)/subpath2\n",
            Why::LastRule,
        ),
        (
            "invalid regex",
            "ingress:\n- hostname: api.example.com\n  service: https://localhost:8000\n  path: '*/subpath2'\n- service: http_status:404\n",
            Why::Path,
        ),
        (
            "invalid service",
            "ingress:\n- hostname: api.example.com\n  service: https://local host:8000\n- service: http_status:404\n",
            Why::OtherOrigin,
        ),
        (
            "service without a scheme",
            "ingress:\n- hostname: api.example.com\n  service: localhost:8000\n- service: http_status:404\n",
            Why::OtherService,
        ),
        (
            "wildcard not at the start",
            "ingress:\n- hostname: test.*.example.com\n  service: https://localhost:8000\n- service: http_status:404\n",
            Why::NotAHost,
        ),
        (
            "service with a path",
            &format!(
                "ingress:\n- hostname: api.example.com\n  service: https://{API}/static/\n- service: http_status:404\n"
            ),
            Why::OriginPath,
        ),
        ("status that is none", "ingress:\n- service: http_status:asdf\n", Why::LastRule),
        ("status out of range", "ingress:\n- service: http_status:8080\n", Why::LastRule),
        (
            "host with a port",
            "ingress:\n- hostname: test.example.com:443\n  service: https://localhost:8000\n- service: http_status:404\n",
            Why::NotAHost,
        ),
        (
            "audience without a team",
            &format!(
                "ingress:\n- hostname: api.example.com\n  service: https://{API}\n  originRequest:\n    access: {{required: true, audTag: [a]}}\n- service: http_status:404\n"
            ),
            Why::Missing,
        ),
    ];
    for (name, rules, why) in cases {
        let found = refused(rules);
        assert!(found.contains(&why), "{name}: {found:?}");
    }
}

#[test]
fn what_cloudflared_accepts_and_we_do_not() {
    let access = |inner: &str| {
        format!(
            "ingress:\n- hostname: api.example.com\n  service: https://{API}\n  originRequest:\n    httpHostHeader: {API}\n    access: {inner}\n- service: http_status:404\n"
        )
    };
    let cases = [
        ("extra keys, with a warning at most", "ingress:\n- service: http_status:404\nextraKey: extraValue\n".to_owned(), Why::UnknownKey),
        ("only a wildcard", "ingress:\n- hostname: '*'\n  service: https://localhost:8000\n".to_owned(), Why::LastRule),
        ("web sockets", "ingress:\n- hostname: api.example.com\n  service: wss://localhost:8000\n- service: http_status:404\n".to_owned(), Why::NotHttps),
        ("a catch-all to an origin", "ingress:\n- service: https://localhost:8000\n".to_owned(), Why::LastRule),
        ("hello world", "ingress:\n- service: hello_world\n".to_owned(), Why::LastRule),
        ("a socket", "ingress:\n- service: unix:/tmp/echo.sock\n".to_owned(), Why::LastRule),
        ("a socket with TLS", "ingress:\n- service: unix+tls:/tmp/echo.sock\n".to_owned(), Why::LastRule),
        ("tcp", "ingress:\n- hostname: api.example.com\n  service: tcp://127.0.0.1\n- service: http_status:404\n".to_owned(), Why::OtherService),
        ("ssh", "ingress:\n- service: ssh://127.0.0.1\n".to_owned(), Why::LastRule),
        ("rdp", "ingress:\n- service: rdp://127.0.0.1\n".to_owned(), Why::LastRule),
        ("smb", "ingress:\n- service: smb://127.0.0.1\n".to_owned(), Why::LastRule),
        ("ftp over tcp", "ingress:\n- service: ftp://127.0.0.1\n".to_owned(), Why::LastRule),
        ("socks", "ingress:\n- hostname: api.example.com\n  service: socks-proxy\n  originRequest:\n    ipRules:\n    - prefix: 1.1.1.0/24\n      ports: [80, 443]\n      allow: true\n- service: http_status:404\n".to_owned(), Why::ProxyMode),
        ("bastion mode", "ingress:\n- hostname: api.example.com\n  originRequest:\n    bastionMode: true\n- service: http_status:404\n".to_owned(), Why::ProxyMode),
        ("bastion", "ingress:\n- hostname: api.example.com\n  service: bastion\n- service: http_status:404\n".to_owned(), Why::OtherService),
        ("access required with a team only", access("{required: true, teamName: example}"), Why::OtherAudience),
        ("access not required", access("{required: false}"), Why::NotRequired),
        ("access required by nothing", access("{required: true}"), Why::OtherAudience),
        ("capitals in a host", "ingress:\n- hostname: Api.example.com\n  service: https://localhost\n- service: http_status:404\n".to_owned(), Why::NotAHost),
    ];
    for (name, rules, why) in cases {
        let found = refused(&rules);
        assert!(found.contains(&why), "{name}: {found:?}");
    }
}
