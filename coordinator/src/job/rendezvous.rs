//! When ranks may begin.

/// What a rank says it has; all ranks must have the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Having {
    /// Hash of the parameters' layout.
    pub layout: String,
    /// Hash of the features.
    pub data: String,
    /// What is to be evaluated, where that is the whole task.
    pub evaluated: String,
    /// The newest whole checkpoint that it sees in its output folder. Ranks need not see the same.
    pub held: Option<Held>,
    /// Hash of the weights that it starts from where it holds no checkpoint.
    pub weights: String,
    /// The files that it read: field and path, and their hash. They need not be the same where the features are; they
    /// say why those are not.
    pub contents: Vec<(String, String)>,
}

/// A checkpoint that a rank holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Its step.
    pub step: u64,
    /// Equal for checkpoints that training goes on alike from.
    pub identity: String,
}

/// Where a life goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The newest checkpoint that anybody holds.
    pub checkpoint: Held,
    /// The lowest rank that holds it.
    pub holder: u32,
    /// The ranks that do not, and get it from there.
    pub lacking: Vec<u32>,
}

/// The newest checkpoint that any rank holds; of two of the same step, that of the lower rank.
pub(crate) fn origin(ready: &[Having]) -> Option<Origin> {
    let held = |rank: usize| ready.get(rank).and_then(|having| having.held.as_ref());
    let newest = (0..ready.len()).filter_map(|rank| Some(held(rank)?.step)).max()?;
    let holder = (0..ready.len()).find(|rank| held(*rank).is_some_and(|one| one.step == newest))?;
    let checkpoint = held(holder)?.clone();
    let lacks = |rank: &usize| held(*rank) != Some(&checkpoint);
    let lacking = (0..ready.len()).filter(lacks).map(|rank| rank as u32).collect();
    Some(Origin { checkpoint, holder: holder as u32, lacking })
}

impl Origin {
    /// What is worth saying of it: nothing where all ranks see the checkpoint.
    pub(crate) fn news(&self) -> Option<String> {
        let (step, holder) = (self.checkpoint.step, self.holder);
        let ranks: Vec<String> = self.lacking.iter().map(u32::to_string).collect();
        (!ranks.is_empty()).then(|| {
            let them = ranks.join(", ");
            format!("goes on from the checkpoint of step {step}, which rank {holder} sends to rank {them}")
        })
    }
}

/// What is made of the files that ranks read.
const FEATURES: &str = "the features";

