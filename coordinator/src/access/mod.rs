//! Who may do what.
//!
//! | role | may |
//! |---|---|
//! | `read` | list and show jobs, follow them, read their logs; `/metrics` |
//! | `submit` | that, submit jobs, cancel its own, ask finished models |
//! | `admin` | everything, with anybody's jobs |
//!
//! Users prove their role with a token (`tokens`), and, where there is a certificate authority for them, with a
//! certificate of that authority on top. Without a single token a coordinator that only its own machine reaches
//! lets everybody do everything; any other lets nobody do anything.

mod grpc;
mod role;
mod secret;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, header};
use thiserror::Error;

use crate::door::Peer;
use crate::metrics::{Reason, Refusals};

pub(crate) use grpc::guard as guard_jobs;
pub use role::Role;
pub(crate) use secret::{Secret, random};
pub use tokens::{TokenError, TokenFile, TokenRow};

/// Somebody who has shown who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The name of their token; none where everybody may do everything.
    pub(crate) name: Option<String>,
    /// What they may do.
    pub(crate) role: Role,
}

impl User {
    /// Whoever comes to a coordinator that asks nobody.
    fn anybody() -> Self {
        Self { name: None, role: Role::Admin }
    }

    /// Whether they may change a job that was submitted by `submitter`.
    pub(crate) fn may_change(&self, submitter: Option<&str>) -> bool {
        match self.role {
            Role::Admin => true,
            Role::Submit => self.name.is_some() && self.name.as_deref() == submitter,
            Role::Read => false,
        }
    }
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Denied {
    /// They show nothing, and must.
    #[error(
        "this coordinator asks for a token: put one into SQUADCTL_TOKEN, or its file into SQUADCTL_TOKEN_FILE (squad-coordinator token create makes one)"
    )]
    NoToken,
    /// What they show is nobody's.
    #[error("the token is not known here; it may have been revoked")]
    WrongToken,
    /// They show no certificate, and must.
    #[error("this coordinator asks users for a certificate: name one with --cert and --key")]
    NoCertificate,
    /// They are known, and may not do this.
    #[error("this needs a token of the role {needed}, and {name} has the role {has}")]
    Role {
        /// What it takes.
        needed: Role,
        /// Who asks.
        name: String,
        /// What they have.
        has: Role,
    },
    /// Whether they may come in cannot be found out.
    #[error("the coordinator cannot read its tokens, so nobody is let in: {0}")]
    Broken(String),
}

impl Denied {
    /// Under what it is counted.
    pub(crate) fn reason(&self) -> Reason {
        match self {
            Self::NoToken | Self::WrongToken | Self::NoCertificate | Self::Broken(_) => Reason::Token,
            Self::Role { .. } => Reason::Role,
        }
    }
}

/// What users are held against.
#[derive(Clone)]
pub(crate) struct Access(Arc<Rules>);

struct Rules {
    tokens: Tokens,
    /// Whether other machines reach the coordinator.
    exposed: bool,
    /// Whether users must have a certificate.
    certificate: bool,
    refusals: Refusals,
}

/// Where tokens come from.
pub(crate) enum Tokens {
    /// A file that is read again whenever it changes.
    File(TokenFile),
    /// The one that this process was given, in memory.
    One(Secret),
}

impl Access {
    pub(crate) fn new(tokens: Tokens, exposed: bool, certificate: bool, refusals: Refusals) -> Self {
        Self(Arc::new(Rules { tokens, exposed, certificate, refusals }))
    }

    /// Who holds the token of this hash.
    pub(crate) fn holder(&self, token: &Secret) -> Result<User, Denied> {
        match &self.0.tokens {
            Tokens::One(secret) if secret.equals(token) => Ok(User::anybody()),
            Tokens::One(_) => Err(Denied::WrongToken),
            Tokens::File(file) => {
                match file.find(token).map_err(|error| Denied::Broken(error.to_string()))? {
                    Some((name, role)) => Ok(User { name: Some(name), role }),
                    None => Err(Denied::WrongToken),
                }
            }
        }
    }

    /// Whether those who show nothing are let in.
    pub(crate) fn is_open(&self) -> Result<bool, Denied> {
        match &self.0.tokens {
            Tokens::One(_) => Ok(false),
            Tokens::File(_) if self.0.exposed => Ok(false),
            Tokens::File(file) => file.is_empty().map_err(|error| Denied::Broken(error.to_string())),
        }
    }

    /// Whether a connection has the certificate that users must have.
    pub(crate) fn certified(&self, peer: &Peer) -> Result<(), Denied> {
        if self.0.certificate && !peer.certified { Err(Denied::NoCertificate) } else { Ok(()) }
    }

