//! Special tokens: their names in a folder's files, and their places in the vocabulary.

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer as Inner};

use super::folder::Folder;
use crate::DataError;

/// The id of the token that the folder names for `role`, else of the first of `usual` that exists.
pub(super) fn id(folder: &Folder, inner: &Inner, role: &str, usual: &[&str]) -> Result<u32, DataError> {
    if let Some(AddedToken { content, .. }) = named(folder, role, false) {
        return inner.token_to_id(&content).ok_or_else(|| {
            folder.error(format!("the vocabulary lacks {content:?}, which the folder names as its {role}"))
        });
    }
    usual.iter().find_map(|name| inner.token_to_id(name)).ok_or_else(|| {
        folder.error(format!("no {role}: the folder names none and the vocabulary has none of {usual:?}"))
    })
}

/// A special token's role and its name in folders that name none.
pub(super) struct Usual {
    pub(super) role: &'static str,
    pub(super) name: &'static str,
    /// Whether it takes the white space before it, unless the folder says otherwise.
    pub(super) takes_space: bool,
}

/// Makes the folder's special tokens, or else the `usual` ones, tokens that are found in a
/// text before anything else. A role whose token the vocabulary lacks stays empty: a new
/// id would have no row in the model's embedding.
pub(super) fn add(folder: &Folder, inner: &mut Inner, usual: &[Usual]) -> Result<(), DataError> {
    let mut tokens = appended(folder, inner)?;
    for Usual { role, name, takes_space } in usual {
        let token = named(folder, role, *takes_space)
            .unwrap_or_else(|| AddedToken::from(*name, true).lstrip(*takes_space));
        let known = inner.token_to_id(&token.content).is_some();
        // What was described by id is described best.
        if known && tokens.iter().all(|t| t.content != token.content) {
            tokens.push(token);
        }
    }
    inner.add_special_tokens(tokens).map_err(|e| folder.error(format!("special tokens: {e}")))?;
    Ok(())
}

/// The tokens of `added_tokens_decoder` in `tokenizer_config.json`, by ascending id. They
/// describe tokens of the vocabulary, or append to it without a gap.
fn appended(folder: &Folder, inner: &Inner) -> Result<Vec<AddedToken>, DataError> {
    let Some(entries) = folder.settings.get("added_tokens_decoder").and_then(Value::as_object) else {
        return Ok(Vec::new());
    };
    let mut tokens = entries
        .iter()
        .filter_map(|(id, entry)| Some((id.parse::<u32>().ok()?, described(entry, false)?)))
        .collect::<Vec<_>>();
    tokens.sort_by_key(|(id, _)| *id);
    let mut end = inner.get_vocab_size(true);
    for (id, token) in &tokens {
        let name = &token.content;
        match inner.token_to_id(name) {
            Some(known) if known == *id => {}
            None if *id as usize == end => end += 1,
            _ => {
                return Err(folder.error(format!(
                    "tokenizer_config.json gives {name:?} the id {id}, which does not fit the vocabulary; \
                     the two files belong to different models"
                )));
            }
        }
    }
    Ok(tokens.into_iter().map(|(_, token)| token).collect())
}

/// The token that the folder's files give a role.
fn named(folder: &Folder, role: &str, takes_space: bool) -> Option<AddedToken> {
    [&folder.names, &folder.settings].into_iter().find_map(|file| described(file.get(role)?, takes_space))
}

/// A token is written as a string or as an object that describes it.
fn described(entry: &Value, takes_space: bool) -> Option<AddedToken> {
    let content = entry.as_str().or_else(|| entry.get("content")?.as_str())?;
    let flag = |name: &str| entry.get(name).and_then(Value::as_bool);
    let on = |name: &str| flag(name).unwrap_or(false);
    let token = AddedToken::from(content, true).lstrip(flag("lstrip").unwrap_or(takes_space));
    Some(token.rstrip(on("rstrip")).single_word(on("single_word")).normalized(on("normalized")))
}
