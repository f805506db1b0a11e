//! Sees in a client's own messages what would pin a real proxy's session (RDS user guide, "Avoiding pinning").

/// Longest message body that is looked at; longer statements are cut.
const LONGEST: usize = 64 * 1024;

/// Follows the frontend messages of one connection.
#[derive(Debug, Default)]
pub(crate) struct Detector {
    header: Vec<u8>,
    kind: u8,
    left: usize,
    body: Vec<u8>,
}

/// What one chunk of messages contained.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Messages after which the client waits: Sync and simple Query.
    pub(crate) round_trips: u64,
    /// One line for each thing that pins.
    pub(crate) pins: Vec<String>,
}

impl Detector {
    /// Takes the next bytes, which may end anywhere.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while let Some((first, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.header.push(*first);
                bytes = rest;
                if let &[kind, a, b, c, d] = self.header.as_slice() {
                    self.kind = kind;
                    self.left =
                        usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX).saturating_sub(4);
                    self.header.clear();
                    self.body.clear();
                    if self.left == 0 {
                        self.finish(&mut seen);
                    }
                }
                continue;
            }
            let (now, later) = bytes.split_at(self.left.min(bytes.len()));
            let room = LONGEST.saturating_sub(self.body.len()).min(now.len());
            self.body.extend(now.iter().take(room));
            self.left -= now.len();
            bytes = later;
            if self.left == 0 {
                self.finish(&mut seen);
            }
        }
        seen
    }

    fn finish(&mut self, seen: &mut Seen) {
        let mut strings = self.body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        match self.kind {
            b'Q' => {
                seen.round_trips += 1;
                seen.pins.extend(pins(&strings.next().unwrap_or_default()));
            }
            b'P' => {
                let name = strings.next().unwrap_or_default().into_owned();
                let text = strings.next().unwrap_or_default().into_owned();
                if !name.is_empty() {
                    seen.pins.push(format!("named statement: {}", short(&text)));
                }
                seen.pins.extend(pins(&text));
            }
            b'S' => seen.round_trips += 1,
            _ => {}
        }
    }
}

/// One line for each statement of `sql` that pins.
fn pins(sql: &str) -> Vec<String> {
    let words = words(sql);
    words
        .split(|word| word == ";")
        .filter_map(|statement| reason(statement).map(|reason| format!("{reason}: {}", short(sql))))
        .collect()
}

fn reason(statement: &[String]) -> Option<&'static str> {
    let first = statement.first()?.as_str();
    let leading = match first {
        "SET" | "RESET" => Some("setting"),
        "PREPARE" | "EXECUTE" | "DEALLOCATE" => Some("prepared statement"),
        "DISCARD" => Some("discard"),
        "LISTEN" | "UNLISTEN" => Some("listen"),
        "LOAD" => Some("load"),
        "DECLARE" => Some("cursor"),
        "CREATE" | "SELECT" | "WITH" | "DROP"
            if statement.iter().any(|word| word == "TEMP" || word == "TEMPORARY") && temporary(statement) =>
        {
            Some("temporary object")
        }
        _ => None,
    };
    leading.or_else(|| {
        statement.windows(2).find_map(|pair| match pair {
            [name, bracket] if bracket == "(" => match name.as_str() {
                "SET_CONFIG" => Some("setting"),
                "NEXTVAL" | "SETVAL" => Some("sequence"),
                "PG_ADVISORY_LOCK"
                | "PG_ADVISORY_LOCK_SHARED"
                | "PG_TRY_ADVISORY_LOCK"
                | "PG_TRY_ADVISORY_LOCK_SHARED" => Some("advisory lock"),
                _ => None,
            },
            _ => None,
        })
    })
}

/// `CREATE [GLOBAL | LOCAL] TEMP …` or `… INTO TEMP …`, not a column of that name.
fn temporary(statement: &[String]) -> bool {
    statement.windows(2).any(|pair| match pair {
        [before, word] => {
            (word == "TEMP" || word == "TEMPORARY")
                && matches!(before.as_str(), "CREATE" | "GLOBAL" | "LOCAL" | "INTO" | "REPLACE")
        }
        _ => false,
    })
}

fn short(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect()
}

