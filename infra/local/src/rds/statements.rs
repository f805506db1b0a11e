//! What whoever watches is told about the connections of a function's process: who was let in, and each statement with what came of it.
//! Statements are told by the SQL functions that they call, never by their text or values.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::account::Account;
use crate::call::key_in_query;
use crate::view::record::Kind;
use crate::view::{Span, View};

/// Longest message body that is looked at.
const LONGEST: usize = 8 * 1024;
/// Statements of one connection that may be under way.
const MOST: usize = 64;

/// One connection, by the keys that its token was signed with.
#[derive(Debug)]
pub(super) struct Watch {
    view: View,
    key: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    forth: Frames,
    back: Frames,
    /// What the statement that was sent last calls.
    name: String,
    under_way: VecDeque<Option<Span>>,
    /// SQLSTATE of the error that the server has answered with since the last round trip.
    failed: Option<String>,
}

impl Watch {
    /// `None` while nobody looks.
    pub(super) fn new(account: &Account, token: &str) -> Option<Self> {
        let key = account.view.on().then(|| key_in_query(token.split_once('?')?.1)).flatten()?;
        Some(Self { view: account.view.clone(), key, state: Mutex::default() })
    }

    /// A connection is asked for.
    pub(super) fn connects(&self, user: &str) -> Option<Span> {
        Some(self.view.worked_on_by(&self.key)?.open(Kind::Database, &format!("connect {user}")))
    }

    /// Messages towards the server.
    pub(super) fn sent(&self, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { forth, name, under_way, .. } = &mut *state;
        forth.feed(bytes, |kind, body| {
            let mut strings = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            match kind {
                b'P' => *name = called(&strings.nth(1).unwrap_or_default()),
                b'Q' => *name = called(&strings.next().unwrap_or_default()),
                b'S' => {}
                _ => return,
            }
            if kind != b'P' && under_way.len() < MOST {
                let work = self.view.worked_on_by(&self.key);
                under_way.push_back(work.map(|work| work.open(Kind::Database, name)));
            }
        });
    }

    /// Messages towards the client.
    pub(super) fn received(&self, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { back, under_way, failed, .. } = &mut *state;
        back.feed(bytes, |kind, body| match kind {
            b'E' => *failed = sqlstate(body),
            b'Z' => {
                let failed = failed.take();
                if let Some(Some(span)) = under_way.pop_front() {
                    span.close(failed.as_deref().unwrap_or("ok"));
                }
            }
            _ => {}
        });
    }

    /// A fault falls to the statement that was sent last.
    pub(super) fn struck(&self, rules: &str) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(span)) = state.under_way.back() {
            span.struck(rules);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.under_way.drain(..).flatten().for_each(|span| span.close("the connection ended"));
    }
}

/// The SQL functions of schema `api` that a statement calls, or its first word.
fn called(sql: &str) -> String {
    let name = |rest: &str| {
        rest.split(|sign: char| !(sign.is_ascii_alphanumeric() || sign == '_')).next().unwrap_or_default().to_owned()
    };
    let mut names: Vec<String> = sql.split("api.").skip(1).map(|rest| format!("api.{}", name(rest))).collect();
    names.dedup();
    if names.is_empty() { name(sql.trim_start()).to_ascii_uppercase() } else { names.join(" ") }
}

/// The code of an ErrorResponse.
fn sqlstate(body: &[u8]) -> Option<String> {
    let field = body.split(|byte| *byte == 0).find_map(|field| field.strip_prefix(b"C"))?;
    Some(String::from_utf8_lossy(field).into_owned())
}

/// Takes the messages of one direction apart (PostgreSQL documentation, "Message Formats").
#[derive(Debug, Default)]
pub(super) struct Frames {
    head: Vec<u8>,
    kind: u8,
    left: usize,
    body: Vec<u8>,
}

impl Frames {
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut message: impl FnMut(u8, &[u8])) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.head.push(*first);
                bytes = rest;
                let &[kind, a, b, c, d] = self.head.as_slice() else { continue };
                self.kind = kind;
                self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX).saturating_sub(4);
                self.head.clear();
                self.body.clear();
            } else {
                let (now, later) = bytes.split_at(self.left.min(bytes.len()));
                let room = LONGEST.saturating_sub(self.body.len()).min(now.len());
                self.body.extend(now.iter().take(room));
                self.left -= now.len();
                bytes = later;
            }
            if self.left == 0 {
                message(self.kind, &self.body);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::clock::Clock;
    use crate::policy::Iam;
    use crate::rds::pins::tests::message;
    use crate::view::record::Door;

    #[test]
    fn statements_are_told_by_what_they_call_and_how_they_ended_however_the_bytes_are_cut() {
        for size in [1, 3, 7, 4_096] {
            let account = Account::new(Iam::new("111122223333", "us-east-1", Clock::system(), &[]).unwrap());
            account.view.switch_on();
            let span = account.view.begin(Door::Gateway, SystemTime::UNIX_EPOCH, |_| {}).unwrap();
            let watch = Watch::new(&account, "localhost:1/?Action=connect&X-Amz-Credential=ASIA7%2F2026%2Fx").unwrap();
            let work = span.worked_on_by("ASIA7");
            let parse = |sql: &str| message(b'P', format!("\0{sql}\0\0\0").as_bytes());
            let mut forth = parse("SELECT * FROM api.redeem($1, 'canary')");
            forth.extend(message(b'B', b"\0\0canary"));
            forth.extend(message(b'S', b""));
            forth.extend(parse("SELECT api.a($1), api.b()"));
            forth.extend(message(b'S', b""));
            forth.extend(message(b'Q', b"select 'canary'\0"));
            let mut back = message(b'D', &[0; 20_000]);
            back.extend(message(b'Z', b"I"));
            back.extend(message(b'E', b"SERROR\0C23505\0Mcanary\0\0"));
            back.extend(message(b'Z', b"I"));
            forth.chunks(size).for_each(|chunk| watch.sent(chunk));
            back.chunks(size).for_each(|chunk| watch.received(chunk));
            drop((watch, work));
            let seen = account.view.find(0).unwrap();
            let told: Vec<_> = seen.parts.iter().map(|part| (part.name.as_str(), part.outcome.as_str())).collect();
            assert_eq!(told, [("api.redeem", "ok"), ("api.a api.b", "23505"), ("SELECT", "the connection ended")]);
            assert!(!serde_json::to_string(&seen).unwrap().contains("canary"));
        }
    }

    #[test]
    fn bytes_that_are_no_messages_do_no_harm() {
        let account = Arc::new(Account::new(Iam::new("111122223333", "us-east-1", Clock::system(), &[]).unwrap()));
        assert!(Watch::new(&account, "x?X-Amz-Credential=ASIA/").is_none(), "nobody looks");
        account.view.switch_on();
        let watch = Watch::new(&account, "x?X-Amz-Credential=ASIA/").unwrap();
        watch.sent(&[0xff; 4_096]);
        watch.received(&[0; 4_096]);
        assert!(Watch::new(&account, "not a token").is_none());
    }
}
