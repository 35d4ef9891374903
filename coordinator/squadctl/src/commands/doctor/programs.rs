//! The worker program, and what it finds: libtorch, the driver, NCCL. squadctl itself never loads them.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use squad_proto::JobSpec;
use squad_proto::spec::{Backend, DeviceKind};

use super::Check;

/// A program that only tells about itself does so within this. Fixed: no job is at work.
const ANSWER: Duration = Duration::from_secs(30);

/// The worker program and its libtorch; and what it tells of the machine, if it runs.
pub(super) fn checks() -> (Vec<Check>, Option<Value>) {
    let name = "worker program";
    let program = match squad_coordinator::find_worker_program() {
        Ok(program) => program,
        Err(error) => {
            return (vec![Check::bad(name, error.to_string(), "build it, or set SQUAD_WORKER")], None);
        }
    };
    let place = program.display();
    let probe = answer(&program, &["probe", "--output", "json"])
        .and_then(|text| serde_json::from_str::<Value>(&text).map_err(|error| error.to_string()));
    let probe = match probe {
        Ok(probe) => probe,
        Err(why) => {
            let remedy = "scripts/setup.sh, in an archive share/squadron/get_libtorch.sh, brings libtorch; docs/install.md says \
                          where it is looked for";
            return (vec![Check::bad(name, format!("{place} does not run: {why}"), remedy)], None);
        }
    };
    let (own, theirs) = (env!("CARGO_PKG_VERSION"), text_of(&probe["version"]));
    let program = if theirs == own {
        Check::ok(name, format!("{place}, version {theirs}"))
    } else {
        let text = format!("{place} is of version {theirs}, this program of {own}");
        Check::bad(name, text, "take both from one build")
    };
    (vec![program, libtorch(&probe)], Some(probe))
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

fn libtorch(probe: &Value) -> Check {
    let (built_for, file) = (text_of(&probe["libtorch"]["built_for"]), &probe["libtorch"]["file"]);
    let place = file.as_str().unwrap_or("a folder that the system does not tell");
    let kernels = text_of(&probe["cpu"]["mkl_kernels"]);
    Check::ok("libtorch", format!("{built_for}, {place}; MKL's kernels: {kernels}"))
}

/// GPUs and what stands between a worker and them.
pub(super) fn devices(probe: Option<&Value>, spec: Option<&JobSpec>, workers: u32) -> Vec<Check> {
    let Some(probe) = probe else { return Vec::new() };
    let device = spec.map_or(DeviceKind::Auto, |spec| spec.resources.device);
    let cuda = &probe["cuda"];
    let gpus = cuda["gpus"].as_array().map_or(0, Vec::len);
    let driver = cuda["driver"]
        .as_str()
        .map_or("no NVIDIA driver".into(), |version| format!("driver of CUDA {version}"));
    let mut checks = vec![match (cuda["usable"].as_bool(), device) {
        (Some(true), DeviceKind::Cuda) if gpus < workers as usize => {
            let text = format!("{gpus} GPUs for {workers} workers");
            Check::bad("GPUs", text, "each worker needs its own: lower resources.workers or -np")
        }
        (Some(true), _) => Check::ok("GPUs", format!("{gpus}, {driver}, {}", text_of(&cuda["libraries"]))),
        (_, DeviceKind::Cuda) => {
            let remedy = "squad-worker probe tells all; or compute on the CPU with resources.device: cpu";
            Check::bad("GPUs", text_of(&cuda["problem"]), remedy)
        }
        (_, DeviceKind::Cpu) => Check::ok("GPUs", "not asked for (resources.device: cpu)"),
        (_, DeviceKind::Auto) => Check::ok("GPUs", format!("{driver}: workers compute on the CPU")),
    }];
    checks.extend(nccl(probe, spec, workers));
    checks
}

/// NCCL, where a job would use it.
fn nccl(probe: &Value, spec: Option<&JobSpec>, workers: u32) -> Option<Check> {
    let backend = spec.map_or(Backend::Auto, |spec| spec.comm.backend);
    let found = &probe["nccl"];
    if let Some(version) = found["version"].as_str() {
        return Some(Check::ok("NCCL", format!("{version}, {}", text_of(&found["file"]))));
    }
    let problem = text_of(&found["problem"]);
    let remedy = "scripts/setup.sh --cuda brings it; or sum over the ring with comm.backend: ring";
    let usable = probe["cuda"]["usable"].as_bool() == Some(true);
    match backend {
        Backend::Nccl => Some(Check::bad("NCCL", problem, remedy)),
        Backend::Auto if usable && workers > 1 => Some(Check::warning("NCCL", problem, remedy)),
        _ => None,
    }
}

/// What a program prints within [`ANSWER`].
fn answer(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).env("SQUAD_LOG", "error");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let begun = Instant::now();
    // What it prints fits into a pipe.
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if begun.elapsed() > ANSWER => {
                // It is of no use any more, however it ends.
                child.kill().ok();
                child.wait().ok();
                return Err(format!("no answer within {ANSWER:?}"));
            }
            // Fixed: it only paces looks.
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let read = |pipe: Option<&mut dyn Read>| {
        let mut text = Vec::new();
        // What cannot be read is not there.
        pipe.and_then(|pipe| pipe.read_to_end(&mut text).ok());
        String::from_utf8_lossy(&text).into_owned()
    };
    let stdout = read(child.stdout.as_mut().map(|pipe| pipe as &mut dyn Read));
    if status.success() {
        return Ok(stdout);
    }
    let stderr = read(child.stderr.as_mut().map(|pipe| pipe as &mut dyn Read));
    Err(stderr.lines().next().map_or_else(|| status.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::super::Finding;
    use super::*;
    use serde_json::json;

    fn spec(device: &str, backend: &str) -> JobSpec {
        let spec = json!({
            "name": "a", "model": "m", "output_dir": "o", "data": {},
            "resources": {"device": device}, "comm": {"backend": backend},
        });
        serde_json::from_value(spec).unwrap()
    }

    fn findings(probe: &Value, device: &str, backend: &str, workers: u32) -> Vec<Finding> {
        devices(Some(probe), Some(&spec(device, backend)), workers)
            .iter()
            .map(|check| check.finding)
            .collect()
    }

    #[test]
    fn a_gpu_that_is_asked_for_must_be_there() {
        use Finding::{Bad, Ok, Warning};
        let none =
            json!({"cuda": {"usable": false, "problem": "no driver", "gpus": []}, "nccl": {"problem": "no"}});
        assert_eq!(findings(&none, "cpu", "auto", 2), [Ok]);
        assert_eq!(findings(&none, "auto", "auto", 2), [Ok]);
        assert_eq!(findings(&none, "cuda", "auto", 1), [Bad]);
        assert_eq!(findings(&none, "auto", "nccl", 2), [Ok, Bad]);
        let two =
            json!({"cuda": {"usable": true, "driver": "13.0", "gpus": [{}, {}]}, "nccl": {"problem": "no"}});
        assert_eq!(findings(&two, "cuda", "auto", 2), [Ok, Warning]);
        assert_eq!(findings(&two, "cuda", "ring", 3), [Bad]);
        assert!(devices(None, None, 1).is_empty());
    }

    #[test]
    fn a_program_that_fails_says_why() {
        let sh = Path::new("/bin/sh");
        assert_eq!(answer(sh, &["-c", "echo yes"]), Ok("yes\n".into()));
        let error = answer(sh, &["-c", "echo libtorch_cpu.so: not found >&2; exit 127"]).unwrap_err();
        assert_eq!(error, "libtorch_cpu.so: not found");
        assert!(answer(Path::new("/nowhere/at/all"), &[]).is_err());
    }
}
