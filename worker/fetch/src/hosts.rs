//! Every public host that the project knows, and how the environment replaces it.

use std::fmt;

use crate::folders::Folders;

/// The public model hub, used unless `HF_ENDPOINT` names a mirror.
pub const MODEL_HUB: &str = "https://huggingface.co";

/// The folder of SQuAD's official files, with a slash between it and a file's name.
pub const SQUAD: &str = "https://rajpurkar.github.io/SQuAD-explorer/dataset";

/// Names a mirror of the model hub.
pub const ENDPOINT_VARIABLE: &str = "HF_ENDPOINT";
/// Holds the access token for private and gated repositories.
pub const TOKEN_VARIABLE: &str = "HF_TOKEN";
/// Refuses every network access when set to 1, true, yes or on.
pub const OFFLINE_VARIABLE: &str = "HF_HUB_OFFLINE";

/// A model hub and how it may be used.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Base address, without a slash at its end.
    pub endpoint: String,
    /// Access token, sent to the endpoint's own host and nowhere else.
    pub token: Option<Token>,
    /// Whether network access is refused.
    pub offline: bool,
}

impl Default for Hub {
    fn default() -> Self {
        Self::at(MODEL_HUB)
    }
}

impl Hub {
    /// A hub at `endpoint`, reachable, without a token.
    pub fn at(endpoint: &str) -> Self {
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token: None, offline: false }
    }

    /// The hub that this process's environment describes. Without a token in it, the one is taken that logging
    /// in with the hub's own client has stored.
    pub fn from_env() -> Self {
        let mut hub = Self::from_lookup(|name| std::env::var(name).ok());
        hub.token = hub.token.or_else(|| Folders(|name: &str| std::env::var_os(name)).stored_token());
        hub
    }

    /// The hub that the variables found by `lookup` describe. Blank values count as unset.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let mut hub = set(ENDPOINT_VARIABLE).map_or_else(Self::default, |endpoint| Self::at(&endpoint));
        hub.token = set(TOKEN_VARIABLE).map(Token);
        hub.offline = set(OFFLINE_VARIABLE)
            .is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        hub
    }

    /// Address of `file` in `repository` at `revision`.
    pub fn file_url(&self, repository: &str, revision: &str, file: &str) -> String {
        format!("{}/{repository}/resolve/{}/{file}", self.endpoint, escaped(revision))
    }
}

/// An access token; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Wraps the token's text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(hidden)")
    }
}

/// `text` as one segment of a path: a revision may hold slashes (`refs/pr/1`).
pub(crate) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(pairs: &[(&str, &str)]) -> Hub {
        Hub::from_lookup(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn an_empty_environment_means_the_public_hub() {
        let hub = hub(&[("HF_ENDPOINT", " "), ("HF_TOKEN", "")]);
        assert_eq!(hub.endpoint, MODEL_HUB);
        assert!(hub.token.is_none() && !hub.offline);
    }

    #[test]
    fn variables_replace_endpoint_token_and_reach() {
        let hub = hub(&[
            ("HF_ENDPOINT", "http://mirror:81/hub/"),
            ("HF_TOKEN", "secret"),
            ("HF_HUB_OFFLINE", "True"),
        ]);
        assert_eq!(hub.endpoint, "http://mirror:81/hub");
        assert_eq!(hub.token, Some(Token::new("secret")));
        assert!(hub.offline);
        assert!(!format!("{hub:?}").contains("secret"));
    }

    #[test]
    fn a_revision_is_one_segment_of_the_address() {
        let url = Hub::at("http://h").file_url("a/b", "refs/pr/1", "config.json");
        assert_eq!(url, "http://h/a/b/resolve/refs%2Fpr%2F1/config.json");
    }
}
