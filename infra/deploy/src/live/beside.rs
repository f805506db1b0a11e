//! What stands beside the templates: it is in nobody's drift, and each is a way around what they say.

use serde_json::Value;

use super::Live;
use super::shape::items;

/// RDS holds grants on the key of its storage, which it makes by itself.
const KEY_WITH_GRANTS: &str = "DatabaseKey";

impl Live<'_> {
    /// Another stage or a canary of the API, grants on keys, programs that are not the stack's.
    pub(super) fn beside(&mut self) {
        self.stages();
        self.grants();
        self.programs();
    }

    fn stages(&mut self) {
        let Some((_, api)) = self.known("AWS::ApiGateway::RestApi").into_iter().next() else { return };
        let own: Vec<String> = self.known("AWS::ApiGateway::Stage").into_iter().map(|(_, name)| name).collect();
        let asked = ["apigateway", "get-stages", "--rest-api-id", &api];
        let Some(answer) = self.ask("the stages", &asked) else { return };
        for stage in items(&answer, "item") {
            let name = stage.get("stageName").and_then(Value::as_str).unwrap_or_default();
            if !own.iter().any(|one| one == name) {
                self.faults.push(format!("the API has a stage {name} that is in no template"));
            }
            if stage.get("canarySettings").is_some() {
                self.faults.push(format!("the stage {name} sends some of the requests to a canary"));
            }
        }
    }

    fn grants(&mut self) {
        for (at, id) in self.known("AWS::KMS::Key") {
            if self.graph.resources.get(at).is_none_or(|key| key.id == KEY_WITH_GRANTS) {
                continue;
            }
            let Some(answer) = self.ask(&id, &["kms", "list-grants", "--key-id", &id]) else { continue };
            for grant in items(&answer, "Grants") {
                let to = grant.get("GranteePrincipal").and_then(Value::as_str).unwrap_or("somebody");
                self.faults.push(format!("the key {id} is granted to {to}, beside its policy"));
            }
        }
    }

    fn programs(&mut self) {
        for (at, name) in self.known("AWS::Lambda::Function") {
            let text = |path: &str| {
                let value = self.graph.resources.get(at).and_then(|one| one.properties.pointer(path));
                value.and_then(Value::as_str).unwrap_or_default().to_owned()
            };
            let (bucket, key) = (text("/Code/S3Bucket"), text("/Code/S3Key"));
            let live = ["lambda", "get-function-configuration", "--function-name", &name, "--qualifier", "live"];
            let kept = ["s3api", "head-object", "--bucket", &bucket, "--key", &key, "--checksum-mode", "ENABLED"];
            let (Some(live), Some(kept)) = (self.ask(&name, &live), self.ask(&name, &kept)) else { continue };
            // Both are the SHA-256 of the zip, base64.
            let sums = [live.get("CodeSha256"), kept.get("ChecksumSHA256")].map(|sum| sum.and_then(Value::as_str));
            match sums {
                [Some(live), Some(kept)] if live == kept => {}
                [Some(_), Some(_)] => self.faults.push(format!(
                    "{name} runs a program that is not its stack's: of make deploy-code, of make rollback, or of somebody"
                )),
                _ => self.unasked.push(format!("{name}: the program has no checksum to compare")),
            }
        }
    }
}
