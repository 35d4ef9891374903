//! `.params` files of the replaced program, in both of its formats.

use crate::error::Fault;
use crate::view::View;

pub(crate) mod archive;
pub(crate) mod list;
mod npy;

/// An array of a `.params` file.
type Array<'a> = Result<View<'a>, Fault>;
