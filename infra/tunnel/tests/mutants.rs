//! One mutant a trap: the rendered configuration with one thing changed by hand, and the fault it must raise.

#![allow(clippy::expect_used, reason = "helpers outside of #[test] functions; a test may fail loudly")]

mod support;

use support::{API, AUD, GUEST, gate};
use tunnel::{Fate, Why, check, render};

fn whys(text: &str) -> Vec<Why> {
    check(text, &gate()).expect_err("refused").into_iter().map(|fault| fault.why).collect()
}

/// The rendered text with `from` replaced, once.
fn mutant(from: &str, to: &str) -> String {
    let text = render(&gate());
    assert!(text.contains(from), "{from} is not in the rendered text");
    text.replacen(from, to, 1)
}

#[test]
fn what_is_rendered_is_accepted_and_every_rule_has_its_fate() {
    let fates = check(&render(&gate()), &gate()).expect("accepted");
    let origin = API.to_owned();
    assert_eq!(
        fates,
        [
            Fate::People { host: "api.example.com".into(), audience: AUD.into(), origin: origin.clone() },
            Fate::Machines { host: "machines.example.com".into(), origin },
            Fate::Nowhere,
        ]
    );
    let told: Vec<String> = fates.iter().map(ToString::to_string).collect();
    assert!(told.iter().all(|line| !line.is_empty()) && told[2] == "any other host: 404");
}

#[test]
fn the_order_of_the_two_hosts_is_free_because_neither_takes_the_others_requests() {
    let text = render(&gate());
    let at = |needle: &str| text.find(needle).expect("there");
    let (people, machines, last) =
        (at("  - hostname: api"), at("  - hostname: machines"), at("  - service: http_status"));
    let swapped = format!("{}{}{}{}", &text[..people], &text[machines..last], &text[people..machines], &text[last..]);
    assert_eq!(check(&swapped, &gate()).expect("accepted").len(), 3);
}

