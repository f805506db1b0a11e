//! What went wrong, as the callers of a port distinguish it.

use std::error::Error as _;

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use shared::port::{Fault, FaultKind};

pub(crate) const SERVICE: &str = "postgres";

/// The fault of a statement or a connection, by its SQLSTATE where the server gave one.
pub(crate) fn fault(operation: &'static str, error: Error) -> Fault {
    let kind = match error.code() {
        Some(state) => kind(state),
        // Encoding a parameter or reading a column: the two sides disagree about a type.
        None if is_codec(&error) => FaultKind::Invalid,
        None => FaultKind::Unavailable,
    };
    Fault::new(kind, SERVICE, operation).caused_by(Reason::from(error))
}

fn kind(state: &SqlState) -> FaultKind {
    let code = state.code();
    match code {
        "28P01" | "28000" | "42501" => FaultKind::Denied,
        "53300" => FaultKind::Throttled,
        "40001" | "40P01" | "23505" | "23P01" | "55P03" => FaultKind::Conflict,
        "3D000" | "P0002" => FaultKind::NotFound,
        _ => match code.get(..2) {
            Some("08" | "53" | "57" | "58" | "25") => FaultKind::Unavailable,
            _ => FaultKind::Invalid,
        },
    }
}

/// True when the server said so and then hung up.
pub(crate) fn ends_session(error: &Error) -> bool {
    error.code().is_some_and(|state| state.code().starts_with("57P") || state.code().starts_with("08"))
}

/// True when the socket failed, not the statement.
pub(crate) fn is_io(error: &Error) -> bool {
    error.source().is_some_and(|source| source.is::<std::io::Error>())
}

fn is_codec(error: &Error) -> bool {
    !error.is_closed() && !is_io(error) && {
        let text = error.to_string();
        text.contains("parameter") || text.contains("column")
    }
}

/// The cause without values: the server's messages and details may quote what was sent.
#[derive(Debug)]
enum Reason {
    State { code: String, constraint: Option<String>, routine: Option<String> },
    Transport(String),
}

impl From<Error> for Reason {
    fn from(error: Error) -> Self {
        match error.as_db_error() {
            Some(reported) => Self::State {
                code: reported.code().code().to_owned(),
                constraint: reported.constraint().map(str::to_owned),
                routine: reported.routine().map(str::to_owned),
            },
            None => {
                let mut text = error.to_string();
                let mut source = error.source();
                while let Some(cause) = source {
                    text = format!("{text}: {cause}");
                    source = cause.source();
                }
                Self::Transport(text)
            }
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::State { code, constraint, routine } => {
                write!(f, "sqlstate {code}")?;
                if let Some(constraint) = constraint {
                    write!(f, ", constraint {constraint}")?;
                }
                if let Some(routine) = routine {
                    write!(f, ", in {routine}")?;
                }
                Ok(())
            }
            Self::Transport(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Reason {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sqlstate_becomes_the_kind_that_callers_act_on() {
        for (code, expected) in [
            ("28P01", FaultKind::Denied),
            ("28000", FaultKind::Denied),
            ("42501", FaultKind::Denied),
            ("08006", FaultKind::Unavailable),
            ("57P01", FaultKind::Unavailable),
            ("57P03", FaultKind::Unavailable),
            ("57014", FaultKind::Unavailable),
            ("25006", FaultKind::Unavailable),
            ("53300", FaultKind::Throttled),
            ("53200", FaultKind::Unavailable),
            ("40001", FaultKind::Conflict),
            ("40P01", FaultKind::Conflict),
            ("23505", FaultKind::Conflict),
            ("23503", FaultKind::Invalid),
            ("23514", FaultKind::Invalid),
            ("22P02", FaultKind::Invalid),
            ("42883", FaultKind::Invalid),
            ("P0001", FaultKind::Invalid),
        ] {
            assert_eq!(kind(&SqlState::from_code(code)), expected, "{code}");
        }
    }
}
