//! The file of tokens in the state folder: names, roles and hashes. The tokens themselves are nowhere.
//!
//! A coordinator that runs reads the file again when it has changed, so that a revoked token ends at once.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Role, Secret, random};

/// Name of the file.
const FILE: &str = "tokens.json";
/// First characters of a token, by which programs that look for lost secrets find it.
const PREFIX: &str = "squad_";
/// Longest name.
const LONGEST: usize = 63;

/// Why tokens cannot be read or changed.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not what was written.
    #[error("{}: {problem}; restore it, or remove it and make all tokens anew", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is such a token.
    #[error("there is a token {0} already; revoke it first, or choose another name")]
    Taken(String),
    /// There is no such token.
    #[error("there is no token {0}; squad-coordinator token list shows all")]
    Unknown(String),
    /// The name cannot be one.
    #[error(
        "{0:?} is no name for a token: write 1 to {LONGEST} lower-case letters, digits, dots and hyphens"
    )]
    Name(String),
}

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRow {
    /// Whose, or for what.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// When it was made.
    pub created_unix_ms: u64,
    /// SHA-256 of the token.
    sha256: String,
}

/// What is in the file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    tokens: Vec<TokenRow>,
}

/// A token that is known: its name, its role, its hash.
type Known = (String, Role, Secret);

/// What tells one version of the file from another: device, inode, size and moment.
type Version = Option<(u64, u64, u64, i64, i64)>;

/// What was read last.
#[derive(Default)]
struct Kept {
    version: Version,
    rows: Arc<Vec<Known>>,
    /// Whether anything was read yet.
    read: bool,
}

/// The tokens of a coordinator. Cloning shares what was read.
#[derive(Clone)]
pub struct TokenFile {
    path: PathBuf,
    kept: Arc<Mutex<Kept>>,
}

impl TokenFile {
    /// The file of a state folder; it need not be there.
    pub fn of(state: &Path) -> Self {
        Self { path: state.join(FILE), kept: Arc::default() }
    }

