//! The account: who may sign, with which keys, until when.

use std::collections::HashMap;
use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::SystemTime;

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::call::Remembered;
use crate::clock::Clock;
use crate::faults::plan::Plan;
use crate::policy::Iam;
use crate::session::Sessions;
use crate::view::View;

/// One AWS account in one region, shared by all stand-ins as `Arc<Account>`.
#[derive(Debug)]
pub struct Account {
    /// Twelve digits.
    pub id: String,
    /// The one region of this stack.
    pub region: String,
    /// The stack's clock.
    pub clock: Clock,
    /// All issued keys.
    pub credentials: CredentialStore,
    /// The roles' policies.
    pub iam: Iam,
    /// What is seen of it.
    pub view: View,
    /// The faults that its services are to show.
    pub faults: Plan,
    /// The session that is recorded of it.
    pub sessions: Sessions,
    pub(crate) remembered: Remembered,
}

impl Account {
    /// An account that has issued nothing yet. Its id, region and clock are those of `iam`.
    pub fn new(iam: Iam) -> Account {
        let (id, region, clock) = (iam.account().to_owned(), iam.region().to_owned(), iam.clock().clone());
        let credentials = CredentialStore { clock: clock.clone(), entries: RwLock::default() };
        let (view, faults, remembered) = (View::default(), Plan::new(clock.clone()), Remembered::default());
        let sessions = Sessions::default();
        Account { id, region, clock, credentials, iam, view, faults, sessions, remembered }
    }

    /// The operator of this stack: may do everything.
    pub fn operator(&self) -> Principal {
        Principal { arn: format!("arn:aws:iam::{}:user/operator", self.id), kind: PrincipalKind::Operator }
    }

    /// A session of one of the stack's roles, as a function or a signer holds it.
    pub fn session(&self, role_name: &str, session_name: &str, function_arn: Option<String>) -> Principal {
        Principal {
            arn: format!("arn:aws:sts::{}:assumed-role/{role_name}/{session_name}", self.id),
            kind: PrincipalKind::Role {
                role_name: role_name.to_owned(),
                session_name: session_name.to_owned(),
                session_policy: None,
                function_arn,
            },
        }
    }

    /// The ARN of a function in this account.
    pub fn function_arn(&self, function_name: &str) -> String {
        format!("arn:aws:lambda:{}:{}:function:{function_name}", self.region, self.id)
    }
}

/// Who signs a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// The ARN as `GetCallerIdentity` tells it.
    pub arn: String,
    /// What decides about its rights.
    pub kind: PrincipalKind,
}

/// What decides about a principal's rights.
#[derive(Clone, Debug, PartialEq)]
pub enum PrincipalKind {
    /// May do everything on this stack.
    Operator,
    /// A session of a role of the template.
    Role {
        /// The role's name, without path.
        role_name: String,
        /// The session's name; the function's name for a function.
        session_name: String,
        /// The policy handed to `AssumeRole`, which narrows the role's.
        session_policy: Option<serde_json::Value>,
        /// Set for the sessions that Lambda hands to a function.
        function_arn: Option<String>,
    },
}

/// Keys as a client gets them. `Debug` shows the access key id only.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// `AKIA…` without a token, `ASIA…` with one.
    pub access_key_id: String,
    /// 40 characters.
    pub secret_access_key: String,
    /// Present for sessions.
    pub session_token: Option<String>,
    /// When the session ends.
    pub expires: Option<SystemTime>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// What the account remembers about issued keys. `Debug` shows the principal only.
#[derive(Clone)]
pub struct Entry {
    /// The secret to verify signatures with.
    pub secret: String,
    /// The token that must come with the key, byte for byte.
    pub token: Option<String>,
    /// Who holds the keys.
    pub principal: Principal,
    /// When they end.
    pub expires: Option<SystemTime>,
    /// When they were issued (`aws:TokenIssueTime`).
    pub issued_at: SystemTime,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("principal", &self.principal.arn).finish_non_exhaustive()
    }
}

