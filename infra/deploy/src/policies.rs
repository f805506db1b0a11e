//! Every policy of the rendered templates as a file of its own, resolved, for judges that know nothing of templates.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use template::{Documents, Graph, Place};

use crate::cost::asked;
use crate::settings::load_profile;
use crate::world::World;

/// A name, a profile, and parameters besides.
type Variant = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// What a deployment may be, each of which changes policies.
const VARIANTS: &[Variant] = &[
    ("recommended", "recommended", &[]),
    ("lean", "lean", &[]),
    ("ssm", "recommended", &[("Signer", "ssm"), ("SsmEndpoint", "on")]),
];

/// Writes them to `target/infra/policies`, and says how many.
///
/// # Errors
/// Templates that cannot be resolved, or a folder that cannot be written.
pub fn write(world: World<'_>) -> Result<usize, Vec<String>> {
    let folder = world.path("target/infra/policies");
    let told = |error: std::io::Error| vec![format!("{}: {error}", folder.display())];
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(told)?;
    }
    fs::create_dir_all(&folder).map_err(told)?;
    let documents = Documents::read(&world.path("infra/aws"))?;
    let (mut seen, mut count) = (BTreeSet::new(), 0);
    for (variant, profile, parameters) in VARIANTS {
        let profile = load_profile(world, profile).map_err(|fault| vec![fault])?;
        let profile = asked(profile).with(parameters);
        let graph = documents.graph(&profile, &Place::new("111122223333", "us-east-1"))?;
        for (name, policy) in of(&graph) {
            // The same policy in another variant needs no second look.
            let text = format!("{:#}\n", texts(&policy));
            if seen.insert((name.clone(), text.clone())) {
                fs::write(folder.join(format!("{name}.{variant}.json")), text).map_err(told)?;
                count += 1;
            }
        }
    }
    Ok(count)
}

/// Numbers and switches as texts, which mean the same in a policy: parliament breaks on others.
fn texts(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(texts).collect(),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, field)| (name.clone(), texts(field))).collect())
        }
        other => template::scalar(other).map_or(Value::Null, Value::String),
    }
}

/// Names and documents of all policies that stand in a graph.
pub fn of(graph: &Graph) -> Vec<(String, Value)> {
    let mut policies = Vec::new();
    for resource in &graph.resources {
        let name = format!("{}.{}", resource.stack, resource.id);
        for (index, policy) in resource.list("/Policies").into_iter().enumerate() {
            if let Some(document) = policy.get("PolicyDocument") {
                policies.push((format!("{name}.{index}"), document.clone()));
            }
        }
        let places: &[&str] = match resource.kind.as_str() {
            "AWS::IAM::ManagedPolicy"
            | "AWS::S3::BucketPolicy"
            | "AWS::EC2::VPCEndpoint"
            | "AWS::SQS::QueuePolicy"
            | "AWS::SNS::TopicPolicy" => &["/PolicyDocument"],
            "AWS::KMS::Key" => &["/KeyPolicy"],
            _ => &[],
        };
        policies.extend(places.iter().filter_map(|place| Some((name.clone(), resource.get(place)?.clone()))));
    }
    policies
}
