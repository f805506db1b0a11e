use crate::name::Malformed;

/// The state of a file. Derived from recorded facts, never set by an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileStatus {
    /// No object has arrived.
    Pending,
    /// The object is as declared and waits for its verdict.
    Scanning,
    /// May be served.
    Clean,
    /// The object is not what was declared, or was written twice. Final.
    Rejected,
    /// A threat was found. Final.
    Infected,
    /// The scanner could not judge the object.
    Unscannable,
    /// Nothing arrived in time.
    Expired,
    /// Deleted by its owner.
    Deleted,
}

impl FileStatus {
    /// All states.
    pub const ALL: [FileStatus; 8] = [
        FileStatus::Pending,
        FileStatus::Scanning,
        FileStatus::Clean,
        FileStatus::Rejected,
        FileStatus::Infected,
        FileStatus::Unscannable,
        FileStatus::Expired,
        FileStatus::Deleted,
    ];

    /// The state as the database and the API name it.
    pub fn as_str(self) -> &'static str {
        match self {
            FileStatus::Pending => "pending",
            FileStatus::Scanning => "scanning",
            FileStatus::Clean => "clean",
            FileStatus::Rejected => "rejected",
            FileStatus::Infected => "infected",
            FileStatus::Unscannable => "unscannable",
            FileStatus::Expired => "expired",
            FileStatus::Deleted => "deleted",
        }
    }

    /// Whether the file has ended: no fact brings it back, nobody reads it, and its bytes go once no URL for them is alive.
    pub fn is_final(self) -> bool {
        matches!(self, FileStatus::Rejected | FileStatus::Infected | FileStatus::Expired | FileStatus::Deleted)
    }

    /// Reads a state.
    pub fn parse(text: &str) -> Result<FileStatus, Malformed> {
        FileStatus::ALL.into_iter().find(|status| status.as_str() == text).ok_or(Malformed("file status"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_is_named_and_nothing_else_is() {
        for status in FileStatus::ALL {
            assert_eq!(FileStatus::parse(status.as_str()).unwrap(), status);
        }
        let ended = FileStatus::ALL.into_iter().filter(|status| status.is_final());
        assert_eq!(ended.map(FileStatus::as_str).collect::<Vec<_>>(), ["rejected", "infected", "expired", "deleted"]);
        for text in ["", "Clean", "clean ", "unscanned"] {
            assert!(FileStatus::parse(text).is_err(), "{text}");
        }
    }
}
