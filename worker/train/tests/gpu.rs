//! On a GPU, beside the CPU. Ignored where `cargo test` runs: `scripts/gpu_check.sh` runs them on a machine that has one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "figures for scripts/gpu_check.sh")]

#[path = "support/world.rs"]
mod world;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use squad_collective::{Background, Fence, RingListener, Topology, Transport};
use squad_cuda::{Choice, Places, Wish};
use squad_model::{EncoderConfig, HeadKind, Inputs, LossForm, Network, Precision, Stage, Targets};
use squad_proto::{JobSpec, Task};
use squad_train::adamw::AdamW;
use squad_train::backward::{MicroBatch, Recipe, walk_unread};
use squad_train::device::{DeviceMoments, adamw::update};
use squad_train::engine::Engine;
use squad_train::run::Outcome;
use squad_train::schedule::Schedule;
use squad_train::step::StepOutcome;
use squad_train::trace::Trace;
use squad_train::{StopSignal, TrainError};
use tch::{Device, Kind, Tensor};
use world::{Notes, Place, gang, on_demand};

const STEPS: u64 = 8;
/// How long a rank waits for a lost one.
const PATIENCE: Duration = Duration::from_secs(20);

/// The first GPU, with libtorch's CUDA half loaded.
fn gpu() -> Device {
    match squad_cuda::choose(Wish::Cuda, None, 0, &Places::of_process()) {
        Ok(Choice::Cuda { index, .. }) => {
            assert!(tch::Cuda::is_available(), "libtorch sees no GPU");
            Device::Cuda(index)
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// Takes steps on `device`; gives the weights and what the steps did.
fn steps(
    place: &Path,
    spec: &JobSpec,
    device: Device,
    collective: &Background,
) -> Result<(Vec<f32>, Vec<StepOutcome>), TrainError> {
    let task = Task::default();
    let mut prepared = squad_train::prepare_on(device, spec, &task, &place.join("model"), &Notes::default())?;
    let set = prepared.train.take().unwrap();
    let schedule = Schedule::new(&spec.train, STEPS);
    let mut engine = Engine::new(spec, &prepared.network, schedule, collective)?;
    let mut portions = on_demand(spec, &prepared, collective, &set);
    let mut outcomes = Vec::new();
    for step in 1..=STEPS {
        let who = (collective, &Trace::off());
        outcomes.push(engine.take(step, &mut prepared.network, &mut portions, who, false)?);
    }
    Ok((prepared.network.stages().iter().flat_map(|stage| stage.to_vec()).collect(), outcomes))
}

fn alone(place: &Place, spec: &JobSpec, device: Device) -> (Vec<f32>, Vec<StepOutcome>) {
    gang(1, |collective| steps(place.path(), spec, device, &collective).unwrap()).remove(0)
}

/// Largest difference, as a share of the largest value.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    assert!(a.iter().all(|value| value.is_finite()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

fn mean_loss(outcomes: &[StepOutcome]) -> f64 {
    outcomes.iter().map(|outcome| outcome.header.mean_loss()).sum::<f64>() / outcomes.len() as f64
}

fn compare(
    (ours, on_gpu): &(Vec<f32>, Vec<StepOutcome>),
    (theirs, on_cpu): &(Vec<f32>, Vec<StepOutcome>),
    tolerance: f64,
) {
    for (ours, theirs) in on_gpu.iter().zip(on_cpu) {
        let (a, b) = (ours.header.mean_loss(), theirs.header.mean_loss());
        assert!((a / b - 1.0).abs() < tolerance, "loss {a}, on the CPU {b}");
        assert!((ours.grad_norm / theirs.grad_norm - 1.0).abs() < 10.0 * tolerance, "norm");
        assert_eq!(ours.header.tokens, theirs.header.tokens);
    }
    let difference = apart(ours, theirs);
    println!("weights differ by {difference:.1e} of the largest after {STEPS} steps");
    assert!(f64::from(difference) < 10.0 * tolerance, "weights: {difference}");
}

#[test]
#[ignore = "needs a GPU: scripts/gpu_check.sh"]
fn steps_on_a_gpu_are_the_cpus() {
    let (gpu, place) = (gpu(), Place::new(64, 3, 80));
    for (head, train) in [
        ("span", json!({"dropout": 0.0})),
        ("conditional", json!({"dropout": 0.0, "accumulate": 2, "bias_correction": true})),
        ("span", json!({"dropout": 0.0, "recompute": true, "freeze_layers": 1, "max_grad_norm": 0.1})),
    ] {
        let spec = place.spec("out", json!({"head": head, "train": train}));
        compare(&alone(&place, &spec, gpu), &alone(&place, &spec, Device::Cpu), 1e-4);
    }
}

#[test]
#[ignore = "needs a GPU: scripts/gpu_check.sh"]
fn half_formats_are_near_32_bits_and_an_overflow_is_survived() {
    let (gpu, place) = (gpu(), Place::new(64, 3, 80));
    let exact = alone(&place, &place.spec("out", json!({"train": {"dropout": 0.0}})), Device::Cpu);
    for dtype in ["float16", "bfloat16"] {
        let spec = place.spec("out", json!({"train": {"dropout": 0.0, "dtype": dtype}}));
        let half = alone(&place, &spec, gpu);
        let (loss, wanted) = (mean_loss(&half.1), mean_loss(&exact.1));
        println!("{dtype}: mean loss {loss:.4}, in 32 bits {wanted:.4}");
        assert!((loss / wanted - 1.0).abs() < 0.02);
        let scale = if dtype == "float16" { 65536.0 } else { 1.0 };
        assert!(half.1.iter().all(|outcome| outcome.loss_scale <= scale && outcome.loss_scale >= 1.0));
    }
}

#[test]
#[ignore = "needs a GPU: scripts/gpu_check.sh"]
fn dropout_follows_from_the_seed_also_when_recomputed() {
    let (gpu, place) = (gpu(), Place::new(64, 2, 80));
    let run = |seed: u64, recompute: bool| {
        let train = json!({"dropout": 0.1, "seed": seed, "recompute": recompute});
        mean_loss(&alone(&place, &place.spec("out", json!({"train": train})), gpu).1)
    };
    let (first, again, other) = (run(1, false), run(1, true), run(2, false));
    println!("mean losses: {first:.6}, recomputed {again:.6}, another seed {other:.6}");
    assert!((first / again - 1.0).abs() < 1e-4, "the same masks");
    assert!((first / other - 1.0).abs() > 1e-5, "other masks");
}

#[test]
#[ignore = "needs a GPU: scripts/gpu_check.sh"]
fn a_run_on_a_gpu_is_evaluated_and_gone_on_with_on_the_cpu() {
    let (gpu, place) = (gpu(), Place::new(64, 2, 60));
    let train = json!({"dropout": 0.0, "steps": 12, "checkpoint_every": 6});
    let spec = place.spec("out", json!({"train": train}));
    let run = |device: Device, resume: bool| {
        let (task, stop) = (Task::Train { resume, timeline: None }, StopSignal::new());
        let outcome = gang(1, |collective| {
            let notes = Notes::default();
            let prepared =
                squad_train::prepare_on(device, &spec, &task, &place.path().join("model"), &notes).unwrap();
            squad_train::run(prepared, &collective, &spec, &task, (&notes, &stop)).unwrap()
        });
        match outcome.into_iter().next() {
            Some(Outcome::Completed(Some(results))) => results,
            other => panic!("{other:?}"),
        }
    };
    let on_gpu: Value = run(gpu, false);
    // Take the last half away; the CPU does it again from the GPU's checkpoint.
    std::fs::remove_dir_all(place.path().join("out/checkpoints/step-00000012")).unwrap();
    std::fs::remove_file(place.path().join("out/results.json")).unwrap();
    let on_cpu = run(Device::Cpu, true);
    let loss = |results: &Value| results["train"]["final_loss"].as_f64().unwrap();
    println!("final loss {} on the GPU, {} gone on with on the CPU", loss(&on_gpu), loss(&on_cpu));
    assert!((loss(&on_gpu) / loss(&on_cpu) - 1.0).abs() < 1e-3);
    assert!(on_gpu["exact"].is_number());
}

#[test]
#[ignore = "needs a GPU: scripts/gpu_check.sh"]
fn nccl_alone_changes_nothing() {
    let (gpu, place) = (gpu(), Place::new(64, 2, 60));
    let of = |backend: &str| {
        let mut spec = place.spec("out", json!({"train": {"dropout": 0.0}, "resources": {"device": "cuda"}}));
        spec.comm.backend = serde_json::from_value(json!(backend)).unwrap();
        alone(&place, &spec, gpu)
    };
    compare(&of("nccl"), &of("ring"), 1e-6);
}

/// One rank of [`two`], in a process of its own: NCCL believes that ranks of different NCCL_HOSTID have GPUs of their own.
#[test]
#[ignore = "a part of others"]
fn one_of_two() {
    let Some(folder) = std::env::var_os("SQUAD_GPU_RANK_FOLDER") else { return };
    let folder = Path::new(&folder);
    let rank: usize = std::env::var("SQUAD_GPU_RANK").unwrap().parse().unwrap();
    let dies = std::env::var_os("SQUAD_GPU_RANK_DIES").is_some() && rank == 1;
    let spec: JobSpec =
        serde_json::from_str(&std::fs::read_to_string(folder.join("spec.json")).unwrap()).unwrap();
    let listener = RingListener::bind([127, 0, 0, 1].into()).unwrap();
    std::fs::write(folder.join(format!("{rank}.new")), listener.local_addr().to_string()).unwrap();
    std::fs::rename(folder.join(format!("{rank}.new")), folder.join(format!("{rank}.address"))).unwrap();
    let begun = Instant::now();
    let peers: Vec<SocketAddr> = (0..2)
        .map(|peer| {
            loop {
                match std::fs::read_to_string(folder.join(format!("{peer}.address"))) {
                    Ok(text) => break text.parse().unwrap(),
                    Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
                    Err(error) => panic!("rank {peer} did not come: {error}"),
                }
            }
        })
        .collect();
    let fence = Fence { job: "gpu".into(), generation: 1, token: "t".into(), layout: [0; 32] };
    let ((compression, host), transport) = (Default::default(), Transport::Auto);
    let patience = PATIENCE;
    let topology = Topology { rank, world: 2, peers, fence, patience, transport, compression, host };
    let collective = Background::start(squad_collective::connect(listener, topology).unwrap());
    if dies {
        // In the middle of a step of the other: long after joining, long before the end.
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_secs(6));
            std::process::abort();
        });
    }
    let mut spec = spec;
    let outcome = loop {
        match steps(folder, &spec, gpu(), &collective) {
            // As long as somebody is to die, go on.
            Ok(_) if std::env::var_os("SQUAD_GPU_RANK_DIES").is_some() => spec.train.seed += 1,
            outcome => break outcome,
        }
    };
    match outcome {
        Ok((weights, outcomes)) => {
            let report = json!({"weights": weights, "losses": outcomes.iter().map(|o| o.header.mean_loss()).collect::<Vec<_>>()});
            std::fs::write(folder.join(format!("{rank}.json")), report.to_string()).unwrap();
        }
        Err(error) => std::fs::write(folder.join(format!("{rank}.error")), error.to_string()).unwrap(),
    }
}

