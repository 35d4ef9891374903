//! The folders that the environment names: the hub's own client's, and ours beside them.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::hosts::Token;

/// The folder of the hub's own client, with its token and its cache; models of ours go below it, too.
const HOME_VARIABLE: &str = "HF_HOME";
/// The hub's own client's cache of repositories, where it is not `hub` in its folder.
const HUB_CACHE_VARIABLE: &str = "HF_HUB_CACHE";
/// The file that holds a stored access token, where it is not `token` in the folder of the hub's own client.
const TOKEN_PATH_VARIABLE: &str = "HF_TOKEN_PATH";

/// Where fetched models are kept: `squadron/models` in the folder that `HF_HOME` names, else in the user's
/// cache folder (`XDG_CACHE_HOME`, or `.cache` in the home folder), else in that for temporary files.
pub fn model_cache() -> PathBuf {
    Folders(|name: &str| std::env::var_os(name)).models()
}

/// Folders found by looking variables up. Empty values count as unset.
pub(crate) struct Folders<F>(pub(crate) F);

impl<F: Fn(&str) -> Option<OsString>> Folders<F> {
    fn named(&self, variable: &str) -> Option<PathBuf> {
        (self.0)(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn user_cache(&self) -> Option<PathBuf> {
        self.named("XDG_CACHE_HOME").or_else(|| self.named("HOME").map(|home| home.join(".cache")))
    }

    fn hub_home(&self) -> Option<PathBuf> {
        self.named(HOME_VARIABLE).or_else(|| self.user_cache().map(|cache| cache.join("huggingface")))
    }

    /// The cache of the hub's own client.
    pub(crate) fn hub_cache(&self) -> Option<PathBuf> {
        self.named(HUB_CACHE_VARIABLE).or_else(|| self.hub_home().map(|home| home.join("hub")))
    }

    fn models(&self) -> PathBuf {
        let base = self.named(HOME_VARIABLE).or_else(|| self.user_cache());
        base.unwrap_or_else(std::env::temp_dir).join("squadron/models")
    }

    /// The token that logging in with the hub's own client has stored. A file that cannot be read is none: what
    /// is public can be fetched without.
    pub(crate) fn stored_token(&self) -> Option<Token> {
        let path =
            self.named(TOKEN_PATH_VARIABLE).or_else(|| self.hub_home().map(|home| home.join("token")))?;
        let text = std::fs::read_to_string(path).ok()?;
        let text = text.trim();
        // What cannot stand in a header's line is no token.
        let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Token::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn folders(pairs: Pairs<'_>) -> Folders<impl Fn(&str) -> Option<OsString>> {
        Folders(|name: &str| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(*value))
        })
    }

    #[test]
    fn the_nearest_variable_names_the_folder() {
        let cases: [(Pairs<'_>, &str, &str); 4] = [
            (&[("HOME", "/h")], "/h/.cache/squadron/models", "/h/.cache/huggingface/hub"),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/squadron/models", "/x/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/f")], "/f/squadron/models", "/f/hub"),
            (&[("HOME", "/h"), ("HF_HOME", ""), ("HF_HUB_CACHE", "/c")], "/h/.cache/squadron/models", "/c"),
        ];
        for (pairs, models, hub) in cases {
            assert_eq!(folders(pairs).models(), PathBuf::from(models), "{pairs:?}");
            assert_eq!(folders(pairs).hub_cache(), Some(PathBuf::from(hub)), "{pairs:?}");
        }
        assert_eq!(folders(&[]).hub_cache(), None);
    }

    #[test]
    fn a_stored_token_is_found() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().to_str().unwrap();
        let token = || folders(&[("HF_HOME", path)]).stored_token();
        assert_eq!(token(), None);
        std::fs::write(home.path().join("token"), " hf_abc\n").unwrap();
        assert_eq!(token(), Some(Token::new("hf_abc")));
        let elsewhere = home.path().join("other");
        std::fs::write(&elsewhere, "two\nlines").unwrap();
        let path = elsewhere.to_str().unwrap();
        assert_eq!(folders(&[("HF_TOKEN_PATH", path)]).stored_token(), None);
    }
}
