//! Files into documents: YAML, the folder of function files, the inlined API document.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The key that asks for another document in its place: `Body: {x-portcullis-inline: openapi.yaml}`.
pub const INLINE: &str = "x-portcullis-inline";

/// Reads YAML (or JSON) into a JSON value. Tags, the short form of intrinsics among them, are faults; so are duplicate
/// keys, merge keys and keys that are no text.
///
/// # Errors
/// All faults found.
pub fn yaml(text: &str) -> Result<Value, Vec<String>> {
    let document: serde_yaml_ng::Value =
        serde_yaml_ng::from_str(text).map_err(|error| vec![format!("not YAML: {error}")])?;
    let mut faults = Vec::new();
    let value = plain(document, "", &mut faults);
    if faults.is_empty() { Ok(value) } else { Err(faults) }
}

fn plain(value: serde_yaml_ng::Value, at: &str, faults: &mut Vec<String>) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(flag) => Value::Bool(flag),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => Value::from(whole),
            (None, Some(float)) => Value::from(float),
            (None, None) => Value::Null,
        },
        Yaml::Sequence(items) => Value::Array(
            items.into_iter().enumerate().map(|(i, item)| plain(item, &format!("{at}/{i}"), faults)).collect(),
        ),
        Yaml::Mapping(fields) => {
            let mut object = Map::new();
            for (name, field) in fields {
                // A status code as a key (`200:`) is what people write in an API document.
                let name = match name {
                    Yaml::String(name) if name == "<<" => {
                        faults.push(format!("{at}: a merge key, which CloudFormation does not read"));
                        continue;
                    }
                    Yaml::String(name) => name,
                    Yaml::Number(number) => number.to_string(),
                    _ => {
                        faults.push(format!("{at}: a key that is no text"));
                        continue;
                    }
                };
                let field = plain(field, &format!("{at}/{name}"), faults);
                object.insert(name, field);
            }
            Value::Object(object)
        }
        Yaml::Tagged(tagged) => {
            faults.push(format!("{at}: `{}`: long-form intrinsics only", tagged.tag));
            Value::Null
        }
    }
}

/// One template of a header and of parts that hold nothing but `Resources`. A logical id that stands twice is a fault.
///
/// # Errors
/// All faults found, each with the part's name.
pub fn merge(header: &Value, parts: &BTreeMap<String, Value>) -> Result<Value, Vec<String>> {
    let mut faults = Vec::new();
    let Some(mut template) = header.as_object().cloned() else { return Err(vec!["the header is no map".to_owned()]) };
    let mut resources = match template.remove("Resources") {
        None => Map::new(),
        Some(Value::Object(resources)) => resources,
        Some(_) => return Err(vec!["Resources of the header is no map".to_owned()]),
    };
    for (name, part) in parts {
        for section in part.as_object().into_iter().flat_map(Map::keys).filter(|section| *section != "Resources") {
            faults.push(format!("{name}: `{section}` has its place in the header; a part holds Resources only"));
        }
        let Some(own) = part.get("Resources").and_then(Value::as_object).filter(|own| !own.is_empty()) else {
            faults.push(format!("{name}: no Resources"));
            continue;
        };
        for (id, resource) in own {
            if resources.insert(id.clone(), resource.clone()).is_some() {
                faults.push(format!("{name}: {id} stands in another part too"));
            }
        }
    }
    template.insert("Resources".to_owned(), Value::Object(resources));
    if faults.is_empty() { Ok(Value::Object(template)) } else { Err(faults) }
}

