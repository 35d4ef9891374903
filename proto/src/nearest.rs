//! What a slip of the keyboard was most likely meant to be.

/// The name among `known` that `word` is most likely a slip of; `None` when it is like none of them. A name
/// that holds the word, or is held by it, counts as near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = |distance: usize, name: &str| {
        distance <= 1 + name.len() / 4 || name.contains(word) || word.contains(name)
    };
    known
        .into_iter()
        .map(|name| (edits(word, name), name))
        .filter(|(distance, name)| near(*distance, name))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's distance: the fewest letters to insert, delete or replace that turn `a` into `b`.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_edits_win_and_strangers_are_told_apart() {
        let known = ["epochs", "steps", "batch_size"];
        assert_eq!(nearest("epoch", known), Some("epochs"));
        assert_eq!(nearest("stpes", known), Some("steps"));
        assert_eq!(nearest("batch", known), Some("batch_size"), "the beginning of a name is enough");
        assert_eq!(nearest("learning", known), None);
    }

    #[test]
    fn distances() {
        for (a, b, distance) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!((edits(a, b), edits(b, a)), (distance, distance), "{a} {b}");
        }
    }
}
