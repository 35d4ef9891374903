//! What came of the lives of a world's job.

/// What happened in a world, for the sum of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) succeeded: u64,
    pub(super) failed: u64,
    pub(super) cancelled: u64,
    pub(super) crashes: u64,
    pub(super) shutdowns: u64,
    pub(super) deaths: u64,
    pub(super) stalls: u64,
    pub(super) lives: u64,
    pub(super) smaller: u64,
}

impl Life {
    pub(super) fn counts(&self) -> [(&'static str, u64); 9] {
        [
            ("succeeded", self.succeeded),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
            ("crashes", self.crashes),
            ("shutdowns", self.shutdowns),
            ("deaths", self.deaths),
            ("stalls", self.stalls),
            ("lives", self.lives),
            ("smaller", self.smaller),
        ]
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.crashes += other.crashes;
        self.shutdowns += other.shutdowns;
        self.deaths += other.deaths;
        self.stalls += other.stalls;
        self.lives += other.lives;
        self.smaller += other.smaller;
    }
}
