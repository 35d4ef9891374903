//! Network namespaces in the place of pods: what a kubelet does with a pod's template, as far as Squadron could notice.
//!
//! A pod has an address, a host name and process numbers of its own, the volumes that its template names, a root file system that
//! cannot be written, the user of the template, and no capability.

mod container;

use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::{Container, PodSpec, SecretVolumeSource, Volume};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub use container::{Kept, Pod, main_process};

use crate::{program, repository};

/// A switch that pods are plugged into, and what they mount.
pub struct Cluster {
    folder: PathBuf,
    /// Name of the switch, and beginning of all names that this machine has for parts of the cluster: other tests may have
    /// clusters at the same time, and one that was killed may have left its own.
    switch: String,
    /// First three numbers of all addresses.
    network: String,
    pods: Vec<String>,
    /// Names and addresses that every pod resolves: what the cluster's name service says.
    names: Vec<(String, String)>,
}

fn ip(line: &str) -> bool {
    let done = Command::new("ip").args(line.split(' ')).status();
    done.is_ok_and(|status| status.success())
}

/// Whether this machine lets pods be made.
fn possible() -> bool {
    let works = |line: &[&str]| {
        Command::new(line[0]).args(&line[1..]).output().is_ok_and(|done| done.status.success())
    };
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
        && works(&["ip", "-V"])
        && works(&["setpriv", "--version"])
        && works(&["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"])
}

impl Cluster {
    /// A cluster whose volumes are folders in `folder`. `None`, after a loud word, where the system allows none.
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub fn new(folder: &Path) -> Option<Self> {
        let own = std::process::id();
        let (switch, network) = (format!("sqp{own}"), format!("10.{}.{}", 220 + own / 256 % 16, own % 256));
        let made = possible()
            && ip(&format!("link add {switch} type bridge"))
            && ip(&format!("addr add {network}.1/24 dev {switch}"))
            && ip(&format!("link set {switch} up"));
        if !made {
            eprintln!(
                "SKIPPED: no pods can be made here (it takes root, ip of iproute2, and unshare and setpriv of util-linux)"
            );
            return None;
        }
        Some(Self { folder: folder.to_owned(), switch, network, pods: Vec::new(), names: Vec::new() })
    }

    /// A folder of the cluster's, made where it is not there.
    fn make(&self, name: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        path
    }

    /// The folder of a volume that outlives pods.
    pub fn claim(&self, name: &str) -> PathBuf {
        self.make(&format!("claims/{name}"))
    }

    /// Makes a Secret.
    pub fn secret(&self, name: &str, key: &str, value: &str) {
        std::fs::write(self.make(&format!("secrets/{name}")).join(key), value).expect("writable");
    }

    /// Lets every pod that is made from now on resolve a name.
    pub fn resolve(&mut self, name: &str, address: &str) {
        self.names.push((address.to_owned(), name.to_owned()));
    }

    /// The address that the next pod gets.
    pub fn next_address(&self) -> String {
        format!("{}.{}", self.network, self.pods.len() + 2)
    }

