//! When ranks may begin.

/// What a rank says it has: hashes of the parameters' layout and of the features.
pub(crate) type Hashes = (String, String);

/// Checks that all ranks have the same. Gives a sentence about who differs from rank 0, and in what.
pub(crate) fn disagreement(ready: &[Hashes]) -> Option<String> {
    let (layout, data) = ready.first()?;
    let who = |differs: &dyn Fn(&Hashes) -> bool| {
        let ranks =
            ready.iter().enumerate().filter(|(_, hashes)| differs(hashes)).map(|(rank, _)| rank.to_string());
        ranks.collect::<Vec<_>>().join(", ")
    };
    let sentences: Vec<String> = [
        ("the parameters' layout", who(&|hashes| hashes.0 != *layout)),
        ("the features", who(&|hashes| hashes.1 != *data)),
    ]
    .into_iter()
    .filter(|(_, ranks)| !ranks.is_empty())
    .map(|(what, ranks)| format!("rank {ranks} differs from rank 0 in {what}"))
    .collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_who_differs_and_in_what() {
        let hashes = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(disagreement(&[hashes("l", "d"), hashes("l", "d")]), None);
        let sentence = disagreement(&[hashes("l", "d"), hashes("l", "x"), hashes("m", "x")]).unwrap();
        assert_eq!(
            sentence,
            "rank 2 differs from rank 0 in the parameters' layout; rank 1, 2 differs from rank 0 in the features"
        );
    }
}
