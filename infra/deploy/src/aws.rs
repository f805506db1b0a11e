//! The user's AWS CLI, version 1 or 2, as a child process.
//!
//! What the two versions differ in and is avoided here: version 2 pages its output (`AWS_PAGER` is empty), reads `--payload`
//! as base64 (`fileb://` is raw in both), and alone knows `logs tail` (`filter-log-events` is in both).

use std::fmt;
use std::io;

use serde_json::Value;

use crate::world::{Answer, Call, World};

/// The AWS CLI, towards one region.
#[derive(Clone, Debug)]
pub struct Aws<'w> {
    world: World<'w>,
    region: Option<String>,
}

/// Why AWS did not answer what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsError {
    /// No program `aws`.
    Missing,
    /// The CLI could not ask: no credentials, no region, no connection, an argument it does not know.
    NotAsked(String),
    /// A service refused.
    Refused {
        /// The service's code for it, e.g. `AccessDenied`.
        code: String,
        /// The service's own words.
        message: String,
    },
    /// The answer is not what the service documents.
    Unreadable(String),
}

impl AwsError {
    /// Whether what was asked for does not exist.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Refused { code, message } => {
                let gone = ["NotFound", "NoSuch", "404", "DoesNotExist", "NotExist"];
                gone.iter().any(|word| code.contains(word))
                    || (code == "ValidationError" && message.contains("does not exist"))
            }
            _ => false,
        }
    }

    /// Whether the caller may not ask this.
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Refused { code, .. }
            if code.contains("AccessDenied") || code.contains("Unauthorized") || code == "403" || code == "Forbidden")
    }
}

impl fmt::Display for AwsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the AWS CLI is not installed"),
            Self::NotAsked(why) => f.write_str(why),
            Self::Refused { code, message } => write!(f, "{code}: {message}"),
            Self::Unreadable(what) => write!(f, "unreadable answer of {what}"),
        }
    }
}

impl std::error::Error for AwsError {}

impl<'w> Aws<'w> {
    /// The CLI towards `region`, or towards the one that it is configured for.
    pub fn new(world: World<'w>, region: Option<String>) -> Self {
        Self { world, region }
    }

    /// The region of every call.
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// The world that it lives in.
    pub fn world(&self) -> World<'w> {
        self.world
    }

    /// Asks, and reads the answer; `null` where there is none.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub fn ask<A: AsRef<str>>(&self, arguments: &[A]) -> Result<Value, AwsError> {
        let text = self.text(arguments)?;
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|_| AwsError::Unreadable(name(arguments)))
    }

    /// Asks, and answers `None` where what was asked for does not exist.
    ///
    /// # Errors
    /// See [`AwsError`].
    pub fn find<A: AsRef<str>>(&self, arguments: &[A]) -> Result<Option<Value>, AwsError> {
        match self.ask(arguments) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn text<A: AsRef<str>>(&self, arguments: &[A]) -> Result<String, AwsError> {
        let mut call = Call::new("aws", arguments.iter().map(AsRef::as_ref));
        call.arguments.extend(["--output".to_owned(), "json".to_owned()]);
        if let Some(region) = &self.region {
            call.arguments.extend(["--region".to_owned(), region.clone()]);
        }
        call.environment.push(("AWS_PAGER".to_owned(), String::new()));
        let answer = self.world.programs.run(&call).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AwsError::Missing,
            _ => AwsError::NotAsked(format!("aws cannot be started: {error}")),
        })?;
        if answer.status == 0 { Ok(answer.stdout) } else { Err(why(&answer)) }
    }
}

/// Which version of the CLI a line of `aws --version` names.
pub fn version(line: &str) -> Option<(u32, u32)> {
    let rest = line.trim().strip_prefix("aws-cli/")?;
    let mut parts = rest.split([' ', '.']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn name<A: AsRef<str>>(arguments: &[A]) -> String {
    arguments.iter().take(2).map(AsRef::as_ref).collect::<Vec<_>>().join(" ")
}

/// The CLI tells a service's refusal as `An error occurred (Code) when calling the Operation operation: message`.
fn why(answer: &Answer) -> AwsError {
    let said = answer.stderr.trim();
    if let Some((code, message)) = said
        .split_once("An error occurred (")
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(code, rest)| Some((code, rest.split_once(" operation")?.1)))
    {
        // ` (reached max retries: 4): message`
        let message = message.strip_prefix(" (").and_then(|rest| Some(rest.split_once(')')?.1)).unwrap_or(message);
        return AwsError::Refused {
            code: code.to_owned(),
            message: first_line(message.trim_start_matches([':', ' '])),
        };
    }
    let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    AwsError::NotAsked(line.trim().trim_start_matches("aws: [ERROR]: ").to_owned())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(stderr: &str) -> AwsError {
        why(&Answer { status: 254, stdout: String::new(), stderr: stderr.to_owned() })
    }

    #[test]
    fn what_both_versions_of_the_cli_say_is_understood() {
        let absent = "\nAn error occurred (ValidationError) when calling the DescribeStacks operation: Stack with id portcullis-prod-data does not exist\n";
        assert!(failed(absent).is_absent());
        let second = "aws: [ERROR]: An error occurred (AccessDenied) when calling the GetCallerIdentity operation: no";
        assert!(failed(second).is_denied());
        let retried =
            "An error occurred (Throttling) when calling the X operation (reached max retries: 4): Rate exceeded";
        assert_eq!(
            failed(retried),
            AwsError::Refused { code: "Throttling".to_owned(), message: "Rate exceeded".to_owned() }
        );
        assert!(failed("An error occurred (404) when calling the HeadObject operation: Not Found").is_absent());
        let none = "\nUnable to locate credentials. You can configure credentials by running \"aws configure\".\n";
        assert!(matches!(failed(none), AwsError::NotAsked(why) if why.starts_with("Unable to locate")));
    }

    #[test]
    fn the_version_is_read_from_both() {
        assert_eq!(version("aws-cli/1.46.3 Python/3.11.7 Linux/6.1 botocore/1.44.5"), Some((1, 46)));
        assert_eq!(version("aws-cli/2.31.4 Python/3.13.7 Linux/6.1 exe/x86_64.debian.12"), Some((2, 31)));
        assert_eq!(version("something else"), None);
    }
}