    /// Makes a token, which only the answer holds.
    ///
    /// # Errors
    /// When the name is taken or is none, or the file cannot be read or written.
    pub fn create(&self, name: &str, role: Role) -> Result<String, TokenError> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        if name.is_empty() || name.len() > LONGEST || !name.bytes().all(letter) {
            return Err(TokenError::Name(name.to_owned()));
        }
        let random = random(32).map_err(|source| self.io(source))?;
        let token = format!("{PREFIX}{random}");
        self.change(|content| {
            if content.tokens.iter().any(|row| row.name == name) {
                return Err(TokenError::Taken(name.to_owned()));
            }
            let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
            let sha256 = Secret::of(&token).to_hex();
            content.tokens.push(TokenRow { name: name.to_owned(), role, created_unix_ms: created, sha256 });
            Ok(())
        })?;
        Ok(token)
    }

    /// All tokens, oldest first.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn list(&self) -> Result<Vec<TokenRow>, TokenError> {
        Ok(self.read()?.tokens)
    }

    /// Ends a token.
    ///
    /// # Errors
    /// When there is none of that name, or the file cannot be read or written.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        self.change(|content| {
            let before = content.tokens.len();
            content.tokens.retain(|row| row.name != name);
            if content.tokens.len() < before { Ok(()) } else { Err(TokenError::Unknown(name.to_owned())) }
        })
    }

    /// Name and role of the token of a hash; none when nobody has it. All are compared, whichever it is.
    pub(super) fn find(&self, token: &Secret) -> Result<Option<(String, Role)>, TokenError> {
        let rows = self.rows()?;
        let mut found = None;
        for (name, role, secret) in rows.iter() {
            if secret.equals(token) {
                found = Some((name.clone(), *role));
            }
        }
        Ok(found)
    }

    /// Whether there is no token.
    pub(super) fn is_empty(&self) -> Result<bool, TokenError> {
        Ok(self.rows()?.is_empty())
    }

    fn io(&self, source: std::io::Error) -> TokenError {
        TokenError::Io { path: self.path.clone(), source }
    }

    /// The tokens as they are now; the file is read only when it is another than last time.
    fn rows(&self) -> Result<Arc<Vec<Known>>, TokenError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let version = match fs::metadata(&self.path) {
            Ok(m) => Some((m.dev(), m.ino(), m.size(), m.mtime(), m.mtime_nsec())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(self.io(error)),
        };
        if !kept.read || kept.version != version {
            let rows = self.read()?.tokens.into_iter().map(|row| {
                let secret = Secret::from_hex(&row.sha256)
                    .ok_or_else(|| self.unreadable(format!("the hash of {} is none", row.name)))?;
                Ok((row.name, row.role, secret))
            });
            *kept = Kept { rows: Arc::new(rows.collect::<Result<_, TokenError>>()?), version, read: true };
        }
        Ok(Arc::clone(&kept.rows))
    }

    fn unreadable(&self, problem: String) -> TokenError {
        TokenError::Unreadable { path: self.path.clone(), problem }
    }

    fn read(&self) -> Result<Content, TokenError> {
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| self.unreadable(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Content::default()),
            Err(error) => Err(self.io(error)),
        }
    }

    /// Changes the file: one change at a time, and a reader sees all of it or nothing.
    fn change(&self, work: impl FnOnce(&mut Content) -> Result<(), TokenError>) -> Result<(), TokenError> {
        let io = |source| self.io(source);
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(io)?;
        let private =
            |path: &Path| OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let lock = private(&self.path.with_extension("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        let mut content = self.read()?;
        work(&mut content)?;
        let bytes = serde_json::to_vec_pretty(&content).map_err(|error| self.io(error.into()))?;
        let temporary = self.path.with_extension("tmp");
        let write = || {
            // Another's leftover may have other rights.
            match fs::remove_file(&temporary) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = private(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_token_is_kept_as_a_hash_in_a_file_of_ones_own() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::of(&folder.path().join("state"));
        assert!(file.is_empty().unwrap() && file.list().unwrap().is_empty());
        let token = file.create("ci", Role::Submit).unwrap();
        assert!(token.starts_with("squad_") && token.len() == 6 + 64, "{token}");
        let path = folder.path().join("state/tokens.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&token[6..]) && text.contains("\"role\": \"submit\""), "{text}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(file.find(&Secret::of(&token)).unwrap(), Some(("ci".into(), Role::Submit)));
        assert_eq!(file.find(&Secret::of("squad_")).unwrap(), None);
    }

    #[test]
    fn another_process_change_is_seen_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (daemon, tool) = (TokenFile::of(folder.path()), TokenFile::of(folder.path()));
        assert!(daemon.is_empty().unwrap());
        let first = tool.create("a", Role::Read).unwrap();
        assert!(daemon.find(&Secret::of(&first)).unwrap().is_some());
        let second = tool.create("b", Role::Admin).unwrap();
        tool.revoke("a").unwrap();
        assert!(
            daemon.find(&Secret::of(&first)).unwrap().is_none()
                && daemon.find(&Secret::of(&second)).unwrap().is_some()
        );
        let names: Vec<String> = tool.list().unwrap().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["b"]);
    }

    #[test]
    fn names_are_short_plain_and_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = TokenFile::of(folder.path());
        file.create("a.b-1", Role::Read).unwrap();
        assert!(matches!(file.create("a.b-1", Role::Read), Err(TokenError::Taken(_))));
        for bad in ["", "A", "a b", "ä", &"a".repeat(64)] {
            assert!(matches!(file.create(bad, Role::Read), Err(TokenError::Name(_))), "{bad}");
        }
        assert!(matches!(file.revoke("x"), Err(TokenError::Unknown(_))));
    }

    #[test]
    fn tokens_made_at_once_are_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for number in 0..8 {
                let file = TokenFile::of(folder.path());
                scope.spawn(move || file.create(&format!("t{number}"), Role::Read).unwrap());
            }
        });
        assert_eq!(TokenFile::of(folder.path()).list().unwrap().len(), 8);
    }
}