/// Puts `documents` where a template asks for them by [`INLINE`]: one by name, or several, which become one. An unknown
/// name is a fault, and so is what stands in two of them.
///
/// # Errors
/// All faults found.
pub fn inline(template: &mut Value, documents: &BTreeMap<String, Value>) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    replace(template, documents, &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

fn replace(value: &mut Value, documents: &BTreeMap<String, Value>, faults: &mut Vec<String>) {
    let asked = value.as_object().filter(|fields| fields.len() == 1).and_then(|fields| fields.get(INLINE));
    match asked.cloned() {
        Some(names) => {
            let names = names.as_array().cloned().unwrap_or_else(|| vec![names]);
            let mut whole = Value::Object(Map::new());
            for name in names.iter().map(|name| name.as_str().unwrap_or_default()) {
                match documents.get(name) {
                    Some(document) => join(&mut whole, document, name, faults),
                    None => faults.push(format!("{INLINE}: no document `{name}`")),
                }
            }
            *value = whole;
        }
        None => match value {
            Value::Array(items) => items.iter_mut().for_each(|item| replace(item, documents, faults)),
            Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, documents, faults)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        },
    }
}

/// Adds `document` to `whole`: maps are joined, anything else may stand in one of them only.
fn join(whole: &mut Value, document: &Value, at: &str, faults: &mut Vec<String>) {
    let (Some(fields), Some(more)) = (whole.as_object_mut(), document.as_object()) else {
        faults.push(format!("{INLINE}: {at} stands in two documents"));
        return;
    };
    for (name, value) in more {
        match fields.get_mut(name) {
            Some(before) => join(before, value, &format!("{at}/{name}"), faults),
            None => {
                fields.insert(name.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tags_merge_keys_and_duplicate_keys_are_refused() {
        assert!(yaml("a: !Ref b").unwrap_err()[0].contains("long-form"));
        assert!(yaml("a: &x {b: 1}\nc: {<<: *x}").unwrap_err()[0].contains("merge key"));
        assert!(yaml("a: 1\na: 2").is_err());
        assert_eq!(yaml("{200: {on: 'on'}}").unwrap(), json!({"200": {"on": "on"}}));
    }

    #[test]
    fn parts_hold_resources_only_and_no_id_twice() {
        let header = json!({"Parameters": {}});
        let part = |id: &str| json!({"Resources": {id: {"Type": "AWS::SNS::Topic"}}});
        let parts = |parts: &[(&str, Value)]| parts.iter().map(|(n, v)| ((*n).to_owned(), v.clone())).collect();
        let merged = merge(&header, &parts(&[("a", part("A")), ("b", part("B"))])).unwrap();
        assert_eq!(merged["Resources"].as_object().unwrap().len(), 2);
        let faults = merge(&header, &parts(&[("a", part("A")), ("b", part("A")), ("c", json!({"Outputs": {}}))]));
        assert_eq!(faults.unwrap_err().len(), 3);
    }

    #[test]
    fn a_document_is_put_where_it_is_asked_for() {
        let mut template = json!({"Body": {INLINE: "openapi.yaml"}});
        let documents = BTreeMap::from([("openapi.yaml".to_owned(), json!({"paths": {}}))]);
        inline(&mut template, &documents).unwrap();
        assert_eq!(template, json!({"Body": {"paths": {}}}));
        assert!(inline(&mut json!([{INLINE: "other"}]), &documents).is_err());
    }

    #[test]
    fn several_documents_become_one_unless_they_say_the_same() {
        let documents = BTreeMap::from([
            ("a".to_owned(), json!({"info": 1, "paths": {"/a": {}}})),
            ("b".to_owned(), json!({"paths": {"/b": {"Fn::If": []}}})),
            ("c".to_owned(), json!({"info": 2})),
        ]);
        let mut template = json!({"Body": {INLINE: ["a", "b"]}});
        inline(&mut template, &documents).unwrap();
        assert_eq!(template, json!({"Body": {"info": 1, "paths": {"/a": {}, "/b": {"Fn::If": []}}}}));
        assert!(inline(&mut json!({INLINE: ["a", "c"]}), &documents).unwrap_err()[0].contains("c/info stands in two"));
        assert!(inline(&mut json!({INLINE: ["a", "nobody"]}), &documents).is_err());
    }
}