/// All keys this account has issued.
pub struct CredentialStore {
    clock: Clock,
    entries: RwLock<HashMap<String, Entry>>,
}

impl fmt::Debug for CredentialStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialStore").finish_non_exhaustive()
    }
}

impl CredentialStore {
    /// Issues fresh keys: long-lived ones for the operator, a session with a token for a role.
    pub fn issue(&self, principal: Principal, expires: Option<SystemTime>) -> Keys {
        let session = matches!(principal.kind, PrincipalKind::Role { .. });
        let keys = Keys {
            access_key_id: format!("{}{}", if session { "ASIA" } else { "AKIA" }, letters(16)),
            secret_access_key: STANDARD.encode(random::<30>()),
            // Real tokens are some 400 to 1,200 characters long, which is what makes RDS tokens and URLs long too.
            session_token: session.then(|| format!("IQoJb3JpZ2luX2Vj{}", STANDARD.encode(random::<567>()))),
            expires,
        };
        self.insert(&keys, principal);
        keys
    }

    /// Makes known keys valid, for known-answer tests and fixed operator keys.
    pub fn insert(&self, keys: &Keys, principal: Principal) {
        let entry = Entry {
            secret: keys.secret_access_key.clone(),
            token: keys.session_token.clone(),
            principal,
            expires: keys.expires,
            issued_at: self.clock.now(),
        };
        self.entries.write().unwrap_or_else(PoisonError::into_inner).insert(keys.access_key_id.clone(), entry);
    }

    /// What was issued under this access key id, expired or not.
    pub fn find(&self, access_key_id: &str) -> Option<Entry> {
        let mut entry = self.entries.read().unwrap_or_else(PoisonError::into_inner).get(access_key_id).cloned()?;
        if crate::call::struck().expired {
            entry.expires = Some(SystemTime::UNIX_EPOCH);
        }
        Some(entry)
    }

    /// Takes keys back: from now on they are unknown.
    pub fn remove(&self, access_key_id: &str) {
        self.entries.write().unwrap_or_else(PoisonError::into_inner).remove(access_key_id);
    }
}

/// `length` random characters of the alphabet of access key ids, also good for role ids.
pub fn letters(length: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut text = String::with_capacity(length);
    while text.len() < length {
        for byte in random::<32>() {
            if text.len() < length
                && let Some(letter) = ALPHABET.get(usize::from(byte % 32))
            {
                text.push(char::from(*letter));
            }
        }
    }
    text
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // aws-lc aborts rather than hand out fewer bytes; without randomness there is no stack to run.
    while rand::fill(&mut bytes).is_err() {}
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn account() -> Account {
        Account::new(Iam::new("111122223333", "us-east-1", Clock::system(), &[]).unwrap())
    }

    #[test]
    fn a_session_has_a_token_of_realistic_length_and_an_operator_none() {
        let account = account();
        let session = account.credentials.issue(account.session("r", "s", None), None);
        assert!(session.access_key_id.starts_with("ASIA") && session.access_key_id.len() == 20);
        assert!((400..=1_200).contains(&session.session_token.unwrap().len()));
        let operator = account.credentials.issue(account.operator(), None);
        assert!(operator.access_key_id.starts_with("AKIA") && operator.session_token.is_none());
        assert_eq!(operator.secret_access_key.len(), 40);
    }

    #[test]
    fn removed_keys_are_unknown() {
        let account = account();
        let keys = account.credentials.issue(account.operator(), Some(account.clock.now() + Duration::from_secs(1)));
        assert!(account.credentials.find(&keys.access_key_id).is_some());
        account.credentials.remove(&keys.access_key_id);
        assert!(account.credentials.find(&keys.access_key_id).is_none());
    }

    #[test]
    fn debug_shows_no_secret() {
        let account = account();
        let keys = account.credentials.issue(account.session("r", "s", None), None);
        let entry = account.credentials.find(&keys.access_key_id).unwrap();
        let shown = format!("{keys:?} {entry:?} {account:?}");
        assert!(!shown.contains(&keys.secret_access_key) && !shown.contains(&keys.session_token.unwrap()));
    }
}
