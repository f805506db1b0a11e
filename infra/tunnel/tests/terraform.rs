//! What Access and the edge must be, asserted on the Terraform files themselves, with a mutant for each assertion.
//!
//! `terraform test` in `infra/cloudflare/terraform` shows what they plan; this needs no Terraform and no provider.

#![allow(clippy::unwrap_used, reason = "helpers outside of #[test] functions; a test may fail loudly")]

mod support;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use support::root;

/// All `.tf` files, by name.
fn files() -> BTreeMap<String, String> {
    std::fs::read_dir(root().join("infra/cloudflare/terraform"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "tf"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
        .collect()
}

/// Resource types and what they may be here. Whatever else there is would be a way in that nobody looked at; a tunnel or a
/// service token would have its secret in the state.
const TYPES: &[&str] = &[
    "cloudflare_dns_record",
    "cloudflare_ruleset",
    "cloudflare_zero_trust_access_application",
    "cloudflare_zero_trust_access_group",
    "cloudflare_zero_trust_access_policy",
    "cloudflare_zero_trust_device_posture_rule",
];

/// Words that may stand in no value: they let in whoever comes.
const NOWHERE: &[&str] = &["bypass", "everyone", "any_valid_service_token", "tunnel_secret", "client_secret"];

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}

/// Every key and every text of a value.
fn words<'v>(value: &'v Value, into: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(items) => items.iter().for_each(|item| words(item, into)),
        Value::Object(members) => {
            for (key, value) in members {
                into.push(key);
                words(value, into);
            }
        }
        _ => {}
    }
}

