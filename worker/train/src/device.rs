//! Steps on a device that works behind the host: a GPU.
//!
//! The host only says what is to be computed, and is ahead of the device. It waits once in a step, between the backward
//! pass and the update, for one small copy: the step's header and the norms of the gradients. Gradients, moments and
//! weights stay on the device. The mathematics is that of [`crate::step`]; nothing in here is about CUDA alone, so the
//! tests run it on the CPU, beside the other.
//!
//! | module | what it holds |
//! |---|---|
//! | [`mod@step`] | one optimizer step |
//! | [`adamw`] | the update, as operations on whole stages |
//! | [`exchange`] | the sum over ranks |

pub mod adamw;
pub mod exchange;
pub mod step;

pub use adamw::DeviceMoments;
pub use exchange::Exchange;
pub use step::DeviceStepper;
