//! GPUs, as far as they are no business of libtorch: the driver, libtorch's CUDA libraries, and which worker gets
//! which device.
//!
//! One binary serves machines with and without GPUs. It links libtorch's CPU half; where a job is to run on a GPU, the
//! CUDA half is loaded before libtorch's first use of a device (libtorch looks for its CUDA hooks once, and remembers
//! that there were none). Everything that can be missing has an error of its own, which says how to mend it.
//!
//! | module | what it holds |
//! |---|---|
//! | [`driver`] | what NVIDIA's driver says: its version, devices, who reaches whose memory (`unsafe`) |
//! | [`libraries`] | where libtorch's CUDA libraries are looked for |
//! | `load` | loads them (`unsafe`) |
//! | [`choice`] | which device a worker gets |

#![deny(unsafe_code)]

pub mod choice;
pub mod driver;
mod error;
pub mod libraries;
mod load;

pub use choice::{Choice, Wish, choose};
pub use driver::{Driver, Gpu};
pub use error::DeviceError;
pub use libraries::{Places, loaded_from};
pub use load::load;
