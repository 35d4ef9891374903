//! PyTorch's files: a pickle that describes the tensors, and their storages.
//!
//! | module | what it holds |
//! |---|---|
//! | `archive` | the present form: a zip archive |
//! | `older` | the form before PyTorch 1.6: pickles and storages one after the other |
//! | `pickle` | the instructions of a pickle, as far as state dicts need them |
//! | `globals` | what a pickle may name, and what that means |
//! | `objects` | what a pickle builds |

pub(crate) mod archive;
mod globals;
mod objects;
pub(crate) mod older;
mod pickle;
