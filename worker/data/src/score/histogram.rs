//! How null odds are spread over the questions.

/// The number of bars, as in the official script.
const BARS: usize = 20;

/// Null odds of some questions, counted in equally wide ranges of 0 to 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OddsHistogram {
    /// Bar `i` counts null odds from `i / 20` on, below `(i + 1) / 20`; the last one counts 1 too.
    pub bars: [usize; BARS],
    /// Null odds below 0 or above 1, which are in no bar.
    pub outside: usize,
}

impl OddsHistogram {
    /// Counts; `None` where there is nothing to count.
    pub(super) fn of(odds: impl Iterator<Item = f64>) -> Option<Self> {
        // NumPy's bounds, to the last bit: a multiple of the width, not a fraction.
        let bounds: [f64; BARS - 1] = std::array::from_fn(|i| (i + 1) as f64 * (1.0 / BARS as f64));
        let mut histogram = Self { bars: [0; BARS], outside: 0 };
        for value in odds {
            if (0.0..=1.0).contains(&value) {
                histogram.bars[bounds.partition_point(|bound| *bound <= value)] += 1;
            } else {
                histogram.outside += 1;
            }
        }
        (histogram.questions() > 0).then_some(histogram)
    }

    /// All questions that were counted, in bars or outside.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.bars.iter().sum::<usize>() + self.outside
    }
}
