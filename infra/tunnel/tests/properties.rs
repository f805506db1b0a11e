//! What holds for every gate and every text.

#![allow(clippy::unwrap_used, reason = "helpers outside of #[test] functions; a test may fail loudly")]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use support::{API, HOSTS, gate};
use tunnel::{Access, Gate, Hosts, check, render};

/// A gate with these hosts for people, each with the audience of its position.
fn gate_of(labels: &[String], managed: bool) -> Option<Gate> {
    let tier = if managed { "managed" } else { "any" };
    let people: BTreeMap<String, usize> =
        labels.iter().enumerate().map(|(index, label)| (format!("{label}.example.com"), index)).collect();
    let list = |with_audience: bool| -> String {
        let one = |(host, index): (&String, &usize)| match with_audience {
            true => format!(r#""{host}":{{"aud":"{index:064x}","tier":"{tier}"}}"#),
            false => format!(r#""{host}":{{"tier":"{tier}"}}"#),
        };
        people.iter().map(one).collect::<Vec<_>>().join(",")
    };
    let hosts = HOSTS.replace(r#""api.example.com": { "tier": "managed" }"#, &list(false));
    let start = r#""access":{"value":{"machines":"machines.example.com","stage":"v1","team":"example","#;
    let access =
        format!(r#"{{{start}"tunnel_id":"6ff42ae2-765d-4adf-8112-31c55c1551ef","people":{{{}}}}}}}}}"#, list(true));
    Gate::agree(&Hosts::parse(&hosts).unwrap(), &Access::parse(&access).unwrap(), API, "v1").ok()
}

proptest! {
    #[test]
    fn what_is_rendered_is_accepted_with_one_fate_for_each_host_and_one_for_all_others(
        labels in prop::collection::btree_set("[a-z][a-z0-9]{0,8}", 1..6), managed: bool,
    ) {
        let labels: Vec<String> = labels.into_iter().filter(|label| label != "machines").collect();
        prop_assume!(!labels.is_empty());
        let gate = gate_of(&labels, managed).unwrap();
        prop_assert_eq!(check(&render(&gate), &gate).unwrap().len(), labels.len() + 2);
    }

    #[test]
    fn a_configuration_of_another_gate_is_refused(one in "[a-l]{1,8}", other in "[n-z]{1,8}") {
        let (one, other) = (gate_of(&[one], true).unwrap(), gate_of(&[other], true).unwrap());
        prop_assert!(check(&render(&one), &other).is_err());
    }

    /// Every line of the rendered text counts: without it, it is another gate or none. Comments and the empty line aside.
    #[test]
    fn no_line_can_be_left_out(line in 0usize..40) {
        let gate = gate();
        let text = render(&gate);
        let lines: Vec<&str> = text.lines().collect();
        prop_assume!(line < lines.len() && !lines[line].trim().is_empty() && !lines[line].trim().starts_with('#'));
        let rest: Vec<&str> = lines.iter().enumerate().filter(|(index, _)| *index != line).map(|(_, line)| *line).collect();
        prop_assert!(check(&rest.join("\n"), &gate).is_err(), "{}", lines[line]);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(?s).{0,200}") {
        let _ = check(&text, &gate());
        let _ = Hosts::parse(&text);
        let _ = Access::parse(&text);
    }

    /// One byte changed anywhere outside a comment is either refused, or not a change to any reader (a space more in a space).
    #[test]
    fn no_byte_can_be_changed(position in 0usize..1400, byte in 0x20u8..0x7f) {
        let gate = gate();
        let text = render(&gate);
        prop_assume!(position < text.len());
        let mut bytes = text.clone().into_bytes();
        prop_assume!(bytes[position] != byte);
        let start = text[..position].rfind('\n').map_or(0, |at| at + 1);
        prop_assume!(!text[start..].trim_start().starts_with('#') && bytes[position] != b'\n' && bytes[position] != b' ');
        bytes[position] = byte;
        let changed = String::from_utf8(bytes).unwrap();
        if let Ok(fates) = check(&changed, &gate) {
            let (one, other): (serde_json::Value, serde_json::Value) =
                (serde_yaml_ng::from_str(&text).unwrap(), serde_yaml_ng::from_str(&changed).unwrap());
            prop_assert_eq!((one, fates), (other, check(&text, &gate).unwrap()));
        }
    }
}