    /// Who asks, with at least the role that it takes: by certificate and by the token of the header
    /// `authorization`. Refusals are counted, and told to the log with the address that they went to.
    pub(crate) fn admit(&self, headers: &HeaderMap, peer: &Peer, needed: Role) -> Result<User, Denied> {
        self.judge(headers, peer, needed).inspect_err(|denied| self.tell(peer.address, denied))
    }

    fn judge(&self, headers: &HeaderMap, peer: &Peer, needed: Role) -> Result<User, Denied> {
        self.certified(peer)?;
        let user = match bearer(headers) {
            Some(token) => self.holder(&Secret::of(token))?,
            None if self.is_open()? => User::anybody(),
            None => return Err(Denied::NoToken),
        };
        peer.trust();
        suffices(user, needed)
    }

    /// Counts a refusal, and writes it down.
    pub(crate) fn tell(&self, address: SocketAddr, denied: &Denied) {
        self.0.refusals.count(denied.reason());
        tracing::warn!("refused {address}: {denied}");
    }

    /// Where refusals are counted.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }
}

/// The user, if the role is enough.
pub(crate) fn suffices(user: User, needed: Role) -> Result<User, Denied> {
    if user.role >= needed {
        return Ok(user);
    }
    let name = user.name.unwrap_or_default();
    Err(Denied::Role { needed, name, has: user.role })
}

/// The token of the header `authorization: Bearer TOKEN`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())])
    }

    fn access(file: &TokenFile, exposed: bool, certificate: bool) -> Access {
        Access::new(Tokens::File(file.clone()), exposed, certificate, Refusals::default())
    }

    #[test]
    fn without_tokens_only_a_local_coordinator_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::of(folder.path());
        let peer = Peer::of("127.0.0.1:1".parse().unwrap());
        let admit = |access: Access, text: Option<&str>, role| {
            access.admit(&text.map(headers).unwrap_or_default(), &peer, role)
        };
        assert_eq!(admit(access(&file, false, false), None, Role::Admin), Ok(User::anybody()));
        assert_eq!(admit(access(&file, true, false), None, Role::Read), Err(Denied::NoToken));

        let token = file.create("ada", Role::Submit).unwrap();
        let local = access(&file, false, false);
        assert_eq!(admit(local.clone(), None, Role::Read), Err(Denied::NoToken), "a token closes the door");
        let user = User { name: Some("ada".into()), role: Role::Submit };
        assert_eq!(admit(local.clone(), Some(&format!("bearer {token}")), Role::Submit), Ok(user));
        for wrong in [format!("Bearer {token}0"), "Bearer ".into(), format!("Bearer x{}", &token[1..])] {
            assert_eq!(admit(local.clone(), Some(&wrong), Role::Read), Err(Denied::WrongToken), "{wrong}");
        }
        assert_eq!(admit(local.clone(), Some(&format!("Basic {token}")), Role::Read), Err(Denied::NoToken));
        let denied = admit(local.clone(), Some(&format!("Bearer {token}")), Role::Admin).unwrap_err();
        assert_eq!(denied.to_string(), "this needs a token of the role admin, and ada has the role submit");
        file.revoke("ada").unwrap();
        let gone = admit(local, Some(&format!("Bearer {token}")), Role::Read);
        assert_eq!(gone, Err(Denied::WrongToken), "at once, without a restart");
    }

    #[test]
    fn a_certificate_is_asked_for_on_top_of_a_token() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::of(folder.path());
        let token = file.create("ada", Role::Read).unwrap();
        let access = access(&file, true, true);
        let mut peer = Peer::of("10.0.0.1:1".parse().unwrap());
        let shown = headers(&format!("Bearer {token}"));
        assert_eq!(access.admit(&shown, &peer, Role::Read), Err(Denied::NoCertificate));
        peer.certified = true;
        assert_eq!(access.admit(&HeaderMap::new(), &peer, Role::Read), Err(Denied::NoToken));
        assert!(access.admit(&shown, &peer, Role::Read).is_ok());
    }

    #[test]
    fn tokens_that_cannot_be_read_let_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("tokens.json"), "{").unwrap();
        let access = access(&TokenFile::of(folder.path()), false, false);
        let peer = Peer::of("127.0.0.1:1".parse().unwrap());
        let denied = access.admit(&HeaderMap::new(), &peer, Role::Read).unwrap_err();
        assert!(matches!(denied, Denied::Broken(_)), "{denied}");
    }

    #[test]
    fn a_submitter_changes_only_what_is_theirs() {
        let user = |role| User { name: Some("ada".into()), role };
        assert!(user(Role::Submit).may_change(Some("ada")) && !user(Role::Submit).may_change(Some("bob")));
        assert!(!user(Role::Submit).may_change(None), "a job from before there were tokens is nobody's");
        assert!(user(Role::Admin).may_change(Some("bob")) && !user(Role::Read).may_change(Some("ada")));
        assert!(User::anybody().may_change(None));
    }
}
