//! The two gRPC services: decode, ask, encode; no decision.

mod attend;
mod deliver;
mod jobs;
mod workers;

pub(crate) use jobs::JobsService;
pub(crate) use workers::WorkersService;
