//! How much a coordinator takes in.

use std::time::Duration;

/// How much a coordinator takes in, from whomever. What is beyond is refused with a sentence, and counted.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest message of a call, in bytes.
    pub message_bytes: usize,
    /// Largest spec, in bytes of JSON.
    pub spec_bytes: usize,
    /// How many jobs may wait for their turn.
    pub queued_jobs: usize,
    /// How much of a rank's output is kept, in bytes: of more, the newest.
    pub log_bytes: u64,
    /// How much of a job's results and model is taken from a machine whose output folder the coordinator does not see, in
    /// bytes.
    pub results_bytes: u64,
    /// Connections at once, to each of the addresses that are listened on.
    pub connections: usize,
    /// The same from one address; of IPv6, from one network of 64 bits.
    pub connections_per_address: usize,
    /// Within what a new connection must have said who it is and what it wants.
    pub first_request: Duration,
    /// How long a connection may stay open without a request.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 16 << 20,
            spec_bytes: 1 << 20,
            queued_jobs: 1000,
            log_bytes: 256 << 20,
            results_bytes: 4 << 30,
            connections: 512,
            connections_per_address: 256,
            // Fixed: strangers have no job whose patience it could be.
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(600),
        }
    }
}
