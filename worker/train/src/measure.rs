//! Steps that are taken to be timed: those of training, by one process, on weights that mean nothing.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use squad_collective::{Background, Compression, Fence, RingListener, Topology, Transport};
use squad_model::inputs::computes_padding;
use squad_model::products::multiplied_as;
use squad_model::{EncoderConfig, HeadKind, Network, Precision};
use squad_proto::{Deadlines, JobSpec};
use tch::{Cuda, Device, Kind, Tensor};

use crate::engine::Engine;
use crate::error::TrainError;
use crate::portion::{Collator, OnDemand, Portions};
use crate::prefetch::Prefetch;
use crate::prepare::TrainSet;
use crate::schedule::Schedule;
use crate::trace::{Spent, Trace};

/// Seed of the weights. They only have to be neither zero nor too large.
const SEED: u64 = 1;

/// A step that was timed.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// How long it took.
    pub seconds: f64,
    /// Its windows.
    pub examples: u64,
    /// Their tokens.
    pub tokens: u64,
    /// The same with padding.
    pub padded_tokens: u64,
    /// Those of the two that layers computed.
    pub computed_tokens: u64,
    /// What the time was spent on.
    pub spent: Spent,
}

/// How many steps are taken.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Steps at the beginning that do not count.
    pub warm_up: usize,
    /// Steps that count, at least.
    pub least: usize,
    /// No step is begun after so many seconds if there are enough.
    pub seconds: f64,
    /// Whether batches are made beside the steps, as in training.
    pub prefetch: bool,
}

/// A network of this shape with weights as before training.
pub fn random_network(
    (config, json): (EncoderConfig, Map<String, Value>),
    head: HeadKind,
    precision: Precision,
    device: Device,
) -> Network {
    let mut network = Network::new(config, json, head, device);
    (0..network.stages().len()).for_each(|stage| network.initialise(stage, SEED));
    network.compute_in(precision);
    network
}

/// Takes these steps of a training set's order with the spec's recipe, as the only rank there is.
///
/// # Errors
/// Those of a step.
pub fn measure(
    spec: &JobSpec,
    network: &mut Network,
    (set, pad_id): (&TrainSet, i32),
    steps: Vec<u64>,
    limits: Limits,
) -> Result<Vec<Measured>, TrainError> {
    let collective = alone()?;
    let schedule = Schedule::new(&spec.train, steps.iter().copied().max().unwrap_or(1).saturating_add(1));
    let mut engine = Engine::new(spec, network, schedule, &collective)?;
    let collator = Collator::new(spec, network, pad_id, &collective);
    let mut take = |portions: &mut dyn Portions| -> Result<Vec<Measured>, TrainError> {
        let trace = Trace::adding_up();
        let mut measured = Vec::new();
        let begun = Instant::now();
        for (turn, step) in steps.iter().enumerate() {
            if measured.len() >= limits.least && begun.elapsed().as_secs_f64() > limits.seconds {
                break;
            }
            let started = Instant::now();
            let outcome = engine.take(*step, network, portions, (&collective, &trace), false)?;
            finish(network.device());
            let seconds = started.elapsed().as_secs_f64();
            let spent = trace.spent();
            if turn >= limits.warm_up {
                let header = outcome.header;
                measured.push(Measured {
                    seconds,
                    examples: header.examples,
                    tokens: header.tokens,
                    padded_tokens: header.padded_tokens,
                    computed_tokens: if computes_padding(network.device()) {
                        header.padded_tokens
                    } else {
                        header.tokens
                    },
                    spent,
                });
            }
        }
        Ok(measured)
    };
    if !limits.prefetch {
        return take(&mut OnDemand::new(collator, set));
    }
    std::thread::scope(|scope| take(&mut Prefetch::start(scope, collator, set, steps.iter().copied())?))
}

/// Waits until the device has done what it was told.
fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        Cuda::synchronize(index as i64);
    }
}

/// A collective of one rank.
fn alone() -> Result<Background, TrainError> {
    let listener = RingListener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    let topology = Topology {
        rank: 0,
        world: 1,
        peers: vec![listener.local_addr()],
        fence: Fence { job: "measure".into(), generation: 1, token: "alone".into(), layout: [0; 32] },
        patience: Deadlines::default().collective,
        transport: Transport::Auto,
        compression: Compression::None,
        host: None,
    };
    Ok(Background::start(squad_collective::connect(listener, topology)?))
}

/// How many floating-point operations a second products of square matrices reach, at best, as the network has them computed:
/// what a step can be held against. Takes about a second.
pub fn matrix_rate(precision: Precision, device: Device) -> f64 {
    let kind = multiplied_as(precision, device);
    let mut best: f64 = 0.0;
    // From small to large, as long as the next size will not take long: some formats are slow on some processors.
    let largest = if device.is_cuda() { 8192 } else { 2048 };
    let mut size = 256;
    while size <= largest && (best == 0.0 || operations(size) / best < 0.5) {
        best = best.max(rate_of(size, kind, device));
        size *= 2;
    }
    best
}

/// Operations of a product of two matrices of `size` rows and columns.
fn operations(size: i64) -> f64 {
    2.0 * (size as f64).powi(3)
}

fn rate_of(size: i64, kind: Kind, device: Device) -> f64 {
    // Fixed: it is no wait.
    const LONG: Duration = Duration::from_millis(200);
    let matrix = || Tensor::ones([size, size], (Kind::Float, device)).to_kind(kind);
    let (a, b) = (matrix(), matrix());
    let mut best: f64 = 0.0;
    let begun = Instant::now();
    // The first one sets things up.
    for turn in 0.. {
        let started = Instant::now();
        let product = a.matmul(&b);
        finish(device);
        drop(product);
        if turn > 0 {
            best = best.max(operations(size) / started.elapsed().as_secs_f64().max(1e-9));
        }
        if turn > 1 && begun.elapsed() > LONG {
            break;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_positive_number() {
        let rate = rate_of(64, Kind::Float, Device::Cpu);
        assert!(rate.is_finite() && rate > 0.0, "{rate}");
    }
}
