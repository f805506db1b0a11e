//! The command line of `local`.

use std::path::PathBuf;

use super::Parameters;

/// What is printed when a command line is none.
pub const USAGE: &str = "usage: local demo [Parameter=value …]
       local dev [--home DIR] [--attached] [--quiet | --json] [--faults RULES] [--seed N] [--record FILE] [--rebuild CARGO]
                 [--with TEMPLATE] [Parameter=value …]
       local replay FILE [Parameter=value …]
";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// The journey.
    Demo {
        /// Of the template.
        parameters: Parameters,
    },
    /// The stack, until it is stopped.
    Dev(Dev),
    /// A recorded session against a fresh stack.
    Replay {
        /// The session.
        file: PathBuf,
        /// Of the template.
        parameters: Parameters,
    },
}

/// How `local dev` runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dev {
    /// The folder of this stack and its `portcullis.json`, `.local` by default.
    pub home: Option<PathBuf>,
    /// A template of somebody's own beside the project's (docs/local-stack.md).
    pub own: Option<PathBuf>,
    /// Ends when stdin does, so that a program that started it cannot leave it behind.
    pub attached: bool,
    /// Prints no line for each request.
    pub quiet: bool,
    /// Prints each request as JSON; everything else goes to standard error.
    pub json: bool,
    /// Rules for faults ([`crate::faults::grammar`]).
    pub faults: Option<String>,
    /// Their seed.
    pub seed: Option<u64>,
    /// Where the session is recorded.
    pub record: Option<PathBuf>,
    /// The cargo that builds a function whose source has changed.
    pub rebuild: Option<String>,
    /// Of the template.
    pub parameters: Parameters,
}

impl Command {
    /// Reads the arguments after the program's name; `None` where they are none.
    #[must_use]
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        match arguments.next()?.as_str() {
            "demo" => Some(Self::Demo { parameters: parameters(arguments)? }),
            "dev" => Some(Self::Dev(Dev::parse(arguments)?)),
            "replay" => {
                let file = PathBuf::from(arguments.next().filter(|file| !file.is_empty())?);
                Some(Self::Replay { file, parameters: parameters(arguments)? })
            }
            _ => None,
        }
    }
}

impl Dev {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut dev = Self::default();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().filter(|value| !value.is_empty());
            match argument.as_str() {
                "--home" if dev.home.is_none() => dev.home = Some(PathBuf::from(value()?)),
                "--with" if dev.own.is_none() => dev.own = Some(PathBuf::from(value()?)),
                "--attached" if !dev.attached => dev.attached = true,
                "--quiet" if !dev.quiet && !dev.json => dev.quiet = true,
                "--json" if !dev.quiet && !dev.json => dev.json = true,
                // Rules that are none are no faults, as an empty FAULTS= means it.
                "--faults" if dev.faults.is_none() => dev.faults = Some(arguments.next()?),
                "--seed" if dev.seed.is_none() => dev.seed = Some(value()?.parse().ok()?),
                "--record" if dev.record.is_none() => dev.record = Some(PathBuf::from(value()?)),
                "--rebuild" if dev.rebuild.is_none() => dev.rebuild = Some(value()?),
                parameter => drop(insert(&mut dev.parameters, parameter)?),
            }
        }
        Some(dev)
    }
}

fn parameters(arguments: impl Iterator<Item = String>) -> Option<Parameters> {
    let mut parameters = Parameters::new();
    for argument in arguments {
        insert(&mut parameters, &argument)?;
    }
    Some(parameters)
}

fn insert(parameters: &mut Parameters, argument: &str) -> Option<()> {
    let (name, value) = argument.split_once('=').filter(|(name, _)| !name.starts_with('-'))?;
    parameters.insert(name.to_owned(), value.to_owned());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Command> {
        Command::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn command_lines_are_read_as_they_are_meant() {
        let wanted = Dev {
            home: Some("h".into()),
            own: Some("t.yaml".into()),
            attached: true,
            json: true,
            seed: Some(7),
            record: Some("f".into()),
            rebuild: Some("cargo".to_owned()),
            parameters: [("Signer".to_owned(), "ssm".to_owned())].into(),
            ..Dev::default()
        };
        let line = "dev --home h --with t.yaml --attached --json --seed 7 --record f --rebuild cargo Signer=ssm";
        assert_eq!(parse(line), Some(Command::Dev(wanted)));
        let mut words = vec!["dev".to_owned(), "--faults".to_owned(), "kms reset; s3 cut".to_owned()];
        let Some(Command::Dev(dev)) = Command::parse(words.clone().into_iter()) else { panic!() };
        assert_eq!(dev.faults.as_deref(), Some("kms reset; s3 cut"));
        words[2] = String::new();
        assert!(Command::parse(words.into_iter()).is_some());
        assert!(matches!(parse("replay f"), Some(Command::Replay { .. })));
        assert!(matches!(parse("demo Signer=ssm"), Some(Command::Demo { .. })));
    }

    #[test]
    fn what_is_no_command_line_is_refused() {
        for line in [
            "",
            "dance",
            "dev x",
            "dev --x=y",
            "dev --seed",
            "dev --seed x",
            "dev --seed -1",
            "dev --json --quiet",
            "dev --quiet --quiet",
            "dev --home",
            "dev --with",
            "dev --home a --home b",
            "replay",
            "replay f g",
            "demo --attached",
            "dev --record",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