/// Starts two processes on the first GPU.
fn two(place: &Place, spec: &JobSpec, one_dies: bool) -> Vec<Child> {
    std::fs::write(place.path().join("spec.json"), json!(spec).to_string()).unwrap();
    (0..2)
        .map(|rank| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command
                .args(["--exact", "one_of_two", "--ignored", "--nocapture"])
                .env("SQUAD_GPU_RANK_FOLDER", place.path())
                .env("SQUAD_GPU_RANK", rank.to_string())
                .env("NCCL_HOSTID", format!("host-{rank}"));
            if one_dies {
                command.env("SQUAD_GPU_RANK_DIES", "1");
            }
            command.spawn().unwrap()
        })
        .collect()
}

fn spec_of_two(place: &Place, backend: &str) -> JobSpec {
    let mut spec =
        place.spec("out", json!({"train": {"dropout": 0.0}, "resources": {"workers": 2, "device": "cuda"}}));
    spec.comm.backend = serde_json::from_value(json!(backend)).unwrap();
    spec
}

#[test]
#[ignore = "needs a GPU: scripts/gpu_check.sh"]
fn two_ranks_by_nccl_sum_as_the_ring_does() {
    let place = Place::new(64, 3, 80);
    for mut child in two(&place, &spec_of_two(&place, "nccl"), false) {
        assert!(child.wait().unwrap().success());
    }
    let report = |rank: usize| -> Value {
        let text = std::fs::read_to_string(place.path().join(format!("{rank}.json")));
        let failed =
            || std::fs::read_to_string(place.path().join(format!("{rank}.error"))).unwrap_or_default();
        serde_json::from_str(&text.unwrap_or_else(|_| panic!("rank {rank}: {}", failed()))).unwrap()
    };
    let weights = |report: &Value| -> Vec<f32> { serde_json::from_value(report["weights"].clone()).unwrap() };
    let (first, second) = (report(0), report(1));
    assert!(weights(&first) == weights(&second), "both ranks have the same bits");
    let spec = spec_of_two(&place, "ring");
    let on_cpu =
        gang(2, |collective| steps(place.path(), &spec, Device::Cpu, &collective).unwrap()).remove(0);
    let difference = apart(&weights(&first), &on_cpu.0);
    println!("weights differ from the CPU ring's by {difference:.1e} of the largest");
    assert!(difference < 1e-3);
}

