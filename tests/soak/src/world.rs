//! The stack that is soaked, and what a traveller needs to know of it.

use std::io;
use std::path::{Path, PathBuf};

use local::clock::Clock;
use local::seed::{self, Client, act};
use local::stack::{Options, Stack, UNTHROTTLED, unpacked_postgres};
use serde_json::json;

/// A client whose tokens end after thirty seconds; it signs with the key of `acme-reader`.
pub const BRIEF: &str = "acme-brief";

/// How often a stack is started before that is an error.
const TRIES: u32 = 4;

/// The seeded stack.
pub struct World {
    /// The stack.
    pub stack: Stack,
    clients: Vec<Client>,
    /// The machine's clock, which the functions go by: a fault may put the stack's own ahead.
    pub clock: Clock,
}

impl World {
    /// Starts and seeds a stack around the functions in `binaries`.
    ///
    /// # Errors
    /// What could not be started.
    pub async fn open(checkout: &Path, binaries: PathBuf) -> io::Result<Self> {
        let home = checkout.join(".local");
        let options = Options {
            binaries,
            postgres: unpacked_postgres(checkout),
            root: home.join("run"),
            cache: Some(home.join("cache")),
            clock: Clock::system(),
            parameters: UNTHROTTLED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            own: None,
        };
        // Making a pair of RSA keys takes longer on a busy machine than genesis waits; nothing is soaked yet.
        let mut tries = 1;
        let stack = loop {
            match Stack::start(options.clone()).await {
                Ok(stack) => break stack,
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => tries += 1,
            }
        };
        let clients = seed::seed(&stack).await?;
        let world = Self { stack, clients, clock: Clock::system() };
        let brief = json!({"operation": "client.put", "operator": "soak", "tenant": "acme", "client_id": BRIEF, "ttl_seconds": 30,
            "jwks": {"keys": [world.client("acme-reader")?.jwk()]}, "scopes": ["files:read"], "dpop": false});
        act(&world.stack, brief).await?;
        Ok(world)
    }

    /// A seeded client; the brief one is its key's.
    ///
    /// # Errors
    /// When there is none.
    pub fn client(&self, id: &str) -> io::Result<&Client> {
        let id = if id == BRIEF { "acme-reader" } else { id };
        let found = self.clients.iter().find(|client| client.client_id == id);
        found.ok_or_else(|| io::Error::other(format!("no client {id}")))
    }

    /// An assertion with which this client proves itself, as of now.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn assertion(&self, id: &str) -> io::Result<String> {
        let (client, now) = (self.client(id)?, self.clock.seconds());
        client.sign(
            &json!({"alg": "ES256", "typ": "JWT", "kid": client.kid}),
            &json!({"iss": id, "sub": id, "aud": self.stack.places.gateway, "jti": unique(), "iat": now, "exp": now + 60}),
        )
    }
}

#[expect(clippy::disallowed_methods, reason = "a client's own id, which nothing of the plan depends on")]
pub(crate) fn unique() -> String {
    uuid::Uuid::new_v4().to_string()
}
