//! Precise edits of templates, graphs and files. An edit that does not find its place fails the test.

use invariants::Repository;
use serde_json::{Value, json};
use template::{Documents, Graph, Resource};

/// What is changed, and what must catch it.
pub(crate) struct Mutant {
    pub(crate) invariant: u8,
    pub(crate) name: &'static str,
    /// The deployment it is tried in.
    pub(crate) deployment: &'static str,
    pub(crate) edit: Edit,
}

pub(crate) enum Edit {
    Templates(Box<dyn Fn(&mut Documents) + Sync>),
    Graph(Box<dyn Fn(&mut Graph) + Sync>),
    Repository(Box<dyn Fn(&mut Repository) + Sync>),
}

/// The place in a stack's template at a JSON pointer below `Resources`.
pub(crate) fn at<'a>(documents: &'a mut Documents, stack: &str, pointer: &str) -> &'a mut Value {
    let template = documents.stacks.get_mut(stack).unwrap_or_else(|| panic!("{stack}: no such stack"));
    template.pointer_mut(&format!("/Resources/{pointer}")).unwrap_or_else(|| panic!("{stack}: nothing at {pointer}"))
}

/// The place in the API's document at a JSON pointer.
pub(crate) fn api<'a>(documents: &'a mut Documents, pointer: &str) -> &'a mut Value {
    let document = documents.inlined.get_mut("openapi.yaml").unwrap();
    document.pointer_mut(pointer).unwrap_or_else(|| panic!("openapi.yaml: nothing at {pointer}"))
}

/// Puts a member into a map, in place of what is there.
pub(crate) fn put(place: &mut Value, name: &str, value: Value) {
    place.as_object_mut().unwrap_or_else(|| panic!("{name}: not into a map")).insert(name.to_owned(), value);
}

/// Removes a member of a map that must be there.
pub(crate) fn remove(place: &mut Value, name: &str) {
    let removed = place.as_object_mut().and_then(|fields| fields.remove(name));
    assert!(removed.is_some(), "{name} is not there");
}

/// Adds an item to a list.
pub(crate) fn push(place: &mut Value, item: Value) {
    place.as_array_mut().expect("a list").push(item);
}

/// The statement with a Sid in a resource of a template, wherever it stands in it.
pub(crate) fn sid<'a>(documents: &'a mut Documents, stack: &str, resource: &str, name: &str) -> &'a mut Value {
    let place = at(documents, stack, resource);
    find(place, name).unwrap_or_else(|| panic!("{stack}/{resource}: no statement {name}"))
}

fn find<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    if value.get("Sid").and_then(Value::as_str) == Some(name) {
        return Some(value);
    }
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| find(item, name)),
        Value::Object(fields) => fields.values_mut().find_map(|field| find(field, name)),
        _ => None,
    }
}

/// Takes a statement out of a resource of a template.
pub(crate) fn drop_sid(documents: &mut Documents, stack: &str, resource: &str, name: &str) {
    // What stands in its place has no effect on anybody: an empty list of statements would be another mutant.
    let place = sid(documents, stack, resource, name);
    *place = json!({"Ref": "AWS::NoValue"});
}

/// Adds a statement to the first policy of a role.
pub(crate) fn grant(documents: &mut Documents, stack: &str, role: &str, statement: Value) {
    push(at(documents, stack, &format!("{role}/Properties/Policies/0/PolicyDocument/Statement")), statement);
}

/// Adds a resource to a graph, of whatever type.
pub(crate) fn add(graph: &mut Graph, stack: &str, id: &str, kind: &str, properties: Value) {
    graph.resources.push(Resource {
        stack: stack.to_owned(),
        id: id.to_owned(),
        kind: kind.to_owned(),
        reference: format!("<{stack}.{id}>"),
        attributes: Default::default(),
        properties,
        depends_on: Vec::new(),
        condition: None,
        deletion_policy: None,
        update_replace_policy: None,
    });
}

/// Replaces a text that must stand there once at least.
pub(crate) fn swap(text: &mut String, from: &str, to: &str) {
    assert!(text.contains(from), "nowhere: {from}");
    *text = text.replacen(from, to, 1);
}