/// Checks that all ranks have the same. Gives a sentence about who differs from rank 0, and in what.
pub(crate) fn disagreement(ready: &[Having]) -> Option<String> {
    let first = ready.first()?;
    // A checkpoint takes the place of whatever weights a rank has.
    let fresh = origin(ready).is_none();
    let who = |differs: &dyn Fn(&Having) -> bool| -> Vec<usize> {
        (0..ready.len()).filter(|rank| ready.get(*rank).is_some_and(differs)).collect()
    };
    let mut sentences = Vec::new();
    for (what, differing) in [
        ("the parameters' layout", who(&|having| having.layout != first.layout)),
        (FEATURES, who(&|having| having.data != first.data)),
        ("the checkpoints to evaluate", who(&|having| having.evaluated != first.evaluated)),
        ("the model's weights", who(&|having| fresh && having.weights != first.weights)),
    ] {
        if differing.is_empty() {
            continue;
        }
        let ranks = differing.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
        let mut sentence = format!("rank {ranks} differs from rank 0 in {what}");
        let files = other_files(ready, &differing);
        if what == FEATURES && !files.is_empty() {
            sentence += &format!("; another file on its machine: {}", files.join(", "));
        }
        sentences.push(sentence);
    }
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// The files in which one of these ranks differs from rank 0.
fn other_files(ready: &[Having], ranks: &[usize]) -> Vec<String> {
    let Some(first) = ready.first() else { return Vec::new() };
    let differs = |entry: &&(String, String)| {
        let (what, sha256) = entry;
        ranks
            .iter()
            .filter_map(|rank| ready.get(*rank))
            .any(|having| having.contents.iter().any(|(other, theirs)| other == what && theirs != sha256))
    };
    first.contents.iter().filter(differs).map(|(what, _)| what.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_who_differs_and_in_what() {
        let having = |a: &str, b: &str, c: &str| Having {
            layout: a.into(),
            data: b.into(),
            evaluated: c.into(),
            ..Having::default()
        };
        assert_eq!(disagreement(&[having("l", "d", ""), having("l", "d", "")]), None);
        let all = [having("l", "d", "10 a"), having("l", "x", "10 a"), having("m", "x", "8 b")];
        assert_eq!(
            disagreement(&all).unwrap(),
            "rank 2 differs from rank 0 in the parameters' layout; rank 1, 2 differs from rank 0 in the features; \
             rank 2 differs from rank 0 in the checkpoints to evaluate"
        );
    }

    #[test]
    fn another_file_is_named_with_its_rank() {
        let having = |data: &str, train: &str, dev: &str| Having {
            data: data.into(),
            contents: [("data.train (/t.json)", train), ("data.dev (/d.json)", dev)]
                .map(|(what, sha256)| (what.to_owned(), sha256.to_owned()))
                .into(),
            ..Having::default()
        };
        let all = [having("x", "1", "2"), having("x", "1", "2"), having("y", "3", "2")];
        assert_eq!(
            disagreement(&all).unwrap(),
            "rank 2 differs from rank 0 in the features; another file on its machine: data.train (/t.json)"
        );
        // What is cut from them is the same: a blank at the end, say.
        assert_eq!(disagreement(&[having("x", "1", "2"), having("x", "1", "5")]), None);
        // Files are not told by ranks that read none.
        let silent = Having { data: "z".into(), ..Having::default() };
        assert_eq!(
            disagreement(&[having("x", "1", "2"), silent]).unwrap(),
            "rank 1 differs from rank 0 in the features"
        );
    }

    #[test]
    fn weights_are_compared_where_no_checkpoint_takes_their_place() {
        let having = |weights: &str, held| Having { weights: weights.into(), held, ..Having::default() };
        let held = Some(Held { step: 1, identity: "a".into() });
        assert_eq!(
            disagreement(&[having("a", None), having("b", None)]).unwrap(),
            "rank 1 differs from rank 0 in the model's weights"
        );
        assert_eq!(disagreement(&[having("", held), having("b", None)]), None);
    }

    fn holding(held: &[Option<(u64, &str)>]) -> Vec<Having> {
        let held = held.iter().map(|one| one.map(|(step, id)| Held { step, identity: id.into() }));
        held.map(|held| Having { held, ..Having::default() }).collect()
    }

    #[test]
    fn the_newest_checkpoint_is_taken_whoever_holds_it() {
        assert_eq!(origin(&holding(&[None, None])), None);
        let all = [
            // Storage that all see.
            ([Some((20, "a")), Some((20, "a")), Some((20, "a"))], (20, "a", 0, vec![])),
            // Rank 0's machine is a new one.
            ([None, Some((20, "a")), None], (20, "a", 1, vec![0, 2])),
            // Rank 0 was away for a while.
            ([Some((10, "a")), Some((20, "b")), Some((20, "b"))], (20, "b", 1, vec![0])),
            // Of the same step, but not the same: one has to give way.
            ([Some((20, "a")), Some((20, "b")), None], (20, "a", 0, vec![1, 2])),
        ];
        for (held, (step, identity, holder, lacking)) in all {
            let origin = origin(&holding(&held)).unwrap();
            assert_eq!(origin.checkpoint, Held { step, identity: identity.into() }, "{held:?}");
            assert_eq!((origin.holder, &origin.lacking), (holder, &lacking), "{held:?}");
            assert_eq!(origin.news().is_none(), lacking.is_empty());
        }
        let news = origin(&holding(&[None, Some((20, "a")), None])).unwrap().news();
        assert_eq!(news.unwrap(), "goes on from the checkpoint of step 20, which rank 1 sends to rank 0, 2");
    }

    proptest! {
        #[test]
        fn nobody_goes_back(held in prop::collection::vec(prop::option::of((0u64..5, "[ab]")), 1..6)) {
            let held: Vec<_> = held.iter().map(|one| one.as_ref().map(|(step, id)| (*step, id.as_str()))).collect();
            let newest = held.iter().flatten().map(|(step, _)| *step).max();
            let origin = origin(&holding(&held));
            prop_assert_eq!(origin.as_ref().map(|origin| origin.checkpoint.step), newest);
            if let Some(origin) = origin {
                prop_assert!(!origin.lacking.contains(&origin.holder));
                for (rank, one) in held.iter().enumerate() {
                    let same = one.is_some_and(|(step, id)| (step, id) == (origin.checkpoint.step, origin.checkpoint.identity.as_str()));
                    prop_assert_eq!(same, !origin.lacking.contains(&(rank as u32)));
                }
            }
        }
    }
}