/// Words in upper case and single signs, without comments and quoted text.
fn words(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = sql;
    while let Some(sign) = rest.chars().next() {
        let after = |text: &str, length: usize| text.get(length..).unwrap_or_default().len();
        let keep = if sign == '\'' {
            rest.get(1..).and_then(|text| text.find('\'').map(|end| after(text, end + 1))).unwrap_or(0)
        } else if sign == '"' {
            rest.get(1..).and_then(|text| text.find('"').map(|end| after(text, end + 1))).unwrap_or(0)
        } else if rest.starts_with("--") {
            rest.find('\n').map_or(0, |end| after(rest, end))
        } else if rest.starts_with("/*") {
            after_comment(rest)
        } else if let Some(tag) = dollar_tag(rest) {
            let body = rest.get(tag.len()..).unwrap_or_default();
            body.find(tag).map_or(0, |end| after(body, end + tag.len()))
        } else if sign.is_alphanumeric() || sign == '_' {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
            found.push(rest.get(..end).unwrap_or_default().to_uppercase());
            after(rest, end)
        } else {
            if !sign.is_whitespace() {
                found.push(sign.to_string());
            }
            after(rest, sign.len_utf8())
        };
        rest = rest.get(rest.len() - keep..).unwrap_or_default();
    }
    found
}

/// How many bytes follow the comment, which may hold others, that `text` starts with.
fn after_comment(text: &str) -> usize {
    let mut depth = 0_u32;
    let mut rest = text;
    loop {
        if let Some(inner) = rest.strip_prefix("/*") {
            depth += 1;
            rest = inner;
        } else if let Some(outer) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = outer;
            if depth == 0 {
                return rest.len();
            }
        } else if let Some(sign) = rest.chars().next() {
            rest = rest.get(sign.len_utf8()..).unwrap_or_default();
        } else {
            return 0;
        }
    }
}

/// `$$` or `$tag$` at the start of `text`.
fn dollar_tag(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('$')?;
    let end = inner.find('$')?;
    let tag = inner.get(..end)?;
    let plain = tag.chars().all(|c| c.is_alphanumeric() || c == '_') && !tag.starts_with(|c: char| c.is_ascii_digit());
    plain.then(|| text.get(..end + 2)).flatten()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn what_pins_a_session_is_seen() {
        for (sql, reason) in [
            ("SET search_path = x", "setting"),
            ("set local statement_timeout = 1", "setting"),
            ("SELECT 1; RESET ALL", "setting"),
            ("select set_config('a.b', 'c', true)", "setting"),
            ("PREPARE p AS SELECT 1", "prepared statement"),
            ("DEALLOCATE ALL", "prepared statement"),
            ("DISCARD ALL", "discard"),
            ("/* a /* b */ */ LISTEN x", "listen"),
            ("-- note\nLOAD 'x'", "load"),
            ("BEGIN; DECLARE c CURSOR FOR SELECT 1", "cursor"),
            ("CREATE TEMP TABLE t (n int)", "temporary object"),
            ("create local temporary view v as select 1", "temporary object"),
            ("SELECT 1 INTO TEMP t", "temporary object"),
            ("SELECT pg_advisory_lock(1)", "advisory lock"),
            ("SELECT pg_try_advisory_lock (1)", "advisory lock"),
            ("SELECT nextval('s')", "sequence"),
        ] {
            let found = pins(sql);
            assert_eq!(found.len(), 1, "{sql}: {found:?}");
            assert!(found.concat().starts_with(reason), "{sql}: {found:?}");
        }
    }

    #[test]
    fn what_does_not_pin_is_left_alone() {
        for sql in [
            "SELECT api.create_file($1, $2)",
            "SELECT 'SET x', $$LISTEN y$$, $t$ DISCARD $t$, \"PREPARE\"",
            "SELECT pg_advisory_xact_lock(1)",
            "UPDATE t SET a = 1",
            "SELECT 'it''s; SET x = 1'",
            "SELECT temp FROM weather",
            "BEGIN; COMMIT",
            "",
            ";;",
        ] {
            assert_eq!(pins(sql), Vec::<String>::new(), "{sql}");
        }
    }

    pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&u32::try_from(body.len() + 4).expect("short").to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let mut bytes = message(b'P', b"\0SELECT api.f($1)\0\0\0");
        bytes.extend(message(b'B', &[0; 40]));
        bytes.extend(message(b'S', b""));
        bytes.extend(message(b'P', b"s1\0SELECT 1\0\0\0"));
        bytes.extend(message(b'Q', b"SET a = 1\0"));
        let pins = vec!["named statement: SELECT 1".to_owned(), "setting: SET a = 1".to_owned()];
        for size in [1, 2, 3, 5, 7, 64, 1_000] {
            let mut detector = Detector::default();
            let mut all = Seen::default();
            for chunk in bytes.chunks(size) {
                let seen = detector.feed(chunk);
                all.round_trips += seen.round_trips;
                all.pins.extend(seen.pins);
            }
            assert_eq!(all, Seen { round_trips: 2, pins: pins.clone() }, "chunks of {size}");
        }
    }
}
