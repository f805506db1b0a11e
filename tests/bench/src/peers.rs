//! What people would otherwise use, under the same driver: the programs that `scripts/need-peers` wrote, where it could.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::measure::{BARE, Case, FLOOR, Programs, Right, SIGNING, Worlds, allow};

/// Where the programs are, seen from the checkout.
const FOLDER: &str = ".local/peers";

/// What is asked of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Question {
    /// Anything.
    Nothing,
    /// Whether a token that was never seen may pass.
    Decision,
    /// A URL for one PUT.
    Presign,
    /// A thousand fields of 64 bytes.
    Fields,
    /// An access token for a client's assertion.
    Token,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its program, and its case.
    pub(crate) name: &'static str,
    pub(crate) question: Question,
    /// Calls of a block.
    block: usize,
}

/// All of them, by what they are asked.
pub(crate) const PEERS: [Peer; 12] = [
    peer("node-floor", Question::Nothing, 200),
    peer("python-floor", Question::Nothing, 200),
    peer("php-floor", Question::Nothing, 200),
    peer("node-authorizer", Question::Decision, 200),
    peer("python-authorizer", Question::Decision, 200),
    peer("php-authorizer", Question::Decision, 200),
    peer("node-presign", Question::Presign, 100),
    peer("python-presign", Question::Presign, 100),
    peer("python-encrypt", Question::Fields, 2),
    peer("python-encrypt-caching", Question::Fields, 2),
    peer("python-encrypt-signed", Question::Fields, 1),
    peer("node-token", Question::Token, 50),
];

const fn peer(name: &'static str, question: Question, block: usize) -> Peer {
    Peer { name, question, block }
}

impl Question {
    /// What it is called in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Decision => "a decision about a new token",
            Self::Presign => "a URL for one PUT",
            Self::Fields => "1,000 fields encrypted",
            Self::Token => "a token for a client's assertion",
        }
    }

    /// Our case for it.
    pub(crate) fn ours(self) -> &'static str {
        match self {
            Self::Nothing => FLOOR,
            Self::Decision => "authorizer, new token",
            Self::Presign => "upload",
            Self::Fields => "encrypt 1,000",
            Self::Token => SIGNING,
        }
    }

    /// Our program for it.
    pub(crate) fn program(self) -> &'static str {
        match self {
            Self::Nothing => FLOOR,
            Self::Decision => "authorizer",
            Self::Presign => "upload",
            Self::Fields => "data-key-encrypt",
            Self::Token => SIGNING,
        }
    }

    fn right(self) -> Right {
        match self {
            Self::Nothing => |_| true,
            Self::Decision => allow,
            Self::Presign => |answer| answer["statusCode"] == 201 && names_the_headers(answer),
            Self::Fields => |answer| body(answer)["items"].as_array().is_some_and(|items| items.len() == 1_000),
            Self::Token => {
                |answer| body(answer)["access_token"].as_str().is_some_and(|token| token.matches('.').count() == 2)
            }
        }
    }
}

impl Peer {
    /// The program of its language that does nothing.
    pub(crate) fn floor(&self) -> &'static str {
        match self.name.split('-').next() {
            Some("node") => "node-floor",
            Some("python") => "python-floor",
            Some("php") => "php-floor",
            _ => BARE,
        }
    }

    fn binary(&self, checkout: &Path) -> PathBuf {
        checkout.join(FOLDER).join(self.name)
    }
}

/// Whether this program or case is a peer's.
pub(crate) fn is_peer(name: &str) -> bool {
    PEERS.iter().any(|peer| peer.name == name)
}

/// The programs of those that are installed.
pub(crate) fn programs(worlds: &Worlds) -> io::Result<Programs> {
    let checkout = std::env::current_dir()?;
    let mut programs = Programs::new();
    for peer in &PEERS {
        let binary = peer.binary(&checkout);
        if binary.is_file() {
            let world = if peer.question == Question::Token { &worlds.local } else { &worlds.world };
            programs.insert(peer.name, (binary, world.peer_environment()?));
        }
    }
    Ok(programs)
}

/// The cases of those that are installed: each is asked what the function is asked.
pub(crate) fn cases<'a>(worlds: &'a Worlds, programs: &Programs) -> io::Result<Vec<Case<'a>>> {
    let (world, local) = (&worlds.world, &worlds.local);
    let token = world.token()?;
    let installed = PEERS.iter().filter(|peer| programs.contains_key(peer.name));
    let case = |peer: &Peer| {
        let fixed = |event: Vec<u8>| Box::new(move || Ok(event.clone()));
        let event: Box<dyn Fn() -> io::Result<Vec<u8>> + 'a> = match peer.question {
            Question::Nothing => fixed(world.authorizer_event(&token)),
            Question::Decision => Box::new(move || Ok(world.authorizer_event(&world.token()?))),
            Question::Presign => fixed(world.upload_event(&token)),
            Question::Fields => fixed(world.encrypt_event(&token, 1_000)),
            Question::Token => Box::new(move || local.token_event()),
        };
        let right = peer.question.right();
        Case { name: peer.name, program: peer.name, world, laden: None, block: peer.block, event, right }
    };
    Ok(installed.map(case).collect())
}

fn body(answer: &Value) -> Value {
    answer["body"].as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Whether the URL has what an upload must have signed.
fn names_the_headers(answer: &Value) -> bool {
    let url = body(answer)["url"].as_str().unwrap_or_default().to_ascii_lowercase();
    let (_, rest) = url.split_once("x-amz-signedheaders=").unwrap_or_default();
    let signed = rest.split('&').next().unwrap_or_default();
    [
        "content-length",
        "content-type",
        "if-none-match",
        "x-amz-checksum-sha256",
        "x-amz-server-side-encryption-aws-kms-key-id",
    ]
    .iter()
    .all(|name| signed.split("%3b").any(|one| one == *name))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_peer_has_a_floor_of_its_language_and_a_program_that_is_written() {
        let script = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/need-peers")).unwrap();
        for peer in &PEERS {
            assert!(PEERS.iter().any(|other| other.name == peer.floor() && other.question == Question::Nothing));
            let (language, rest) = peer.name.split_once('-').unwrap();
            // The Node peers are written in a loop.
            let written =
                script.contains(&format!("wrap {} ", peer.name)) || (language == "node" && script.contains(rest));
            assert!(written, "{}: scripts/need-peers does not write it", peer.name);
        }
    }

    #[test]
    fn a_url_that_leaves_a_header_out_is_no_answer() {
        let all = "content-length%3Bcontent-type%3Bhost%3Bif-none-match%3Bx-amz-checksum-sha256%3B\
                   x-amz-server-side-encryption-aws-kms-key-id";
        let answer = |signed: &str| {
            let url = format!("https://bucket/key?X-Amz-SignedHeaders={signed}&x-id=PutObject");
            json!({"statusCode": 201, "body": json!({"url": url}).to_string()})
        };
        assert!(names_the_headers(&answer(all)));
        assert!(!names_the_headers(&answer(&all.replace("if-none-match", "host"))));
        assert!(!names_the_headers(&json!({"statusCode": 201})));
    }
}
