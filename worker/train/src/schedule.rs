//! The learning rate as a pure function of the step.

use squad_proto::spec::Train;

/// Linear warm-up to the peak, then linear decay to 0 at the last step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    peak: f64,
    warmup: u64,
    steps: u64,
}

impl Schedule {
    /// The schedule of a run of `steps` optimizer steps.
    pub fn new(train: &Train, steps: u64) -> Self {
        // The small number keeps 0.1 of 280 at 28, whatever the product's last bit is.
        let share = (steps as f64 * train.warmup_ratio + 1e-9) as u64;
        Self { peak: train.learning_rate, warmup: train.warmup_steps.unwrap_or(share).min(steps), steps }
    }

    /// The rate of optimizer step `step`, counted from 1: the replaced program's, so that the last step's
    /// rate is 0 and the first one's is not.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            self.peak * step as f64 / self.warmup as f64
        } else if self.steps == self.warmup {
            self.peak
        } else {
            self.peak
                * (1.0 - (step.min(self.steps) - self.warmup) as f64 / (self.steps - self.warmup) as f64)
        }
    }

    /// Steps over which the rate rises.
    pub fn warmup(&self) -> u64 {
        self.warmup
    }
}

/// Optimizer steps of a run: `train.steps`, or so many epochs of `per_epoch` steps.
pub fn total_steps(train: &Train, per_epoch: u64) -> u64 {
    train.steps.unwrap_or(((train.epochs * per_epoch as f64 + 1e-9) as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_replaced_program() {
        // max_update 5, base 1e-2, 2 warm-up steps: the rates that it logged.
        let train = Train { learning_rate: 1e-2, warmup_steps: Some(2), ..Train::default() };
        let schedule = Schedule::new(&train, 5);
        for (step, rate) in [(1, 5e-3), (2, 1e-2), (3, 6.666_666_67e-3), (4, 3.333_333_33e-3), (5, 0.0)] {
            assert!((schedule.rate(step) - rate).abs() < 1e-11, "step {step}: {}", schedule.rate(step));
        }
    }

    #[test]
    fn edges() {
        let train = Train { learning_rate: 1.0, warmup_ratio: 0.1, ..Train::default() };
        assert_eq!(Schedule::new(&train, 280).warmup(), 28);
        assert_eq!(Schedule::new(&train, 1).rate(1), 0.0);
        let all = Train { learning_rate: 1.0, warmup_ratio: 1.0, ..Train::default() };
        assert_eq!(Schedule::new(&all, 4).rate(4), 1.0);
        assert_eq!(total_steps(&Train { epochs: 0.5, ..Train::default() }, 9), 4);
        assert_eq!(total_steps(&Train { steps: Some(7), ..Train::default() }, 9), 7);
    }
}