fn faults(files: &BTreeMap<String, String>) -> Vec<String> {
    let mut resources: Vec<(String, String, Value)> = Vec::new();
    let mut faults = Vec::new();
    let mut fault = |fault: &str| faults.push(fault.to_owned());
    for (file, source) in files {
        let Ok(Value::Object(body)) = hcl::from_str::<Value>(source) else {
            fault(&format!("{file} is not HCL"));
            continue;
        };
        for (kind, blocks) in &body {
            if !["terraform", "provider", "variable", "locals", "resource", "output"].contains(&kind.as_str()) {
                fault(&format!("{kind} blocks"));
            }
            if kind == "terraform" {
                let version = text(blocks.pointer("/required_providers/cloudflare/version"));
                if version.split('.').count() != 3 || !version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
                {
                    fault("the provider is not pinned");
                }
            }
            if kind == "provider" && blocks.pointer("/cloudflare").and_then(Value::as_object) != Some(&Map::new()) {
                fault("the provider is told something");
            }
            if kind == "variable" || kind == "output" {
                continue;
            }
            let mut all = Vec::new();
            words(blocks, &mut all);
            for word in NOWHERE {
                if all.iter().any(|text| text.contains(word)) {
                    fault(&format!("{word} in a value"));
                }
            }
        }
        let of_type = body.get("resource").and_then(Value::as_object).into_iter().flatten();
        for (kind, named) in of_type {
            if !TYPES.contains(&kind.as_str()) {
                fault(&format!("{kind} is none of the resources"));
            }
            for (name, resource) in named.as_object().into_iter().flatten() {
                resources.push((kind.clone(), name.clone(), resource.clone()));
            }
        }
    }
    let of = |kind: &str| -> BTreeMap<&str, &Value> {
        let kind = format!("cloudflare_{kind}");
        resources.iter().filter(|(held, ..)| *held == kind).map(|(_, name, it)| (name.as_str(), it)).collect()
    };

    let applications = of("zero_trust_access_application");
    match applications.get("people") {
        Some(people) if applications.len() == 1 => {
            for (key, expected) in [
                ("for_each", "${var.people}"),
                ("domain", "${each.key}"),
                ("type", "self_hosted"),
                ("session_duration", "${var.session_duration}"),
                ("allowed_idps", "${var.identity_providers}"),
            ] {
                if text(people.get(key)) != expected {
                    fault(&format!("the application's {key}"));
                }
            }
            if !text(people.get("policies")).contains("local.people_policy[each.value.tier]") {
                fault("the application's policies");
            }
        }
        _ => fault("one application for each host for people"),
    }

    let policies = of("zero_trust_access_policy");
    if policies.keys().copied().collect::<Vec<_>>() != ["any", "managed", "workloads"] {
        fault("three policies");
    }
    for (name, policy) in &policies {
        let (decision, include) = match *name {
            "workloads" => {
                ("non_identity", "${[for id in var.service_token_ids : { service_token = { token_id = id } }]}")
            }
            _ => ("allow", "${local.people_include}"),
        };
        if text(policy.get("decision")) != decision {
            fault("a policy's decision");
        }
        if text(policy.get("include")).split_whitespace().collect::<String>()
            != include.split_whitespace().collect::<String>()
        {
            fault("whom a policy includes");
        }
    }
    let required = policies.get("managed").map(|policy| text(policy.get("require"))).unwrap_or_default();
    if !required.contains("cloudflare_zero_trust_access_group.posture") {
        fault("managed devices pass posture checks");
    }

    for rule in of("zero_trust_device_posture_rule").values() {
        if text(rule.get("expiration")).is_empty() {
            fault("a posture answer without an end");
        }
    }
    for record in of("dns_record").values() {
        if record.get("proxied") != Some(&Value::Bool(true))
            || text(record.get("content")) != "${var.tunnel_id}.cfargotunnel.com"
            || text(record.get("for_each")) != "${toset(local.hosts)}"
        {
            fault("a name that does not go through Cloudflare to the tunnel");
        }
    }

    let rulesets = of("ruleset");
    let phase = |phase: &str| rulesets.values().find(|ruleset| text(ruleset.get("phase")) == phase);
    for name in
        ["http_request_transform", "http_request_firewall_custom", "http_ratelimit", "http_request_cache_settings"]
    {
        let Some(ruleset) = phase(name) else {
            fault(&format!("no rules in {name}"));
            continue;
        };
        if ruleset.get("count").is_some() || text(ruleset.get("kind")) != "zone" {
            fault(&format!("{name} is not always there"));
        }
        let mut all = Vec::new();
        words(ruleset, &mut all);
        // Both hosts, the machines' above all: `local.on_hosts` is the set of all names.
        if !all.iter().any(|text| text.contains("local.on_hosts")) {
            fault(&format!("{name} holds on some hosts"));
        }
        if all.contains(&"skip") || all.contains(&"enabled") {
            fault(&format!("{name} can be switched off"));
        }
    }
    let rewrite = phase("http_request_transform")
        .and_then(|ruleset| ruleset.pointer("/rules/0/action_parameters/uri/path/expression"));
    if text(rewrite) != "concat(\\\"/${var.stage}\\\", http.request.uri.path)"
        && text(rewrite) != "concat(\"/${var.stage}\", http.request.uri.path)"
    {
        fault("the rewrite of the stage");
    }
    let everything = files.get("hosts.tf").map(String::as_str).unwrap_or_default();
    if !everything.contains("concat(keys(var.people), [var.machines])") {
        fault("the set of all hosts");
    }
    faults
}

#[test]
fn access_and_the_edge_are_as_they_must_be() {
    assert_eq!(faults(&files()), Vec::<String>::new());
}