#[test]
#[ignore = "needs a GPU: scripts/gpu_check.sh"]
fn a_rank_whose_peer_dies_ends_with_an_error() {
    let place = Place::new(64, 3, 80);
    let mut children = two(&place, &spec_of_two(&place, "nccl"), true);
    let begun = Instant::now();
    let limit = Duration::from_secs(6) + 3 * PATIENCE;
    while children[0].try_wait().unwrap().is_none() {
        if begun.elapsed() > limit {
            children[0].kill().unwrap();
            panic!("the survivor hung for {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!children[1].wait().unwrap().success(), "the other died");
    let error =
        std::fs::read_to_string(place.path().join("0.error")).expect("the survivor ended with an error");
    println!("after {:.1?}: {error}", begun.elapsed());
}

/// Seconds that a step of a network of this shape takes, update included.
fn time_steps(config: Value, precision: Precision, device: Device, (rows, width): (i64, i64)) -> f64 {
    let Value::Object(fields) = config else { panic!("a config is an object") };
    let vocabulary = fields["vocab_size"].as_i64().unwrap();
    let config = EncoderConfig::from_fields(&fields).unwrap();
    let mut network = Network::new(config, fields, HeadKind::Span, device);
    (0..network.stages().len()).for_each(|stage| network.initialise(stage, 3));
    network.compute_in(precision);
    let cells = (rows * width) as usize;
    let ids: Vec<i64> = (0..cells as i64).map(|k| k * 7919 % vocabulary).collect();
    let batch = MicroBatch {
        inputs: Inputs::new(&vec![width; rows as usize], &ids, &vec![0; cells], &vec![true; cells], device),
        targets: Targets::new(
            &vec![3; rows as usize],
            &vec![5; rows as usize],
            &vec![0; rows as usize],
            device,
        ),
    };
    let zeros = |stage: &Stage| Tensor::zeros([stage.len() as i64], (Kind::Float, device));
    let gradients: Vec<Tensor> = network.stages().iter().map(zeros).collect();
    let mut moments: Vec<DeviceMoments> =
        network.stages().iter().map(|stage| DeviceMoments::new(stage.len(), device)).collect();
    let optimizer = AdamW::new(&squad_proto::spec::Train::default());
    let mut step = |number: u64| {
        let recipe = Recipe {
            dropout: network.dropout(None, 0.1),
            seed: number,
            first_row: 0,
            first_trainable: 0,
            divisor: rows as f64,
            form: LossForm::Masked,
            recompute: false,
        };
        walk_unread(&network, &batch, &recipe, &Trace::off(), |stage, found, _| {
            network.stages()[stage].collect_gradients(&found, &gradients[stage], false);
            Ok(())
        })
        .unwrap();
        for (k, gradients) in gradients.iter().enumerate() {
            update(&optimizer, &mut network.stages_mut()[k], &mut moments[k], gradients, 1.0, (1e-5, number));
        }
        // Waits for the device, as a step does.
        gradients[0].norm().double_value(&[])
    };
    for number in 1..=3 {
        step(number);
    }
    let (begun, count) = (Instant::now(), 10);
    for number in 1..=count {
        step(number);
    }
    begun.elapsed().as_secs_f64() / count as f64
}

/// No verdict, only figures.
#[test]
#[ignore = "needs a GPU: scripts/gpu_check.sh"]
fn bench_steps() {
    let gpu = gpu();
    for (name, hidden, layers) in [("BERT-base", 768, 12), ("BERT-large", 1024, 24)] {
        for (dtype, precision) in [
            ("float32", Precision::Float32),
            ("bfloat16", Precision::BFloat16),
            ("float16", Precision::Float16),
        ] {
            let config = json!({
                "model_type": "bert", "vocab_size": 30522, "hidden_size": hidden, "num_hidden_layers": layers,
                "num_attention_heads": hidden / 64, "intermediate_size": 4 * hidden, "max_position_embeddings": 512,
                "type_vocab_size": 2, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
            });
            let seconds = time_steps(config, precision, gpu, (32, 384));
            println!("{name}, {dtype}, 32 x 384 tokens, dropout 0.1: {:.1} examples/s", 32.0 / seconds);
        }
    }
}
