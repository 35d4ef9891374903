//! `squad-worker probe`: what this machine has for a worker, and what a worker would make of it.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde::Serialize;
use squad_cuda::{DeviceError, Driver, Gpu, Places, loaded_from};

use crate::kernels;

/// What to tell, and how.
#[derive(Args)]
pub(crate) struct ProbeArgs {
    /// How many workers are to share this machine.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    workers: u32,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// Everything that is known of this machine.
#[derive(Debug, Serialize)]
struct Machine {
    version: &'static str,
    cpu: Cpu,
    libtorch: Libtorch,
    cuda: Cuda,
    nccl: Nccl,
}

#[derive(Debug, Serialize)]
struct Cpu {
    cores: usize,
    workers: u32,
    /// What each of them would compute with.
    threads_per_worker: usize,
    /// `OMP_WAIT_POLICY` as this process has it; a launcher gives its workers `PASSIVE` where it is not set.
    omp_wait_policy: Option<String>,
    /// What MKL is told: `AVX-512`, `AVX2` or `its own choice`.
    mkl_kernels: &'static str,
    /// Whether `SQUAD_MKL_NATIVE` leaves the choice to MKL.
    mkl_native: bool,
    /// Instructions that number formats go by.
    float_formats: FloatFormats,
}

#[derive(Debug, Serialize)]
struct FloatFormats {
    avx2: bool,
    avx512: bool,
    /// bfloat16 products.
    avx512_bf16: bool,
    /// float16 arithmetic.
    avx512_fp16: bool,
}

#[derive(Debug, Serialize)]
struct Libtorch {
    /// What the program was built for.
    built_for: &'static str,
    /// What it runs with.
    file: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Cuda {
    /// Whether a worker could compute on a GPU.
    usable: bool,
    /// Why not.
    problem: Option<String>,
    /// The newest CUDA that the driver knows, such as `13.0`.
    driver: Option<String>,
    /// `libtorch_cuda.so`.
    libraries: Option<PathBuf>,
    gpus: Vec<Gpu>,
}

#[derive(Debug, Serialize)]
struct Nccl {
    version: Option<String>,
    file: Option<PathBuf>,
    problem: Option<String>,
}

/// Prints what there is. A machine without a GPU is no error.
///
/// # Errors
/// When nothing can be printed.
pub(crate) fn probe(args: &ProbeArgs) -> anyhow::Result<ExitCode> {
    let places = Places::of_process();
    let machine = Machine {
        version: env!("CARGO_PKG_VERSION"),
        cpu: cpu(args.workers),
        libtorch: Libtorch { built_for: "2.11.0", file: loaded_from("libtorch_cpu.so") },
        cuda: cuda(&places),
        nccl: nccl(&places),
    };
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{}", serde_json::to_string_pretty(&machine)?)?,
        Output::Table => write!(out, "{}", table(&machine))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn cpu(workers: u32) -> Cpu {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Cpu {
        cores,
        workers,
        threads_per_worker: squad_proto::threads_per_worker(cores, workers),
        omp_wait_policy: std::env::var("OMP_WAIT_POLICY").ok(),
        mkl_kernels: kernels::asked_for().unwrap_or("its own choice"),
        mkl_native: kernels::is_native(),
        float_formats: FloatFormats {
            avx2: is_x86_feature_detected!("avx2"),
            avx512: kernels::has_avx512(),
            avx512_bf16: is_x86_feature_detected!("avx512bf16"),
            avx512_fp16: is_x86_feature_detected!("avx512fp16"),
        },
    }
}

fn cuda(places: &Places) -> Cuda {
    let driver = Driver::open_any();
    let version = driver.as_ref().ok().map(|driver| driver.version());
    let gpus = driver.as_ref().ok().map_or_else(|| Ok(Vec::new()), |driver| driver.gpus());
    let libraries = places.find();
    let problem = |error: &DeviceError| error.to_string();
    // The first thing that a worker would stumble over.
    let found = Driver::open().and_then(Driver::count).err().or(gpus.as_ref().err().cloned());
    let problem = found.as_ref().or(libraries.as_ref().err()).map(problem);
    Cuda {
        usable: problem.is_none(),
        problem,
        driver: version.map(|version| format!("{}.{}", version / 1000, version % 1000 / 10)),
        libraries: libraries.ok().map(|folder| folder.join("libtorch_cuda.so")),
        gpus: gpus.unwrap_or_default(),
    }
}

#[cfg(not(feature = "nccl"))]
fn nccl(_: &Places) -> Nccl {
    Nccl {
        version: None,
        file: None,
        problem: Some("this squad-worker was built without the feature nccl".into()),
    }
}

#[cfg(feature = "nccl")]
fn nccl(places: &Places) -> Nccl {
    match squad_collective::nccl::version(&places.beside("nccl", "libnccl.so.2")) {
        Ok(version) => Nccl { version: Some(version.to_string()), file: version.file, problem: None },
        Err(error) => Nccl { version: None, file: None, problem: Some(error.to_string()) },
    }
}

fn table(machine: &Machine) -> String {
    let Machine { version, cpu, libtorch, cuda, nccl } = machine;
    let path = |file: &Option<PathBuf>| file.as_ref().map_or("not known".into(), |f| f.display().to_string());
    let has = |formats: &[(&str, bool)]| {
        let names: Vec<&str> = formats.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        if names.is_empty() { "none of them".into() } else { names.join(", ") }
    };
    let f = &cpu.float_formats;
    let formats = has(&[
        ("AVX2", f.avx2),
        ("AVX-512", f.avx512),
        ("bfloat16 products", f.avx512_bf16),
        ("float16 arithmetic", f.avx512_fp16),
    ]);
    let switch =
        if cpu.mkl_native { "SQUAD_MKL_NATIVE is set" } else { "SQUAD_MKL_NATIVE=1 leaves it to MKL" };
    let mut rows = vec![
        ("squad-worker", (*version).to_owned()),
        ("cores", cpu.cores.to_string()),
        ("threads", format!("{} for each of {}", cpu.threads_per_worker, workers(cpu.workers))),
        (
            "waiting threads",
            cpu.omp_wait_policy.clone().unwrap_or("PASSIVE under a launcher, else libgomp's".into()),
        ),
        ("instructions", formats),
        ("MKL's kernels", format!("{} ({switch})", cpu.mkl_kernels)),
        ("libtorch", format!("{}, {}", libtorch.built_for, path(&libtorch.file))),
        ("NVIDIA driver", cuda.driver.as_ref().map_or("none".into(), |v| format!("CUDA {v}"))),
        ("CUDA libraries", cuda.libraries.as_ref().map_or("none".into(), |f| f.display().to_string())),
    ];
    for gpu in &cuda.gpus {
        let peers = match gpu.peers.as_slice() {
            [] => "no other GPU's memory in reach".to_owned(),
            peers => format!("reaches the memory of {peers:?}"),
        };
        let gib = gpu.memory_bytes as f64 / f64::from(1 << 30);
        rows.push(("GPU", format!("{}: {}, {gib:.1} GiB, {peers}", gpu.index, gpu.name)));
    }
    rows.push((
        "NCCL",
        match (&nccl.version, &nccl.problem) {
            (Some(version), _) => format!("{version}, {}", path(&nccl.file)),
            (None, Some(problem)) => problem.clone(),
            (None, None) => "none".into(),
        },
    ));
    rows.push(("GPU training", cuda.problem.clone().unwrap_or("possible".into())));
    rows.iter().map(|(name, value)| format!("{name:16} {value}\n")).collect()
}

fn workers(count: u32) -> String {
    if count == 1 { "1 worker".into() } else { format!("{count} workers") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_and_nobody_gets_none() {
        let one = cpu(1);
        assert_eq!(one.threads_per_worker, one.cores);
        assert_eq!(cpu(4096).threads_per_worker, 1);
    }

    #[test]
    fn a_machine_without_a_gpu_says_what_is_missing() {
        let cuda = cuda(&Places::default());
        if cuda.driver.is_none() {
            assert!(!cuda.usable && cuda.gpus.is_empty());
            assert!(cuda.problem.unwrap().contains("no NVIDIA driver"));
        }
    }
}