#[test]
fn every_mutant_is_found() {
    let cases = [
        ("access.tf", "decision         = \"allow\"", "decision         = \"bypass\"", "bypass in a value"),
        ("access.tf", "decision         = \"non_identity\"", "decision         = \"allow\"", "a policy's decision"),
        ("access.tf", "{ email_domain = { domain = domain } }", "{ everyone = {} }", "everyone in a value"),
        (
            "access.tf",
            "{ service_token = { token_id = id } }",
            "{ any_valid_service_token = {} }",
            "any_valid_service_token in a value",
        ),
        (
            "access.tf",
            "include          = local.people_include\n  require",
            "include          = [{ geo = { country_code = \"DE\" } }]\n  require",
            "whom a policy includes",
        ),
        ("access.tf", "cloudflare_zero_trust_access_group.posture :", "{} :", "managed devices pass posture checks"),
        (
            "access.tf",
            "[local.people_policy[each.value.tier]]",
            "[local.people_policy.any]",
            "the application's policies",
        ),
        ("access.tf", "for_each = var.people", "for_each = {}", "the application's for_each"),
        (
            "access.tf",
            "domain                     = each.key",
            "domain                     = \"${each.key}/files\"",
            "the application's domain",
        ),
        ("access.tf", "= var.identity_providers\n", "= []\n", "the application's allowed_idps"),
        (
            "access.tf",
            "session_duration           = var.session_duration",
            "session_duration           = \"730h\"",
            "the application's session_duration",
        ),
        (
            "access.tf",
            "  # A program without",
            "  options_preflight_bypass = true\n  # A program without",
            "bypass in a value",
        ),
        (
            "access.tf",
            "resource \"cloudflare_zero_trust_access_application\" \"people\"",
            "resource \"cloudflare_zero_trust_access_application\" \"other\"",
            "one application for each host for people",
        ),
        ("posture.tf", "expiration = \"15m\"", "", "a posture answer without an end"),
        ("hosts.tf", "proxied = true", "proxied = false", "a name that does not go through Cloudflare to the tunnel"),
        (
            "hosts.tf",
            "content = \"${var.tunnel_id}.cfargotunnel.com\"",
            "content = \"origin.example.com\"",
            "a name that does not go through Cloudflare to the tunnel",
        ),
        ("hosts.tf", "concat(keys(var.people), [var.machines])", "keys(var.people)", "the set of all hosts"),
        ("edge.tf", "phase   = \"http_ratelimit\"", "phase   = \"http_config_settings\"", "no rules in http_ratelimit"),
        (
            "edge.tf",
            "phase   = \"http_request_firewall_custom\"",
            "phase   = \"http_config_settings\"",
            "no rules in http_request_firewall_custom",
        ),
        (
            "edge.tf",
            "resource \"cloudflare_ruleset\" \"cache\" {",
            "resource \"cloudflare_ruleset\" \"cache\" {\n  count = 0",
            "http_request_cache_settings is not always there",
        ),
        (
            "edge.tf",
            "concat(\\\"/${var.stage}\\\", http.request.uri.path)",
            "http.request.uri.path",
            "the rewrite of the stage",
        ),
        (
            "edge.tf",
            "expression  = \"${local.on_hosts} and not starts_with(http.request.uri.path, \\\"/cdn-cgi/\\\")\"\n    action      = \"rewrite\"",
            "expression  = \"true\"\n    action      = \"rewrite\"",
            "http_request_transform holds on some hosts",
        ),
        (
            "edge.tf",
            "action      = \"block\"\n    },\n    {\n      ref         = \"portcullis_methods\"",
            "action      = \"skip\"\n    },\n    {\n      ref         = \"portcullis_methods\"",
            "http_request_firewall_custom can be switched off",
        ),
        ("versions.tf", "version = \"5.14.0\"", "version = \"~> 5.14\"", "the provider is not pinned"),
        (
            "versions.tf",
            "provider \"cloudflare\" {}",
            "provider \"cloudflare\" {\n  api_token = \"x\"\n}",
            "the provider is told something",
        ),
        (
            "hosts.tf",
            "resource \"cloudflare_dns_record\" \"host\"",
            "resource \"cloudflare_zero_trust_tunnel_cloudflared\" \"tunnel\" {}\nresource \"cloudflare_dns_record\" \"host\"",
            "cloudflare_zero_trust_tunnel_cloudflared is none of the resources",
        ),
        (
            "hosts.tf",
            "resource \"cloudflare_dns_record\" \"host\"",
            "module \"more\" {}\nresource \"cloudflare_dns_record\" \"host\"",
            "module blocks",
        ),
        ("hosts.tf", "locals {", "locals", "hosts.tf is not HCL"),
    ];
    for (file, from, to, expected) in cases {
        let mut files = files();
        let source = files.get_mut(file).unwrap();
        assert!(source.contains(from), "{file}: {from}");
        *source = source.replacen(from, to, 1);
        let found = faults(&files);
        assert!(found.iter().any(|fault| fault == expected), "{from} → {to}: expected {expected}, found {found:?}");
    }
}