#[test]
fn every_mutant_is_refused_for_its_own_reason() {
    let access = format!(
        "      access:\n        required: true\n        teamName: example\n        audTag:\n          - {AUD}\n"
    );
    let service = format!("    service: https://{API}\n");
    let header = format!("      httpHostHeader: {API}\n");
    let last = "  - service: http_status:404\n";
    let people = "  - hostname: api.example.com\n";
    let with = |line: &str| mutant(&header, &format!("{header}{line}"));
    let origin = |value: &str| mutant(&service, &format!("    service: {value}\n"));
    let top = |line: &str| mutant("ingress:\n", &format!("{line}\ningress:\n"));
    let cases: Vec<(&str, String, Vec<Why>)> = vec![
        // T9
        (
            "access moved to the top level",
            mutant(&access, "")
                + "originRequest:\n"
                + &access.replace("      access", "  access").replace("        ", "    "),
            vec![Why::TopLevelOrigin, Why::NoAccess],
        ),
        ("access removed", mutant(&access, ""), vec![Why::NoAccess]),
        ("access emptied", mutant(&access, "      access:\n"), vec![Why::WrongType]),
        ("required: false", mutant("required: true", "required: false"), vec![Why::NotRequired]),
        ("required as text", mutant("required: true", "required: 'true'"), vec![Why::NotRequired]),
        (
            "required in YAML 1.1, which only one of two readers takes",
            mutant("required: true", "required: yes"),
            vec![Why::NotRequired],
        ),
        ("required left out", mutant("        required: true\n", ""), vec![Why::NotRequired]),
        ("audTag empty", mutant(&format!("audTag:\n          - {AUD}"), "audTag: []"), vec![Why::OtherAudience]),
        ("audTag of an empty text", mutant(&format!("- {AUD}"), "- ''"), vec![Why::OtherAudience]),
        ("audTag left out", mutant(&format!("        audTag:\n          - {AUD}\n"), ""), vec![Why::OtherAudience]),
        (
            "audTag as a text",
            mutant(&format!("audTag:\n          - {AUD}"), &format!("audTag: {AUD}")),
            vec![Why::OtherAudience],
        ),
        ("audTag of another application", mutant(AUD, GUEST), vec![Why::OtherAudience]),
        (
            "a second audTag",
            mutant(&format!("- {AUD}\n"), &format!("- {AUD}\n          - {GUEST}\n")),
            vec![Why::OtherAudience],
        ),
        ("another team", mutant("teamName: example", "teamName: evil"), vec![Why::OtherTeam]),
        ("no team", mutant("        teamName: example\n", ""), vec![Why::Missing]),
        (
            "another environment of Access",
            mutant("        teamName", "        environment: fed\n        teamName"),
            vec![Why::UnknownKey],
        ),
        ("access misspelt", mutant("      access:", "      Access:"), vec![Why::UnknownKey, Why::NoAccess]),
        (
            "access at the rule instead of its originRequest",
            mutant(&access, &access.replace("      access", "    access").replace("        ", "      ")),
            vec![Why::UnknownKey, Why::NoAccess],
        ),
        ("access before the machines", mutant(last, &(access.clone() + last)), vec![Why::AccessForMachines]),
        // order and hosts
        (
            "catch-all first",
            mutant(last, "").replace(people, &format!("{last}{people}")),
            vec![Why::MatchesEverything, Why::OtherService, Why::Missing, Why::LastRule, Why::HostWithoutRule],
        ),
        ("catch-all missing", mutant(last, ""), vec![Why::LastRule, Why::HostWithoutRule]),
        ("catch-all to the API", mutant(last, &format!("  - service: https://{API}\n")), vec![Why::LastRule]),
        ("catch-all with another status", mutant("http_status:404", "http_status:200"), vec![Why::LastRule]),
        ("catch-all with more", mutant(last, "  - service: http_status:404\n    path: /x\n"), vec![Why::LastRule]),
        ("no rules", "tunnel: 6ff42ae2-765d-4adf-8112-31c55c1551ef\ningress: []\n".to_owned(), vec![Why::Missing]),
        (
            "any host",
            mutant("hostname: api.example.com", "hostname: '*'"),
            vec![Why::MatchesEverything, Why::HostWithoutRule],
        ),
        (
            "any host of the zone",
            mutant("hostname: api.example.com", "hostname: '*.example.com'"),
            vec![Why::NotAHost, Why::HostWithoutRule],
        ),
        (
            "a host with a port",
            mutant("hostname: api.example.com", "hostname: api.example.com:443"),
            vec![Why::NotAHost, Why::HostWithoutRule],
        ),
        (
            "a host in capitals",
            mutant("hostname: api.example.com", "hostname: Api.example.com"),
            vec![Why::NotAHost, Why::HostWithoutRule],
        ),
        (
            "a host nobody named",
            mutant("hostname: machines.example.com", "hostname: other.example.com"),
            vec![Why::UnknownHost, Why::HostWithoutRule],
        ),
        (
            "the people's host without its lock, first",
            mutant(people, &format!("{people}{service}    originRequest:\n{header}{people}")),
            vec![Why::NoAccess, Why::HostTwice],
        ),
        (
            "the machines' rule for the people's host",
            mutant("hostname: machines.example.com", "hostname: api.example.com"),
            vec![Why::HostTwice, Why::HostWithoutRule],
        ),
        ("another tunnel", mutant("6ff42ae2", "6ff42ae3"), vec![Why::OtherTunnel]),
        ("no tunnel", mutant("tunnel: 6ff42ae2-765d-4adf-8112-31c55c1551ef\n", ""), vec![Why::Missing]),
        // T15
        ("Host is the public name", mutant(&header, "      httpHostHeader: api.example.com\n"), vec![Why::HostHeader]),
        ("Host left to the client", mutant(&header, ""), vec![Why::Missing]),
        ("TLS asks for another name", with("      originServerName: example.com\n"), vec![Why::ServerName]),
        ("TLS asks for what Host says", with("      matchSNItoHost: true\n"), vec![Why::ServerName]),
        ("another API", origin("https://zzzzzzzzzz.execute-api.eu-central-1.amazonaws.com"), vec![Why::OtherOrigin]),
        ("a host behind the API's name", origin(&format!("https://{API}.example.com")), vec![Why::OtherOrigin]),
        ("the API's name as a user", origin(&format!("https://{API}@example.com")), vec![Why::OtherOrigin]),
        (
            "the API's name as a user with a port",
            origin(&format!("https://{API}:x@example.com")),
            vec![Why::OtherOrigin],
        ),
        ("an address", origin("https://10.0.0.5"), vec![Why::OtherOrigin]),
        ("the task's own metadata", origin("http://169.254.170.2"), vec![Why::NotHttps]),
        // T16
        ("a path in the origin", origin(&format!("https://{API}/v1")), vec![Why::OriginPath]),
        ("a port in the origin", origin(&format!("https://{API}:8443")), vec![Why::OriginPath]),
        ("a query in the origin", origin(&format!("https://{API}?x")), vec![Why::OriginPath]),
        // T17
        ("a rule over paths", mutant(people, &format!("{people}    path: ^/v1/\n")), vec![Why::Path]),
        // other origins
        ("plain http", origin(&format!("http://{API}")), vec![Why::NotHttps]),
        ("a web socket", origin(&format!("wss://{API}")), vec![Why::NotHttps]),
        ("ssh", origin("ssh://10.0.0.5:22"), vec![Why::OtherService]),
        ("tcp", origin(&format!("tcp://{API}:443")), vec![Why::OtherService]),
        ("rdp", origin("rdp://10.0.0.5"), vec![Why::OtherService]),
        ("smb", origin("smb://10.0.0.5"), vec![Why::OtherService]),
        ("socks", origin("socks-proxy"), vec![Why::OtherService]),
        ("bastion", origin("bastion"), vec![Why::OtherService]),
        ("hello world", origin("hello_world"), vec![Why::OtherService]),
        ("a socket", origin("unix:/run/x.sock"), vec![Why::OtherService]),
        ("a status where an origin belongs", origin("http_status:200"), vec![Why::OtherService]),
        ("no service", mutant(&service, ""), vec![Why::Missing]),
        // TLS
        ("noTLSVerify", with("      noTLSVerify: true\n"), vec![Why::Unverified]),
        ("noTLSVerify even if false", with("      noTLSVerify: false\n"), vec![Why::Unverified]),
        ("other roots", with("      caPool: /etc/ca.pem\n"), vec![Why::Unverified]),
        ("top-level no-tls-verify", top("no-tls-verify: true"), vec![Why::Unverified]),
        // ways into the network
        ("bastion mode", with("      bastionMode: true\n"), vec![Why::ProxyMode]),
        ("a proxy", with("      proxyType: socks\n"), vec![Why::ProxyMode]),
        ("address rules of a proxy", with("      ipRules: []\n"), vec![Why::ProxyMode]),
        ("WARP routing", top("warp-routing:\n  enabled: true"), vec![Why::WarpRouting]),
        ("top-level url", top("url: http://localhost:8080"), vec![Why::OtherService]),
        ("top-level hello-world", top("hello-world: true"), vec![Why::OtherService]),
        // T19, T20, T21
        ("metrics for everybody", top("metrics: 0.0.0.0:20241"), vec![Why::ProcessSetting]),
        ("diagnostics in the dashboard", top("management-diagnostics: true"), vec![Why::ProcessSetting]),
        ("the edge over IPv4", top("edge-ip-version: '4'"), vec![Why::ProcessSetting]),
        ("another protocol", top("protocol: http2"), vec![Why::ProcessSetting]),
        ("debug log, which holds requests", top("loglevel: debug"), vec![Why::ProcessSetting]),
        ("a file of credentials", top("credentials-file: /etc/tunnel.json"), vec![Why::Secret]),
        ("a token", top("token: eyJ"), vec![Why::Secret]),
        // the file
        ("a key nobody knows", top("ingres: []"), vec![Why::UnknownKey]),
        ("a key of a rule nobody knows", mutant(people, &format!("{people}    rewrite: /x\n")), vec![Why::UnknownKey]),
        ("a key of the origin nobody knows", with("      http2Origin: true\n"), vec![Why::UnknownKey]),
        ("a key twice", mutant(people, &format!("{people}    hostname: api.example.com\n")), vec![Why::NotYaml]),
        ("two documents", render(&gate()) + "---\ningress: []\n", vec![Why::NotYaml]),
        (
            "a merge of maps, which cloudflared's reader expands",
            mutant(&access, "      <<: {access: {}}\n"),
            vec![Why::UnknownKey, Why::NoAccess],
        ),
        ("a rule that is a text", mutant(last, "  - http_status:404\n"), vec![Why::WrongType]),
        (
            "an originRequest that is a list",
            mutant(
                last,
                "  - hostname: x.example.com\n    service: bastion\n    originRequest: []\n  - service: http_status:404\n",
            ),
            vec![Why::WrongType, Why::OtherService, Why::UnknownHost, Why::Missing],
        ),
        ("an empty file", String::new(), vec![Why::WrongType]),
        ("a list", "- tunnel\n".into(), vec![Why::WrongType]),
        ("a tag", mutant("originRequest:\n", "originRequest: !x\n"), vec![Why::WrongType, Why::Missing, Why::NoAccess]),
    ];
    let mut wrong = Vec::new();
    for (name, text, mut expected) in cases {
        let mut found = whys(&text);
        expected.sort();
        found.sort();
        if found != expected {
            wrong.push(format!("{name}: {found:?} and not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_faults_are_told_at_once_with_their_place() {
    let text = mutant("required: true", "required: false").replace("http_status:404", "bastion");
    let faults = check(&text, &gate()).expect_err("refused");
    let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "ingress[0].originRequest.access.required must be `true`",
            "ingress[2] must be exactly `service: http_status:404`",
        ]
    );
}