    /// Makes a pod: its address and its volumes. `index` is its number in an Indexed Job.
    pub fn pod(&mut self, name: &str, spec: &PodSpec, index: Option<u32>) -> Pod {
        let (address, switch) = (self.next_address(), &self.switch);
        let (namespace, port) = (format!("{switch}-{name}"), format!("{switch}-{}", self.pods.len()));
        self.pods.push(namespace.clone());
        let plugged = ip(&format!("netns add {namespace}"))
            && ip(&format!("link add {port} type veth peer name eth0 netns {namespace}"))
            && ip(&format!("link set {port} master {switch} up"))
            && ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))
            && ip(&format!("-n {namespace} link set eth0 up"))
            && ip(&format!("-n {namespace} link set lo up"));
        assert!(plugged, "no network for {name}");
        let folder = self.make(&format!("pods/{name}"));
        let mut hosts = format!("127.0.0.1 localhost\n{address} {name}\n");
        for (address, name) in &self.names {
            writeln!(hosts, "{address} {name}").expect("a string");
        }
        std::fs::write(folder.join("hosts"), hosts).expect("writable");
        let container = spec.containers[0].clone();
        let pod = Pod {
            name: name.to_owned(),
            namespace,
            address,
            folder,
            image: image(&container),
            container,
            spec: spec.clone(),
            index,
        };
        std::fs::write(pod.folder.join("mounts"), self.mounts(&pod)).expect("writable");
        pod
    }

    /// What is mounted where: the image's files, and the volumes.
    fn mounts(&self, pod: &Pod) -> String {
        let mut lines = String::new();
        for (what, place) in &pod.image {
            writeln!(lines, "{}\t{place}\tro", what.display()).expect("a string");
        }
        let volumes = pod.spec.volumes.as_deref().unwrap_or_default();
        for mount in pod.container.volume_mounts.as_deref().unwrap_or_default() {
            let volume =
                volumes.iter().find(|volume| volume.name == mount.name).expect("a volume of the pod");
            let access = if mount.read_only == Some(true) { "ro" } else { "rw" };
            writeln!(lines, "{}\t{}\t{access}", self.volume(pod, volume).display(), mount.mount_path)
                .expect("a string");
        }
        lines
    }

    /// The folder behind a volume, owned as the kubelet has it with an fsGroup.
    fn volume(&self, pod: &Pod, volume: &Volume) -> PathBuf {
        let group = pod.numbers()[2];
        if let Some(claim) = &volume.persistent_volume_claim {
            let folder = self.claim(&claim.claim_name);
            give(&folder, group, 0o660);
            return folder;
        }
        let folder = pod.folder.join("volumes").join(&volume.name);
        std::fs::create_dir_all(&folder).expect("a folder");
        if let Some(secret) = &volume.secret {
            self.project(secret, &folder, group);
        } else {
            assert!(volume.empty_dir.is_some(), "a kind of volume that is not known here: {volume:?}");
            std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o2777)).expect("its mode");
            chown(&folder, None, Some(group)).expect("its group");
        }
        folder
    }

    /// Writes a Secret as the kubelet does: files in a folder with a time in its name, a link ..data to that, and
    /// a link for each file; root's, and readable for the pod's group on top of the mode that was asked for.
    fn project(&self, secret: &SecretVolumeSource, folder: &Path, group: u32) {
        let from = self.folder.join("secrets").join(secret.secret_name.as_deref().expect("a Secret's name"));
        let dated = folder.join("..2026_01_02_03_04_05.678901234");
        std::fs::create_dir(&dated).expect("a folder");
        let mode = secret.default_mode.expect("a mode") as u32 | 0o440;
        for entry in std::fs::read_dir(&from).expect("the Secret is there") {
            let entry = entry.expect("readable");
            let wanted = |key: &std::ffi::OsStr| {
                secret.items.as_ref().is_none_or(|items| items.iter().any(|item| key == item.key.as_str()))
            };
            if wanted(&entry.file_name()) {
                let file = dated.join(entry.file_name());
                std::fs::copy(entry.path(), &file).expect("writable");
                std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("its mode");
                chown(&file, Some(0), Some(group)).expect("its owner");
                symlink(Path::new("..data").join(entry.file_name()), folder.join(entry.file_name()))
                    .expect("a link");
            }
        }
        symlink(dated.file_name().expect("a name"), folder.join("..data")).expect("a link");
        for place in [folder, &dated] {
            chown(place, None, Some(group)).expect("its group");
            std::fs::set_permissions(place, PermissionsExt::from_mode(0o2750)).expect("its mode");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for namespace in &self.pods {
            let pids = Command::new("ip").args(["netns", "pids", namespace]).output();
            let pids =
                pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            for pid in pids.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                // It may have ended already.
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
            // With the namespace its end of the cable goes, and with that the other end.
            Command::new("ip").args(["netns", "del", namespace]).status().ok();
        }
        Command::new("ip").args(["link", "del", &self.switch]).status().ok();
    }
}

/// Gives everything in a folder to a group.
fn give(path: &Path, group: u32, more: u32) {
    let metadata = path.symlink_metadata().expect("it is there");
    if metadata.is_symlink() {
        return;
    }
    chown(path, None, Some(group)).expect("its group");
    let folder = if metadata.is_dir() { 0o2110 } else { 0 };
    let mode = metadata.permissions().mode() | more | folder;
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("its mode");
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).expect("readable") {
            give(&entry.expect("readable").path(), group, more);
        }
    }
}

/// The files that the image of a container adds to its base, and where: what its Containerfile copies from the build.
fn image(container: &Container) -> Vec<(PathBuf, String)> {
    let name = container.image.as_deref().and_then(|image| image.split(':').next()).expect("an image");
    let recipe = format!("deploy/docker/{}.Containerfile", name.trim_start_matches("squad-"));
    let recipe = std::fs::read_to_string(repository().join(recipe)).expect("the image's Containerfile");
    let mut files = Vec::new();
    for line in recipe.lines().filter_map(|line| line.strip_prefix("COPY --from=build ")) {
        let (sources, place) = line.rsplit_once(' ').expect("what, and where to");
        for source in sources.split(' ') {
            let below = source.strip_prefix("/src/target/").expect("something that was built");
            let (what, place) = match below.strip_prefix("release/") {
                // The programs of this test's profile.
                Some(name) => (program(name), format!("{place}{name}")),
                None => (repository().join("target").join(below), place.to_owned()),
            };
            // Without CUDA there is nothing to copy.
            if what.exists() || !below.contains("cuda") {
                files.push((what.canonicalize().expect("it is there"), place));
            }
        }
    }
    files
}
