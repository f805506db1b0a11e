//! What is checked in agrees: the example with what is rendered, the edge's paths with the API, the image with the traps.

mod support;

use std::collections::BTreeMap;

use serde_yaml_ng::Value;
use support::{API, file, gate, root};
use tunnel::{Edge, Hosts, RouteFault, check, render, routes};

#[test]
fn the_example_is_what_is_rendered_from_the_example_of_hosts() {
    assert_eq!(
        Hosts::parse(&file("infra/cloudflare/hosts.example.json")).unwrap(),
        Hosts::parse(support::HOSTS).unwrap()
    );
    let example = file("infra/cloudflare/tunnel/config.example.yaml");
    assert_eq!(example, render(&gate()), "render it again: the README of infra/tunnel says how");
    assert_eq!(check(&example, &gate()).unwrap().len(), 3);
    assert!(example.contains(API));
}

#[test]
fn the_edge_lets_through_every_route_of_the_api_with_the_stage_before_it_and_no_root_more() {
    let document = file("infra/aws/openapi.yaml");
    let application = std::fs::read_to_string(root().join("infra/aws/app.yaml"));
    let documents: Vec<&str> = [Some(document.as_str()), application.as_deref().ok()].into_iter().flatten().collect();
    let edge = Edge::parse(&file("infra/cloudflare/routes.json")).unwrap();
    assert_eq!(edge.agree(&documents), Ok(()));
    let stage = Hosts::parse(&file("infra/cloudflare/hosts.example.json")).unwrap().stage;
    let all = routes(&document).unwrap();
    assert!(all.iter().any(|(_, path)| path.starts_with("/.well-known/")), "the root documents are routes too");
    // As the rewrite says: concat("/{stage}", path). Two routes never become one, and none is reached without its stage.
    assert!(all.iter().all(|(_, path)| path.starts_with('/') && !path.starts_with(&format!("/{stage}/"))));
}

#[test]
fn a_route_the_edge_would_refuse_and_a_root_for_nothing_are_found() {
    let document = "paths:\n  /files/{id}:\n    get: {}\n  /app/{proxy+}:\n    Fn::If: [HasApp, {x-amazon-apigateway-any-method: {}}, {Ref: AWS::NoValue}]\n  /cdn-cgi/x:\n    trace: {}\n";
    let edge =
        |roots: &str| Edge::parse(&format!("{{\"roots\":{roots},\"optional\":[],\"methods\":[\"GET\"]}}")).unwrap();
    let trace = RouteFault::Method("TRACE".into());
    let reserved = RouteFault::Reserved("/cdn-cgi/x".into());
    let blocked = |path: &str| RouteFault::Blocked(path.into());
    let cases = [
        (r#"["/files","/app/","/cdn-cgi/"]"#, vec![trace.clone(), reserved.clone()]),
        (
            r#"["/file","/app/"]"#,
            vec![
                blocked("/cdn-cgi/x"),
                blocked("/files/{id}"),
                trace.clone(),
                RouteFault::Unused("/file".into()),
                reserved.clone(),
            ],
        ),
        (
            r#"["/files","/app/","/cdn-cgi/","/old/"]"#,
            vec![trace.clone(), RouteFault::Unused("/old/".into()), reserved.clone()],
        ),
        (r#"["/files","/app/","/cdn-cgi/","/"]"#, vec![trace, reserved, RouteFault::Form("/".into())]),
    ];
    for (roots, expected) in cases {
        assert_eq!(edge(roots).agree(&[document]).unwrap_err(), expected, "{roots}");
    }
    for document in ["", "paths: {}", "paths: 1", "- 1"] {
        assert_eq!(edge("[]").agree(&[document]), Err(vec![RouteFault::Document]));
    }
}

/// `KEY=value` of the image, in any of Docker's spellings that we use.
fn environment(dockerfile: &str) -> BTreeMap<&str, &str> {
    dockerfile
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ENV ").or(Some(line.trim())))
        .filter_map(|line| line.trim_end_matches('\\').trim().split_once('='))
        .filter(|(key, _)| key.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect()
}

#[test]
fn the_image_tells_cloudflared_everything_its_configuration_may_not() {
    let dockerfile = file("infra/cloudflare/tunnel/Dockerfile");
    let environment = environment(&dockerfile);
    for (key, value) in [
        ("TUNNEL_EDGE_IP_VERSION", "6"),
        ("TUNNEL_LOGLEVEL", "info"),
        ("TUNNEL_MANAGEMENT_DIAGNOSTICS", "false"),
        ("TUNNEL_METRICS", "127.0.0.1:20241"),
        ("TUNNEL_POST_QUANTUM", "true"),
        ("TUNNEL_TRANSPORT_PROTOCOL", "quic"),
        ("NO_AUTOUPDATE", "true"),
    ] {
        assert_eq!(environment.get(key), Some(&value), "{key}");
    }
    // What is taken is two files of one image by its content, and nothing runs while it is built.
    let from: Vec<&str> = dockerfile.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert_eq!(from, ["FROM cloudflare/cloudflared@${CLOUDFLARED_DIGEST} AS upstream", "FROM scratch"]);
    assert!(dockerfile.contains("ARG CLOUDFLARED_DIGEST\n"), "no default: a build without a digest fails");
    for line in dockerfile.lines() {
        let word = line.split(' ').next().unwrap_or_default();
        assert!(!["RUN", "ADD", "VOLUME", "EXPOSE", "ONBUILD"].contains(&word), "{line}");
    }
    assert!(dockerfile.contains("USER 65532:65532\n"));
}

/// Everything below this key, wherever it stands.
fn find<'v>(value: &'v Value, key: &str, into: &mut Vec<&'v Value>) {
    match value {
        Value::Mapping(members) => {
            for (name, value) in members {
                if name.as_str() == Some(key) {
                    into.push(value);
                }
                find(value, key, into);
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| find(item, key, into)),
        _ => {}
    }
}

#[test]
fn the_task_tells_cloudflared_nothing_else_than_the_image() {
    let dockerfile = file("infra/cloudflare/tunnel/Dockerfile");
    let image = environment(&dockerfile);
    let task: Value = serde_yaml_ng::from_str(&file("infra/aws/edge.yaml")).unwrap();
    let one = |key: &str| {
        let mut found = Vec::new();
        find(&task, key, &mut found);
        assert_eq!(found.len(), 1, "{key}");
        found[0].clone()
    };
    for variable in one("Environment").as_sequence().unwrap() {
        let (name, value) = (variable["Name"].as_str().unwrap(), variable["Value"].as_str().unwrap());
        assert_eq!(image.get(name), Some(&value), "{name}");
    }
    let words = |value: Value| -> Vec<String> {
        value.as_sequence().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(words(one("EntryPoint")), ["cloudflared", "--no-autoupdate"]);
    let mut commands = Vec::new();
    find(&task, "Command", &mut commands);
    let commands: Vec<Vec<String>> = commands.into_iter().map(|command| words(command.clone())).collect();
    let run = ["tunnel", "--config", "/etc/cloudflared/config.yaml", "run"].map(str::to_owned).to_vec();
    assert!(commands.contains(&run), "{commands:?}");
    assert!(dockerfile.contains(" config.yaml /etc/cloudflared/config.yaml\n"));
    assert!(dockerfile.contains(&format!("USER {}\n", one("User").as_str().unwrap())));
}
