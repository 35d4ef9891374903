//! When ranks may begin.

/// What a rank says it has; all ranks must have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Having {
    /// Hash of the parameters' layout.
    pub layout: String,
    /// Hash of the features.
    pub data: String,
    /// What training starts from: empty, or step and hash of a checkpoint.
    pub start: String,
}

/// Checks that all ranks have the same. Gives a sentence about who differs from rank 0, and in what.
pub(crate) fn disagreement(ready: &[Having]) -> Option<String> {
    let first = ready.first()?;
    let who = |differs: &dyn Fn(&Having) -> bool| {
        let ranks =
            ready.iter().enumerate().filter(|(_, having)| differs(having)).map(|(rank, _)| rank.to_string());
        ranks.collect::<Vec<_>>().join(", ")
    };
    let sentences: Vec<String> = [
        ("the parameters' layout", who(&|having| having.layout != first.layout)),
        ("the features", who(&|having| having.data != first.data)),
        ("the checkpoint to go on from", who(&|having| having.start != first.start)),
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
        let having = |a: &str, b: &str, c: &str| Having { layout: a.into(), data: b.into(), start: c.into() };
        assert_eq!(disagreement(&[having("l", "d", ""), having("l", "d", "")]), None);
        let all = [having("l", "d", "10 a"), having("l", "x", "10 a"), having("m", "x", "8 b")];
        assert_eq!(
            disagreement(&all).unwrap(),
            "rank 2 differs from rank 0 in the parameters' layout; rank 1, 2 differs from rank 0 in the features; \
             rank 2 differs from rank 0 in the checkpoint to go on from"
        );
    }
}
