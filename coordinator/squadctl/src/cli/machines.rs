//! Workers on other machines, and workers that something else places.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::SpecArgs;

/// Flags of `run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The job.
    #[command(flatten)]
    pub(crate) spec: SpecArgs,
    /// Who places the workers.
    #[command(flatten)]
    pub(crate) external: ExternalArgs,
    /// Machines and their slots, as in a:2,b:2: mpirun starts the workers there. They need the same folders and
    /// programs as this machine.
    #[arg(short = 'H', long = "hosts", value_name = "HOST:SLOTS,...", conflicts_with = "external")]
    pub(crate) hosts: Option<Hosts>,
    /// Collector that takes a trace of the job: OpenTelemetry's protocol over gRPC, such as http://127.0.0.1:4317.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub(crate) otlp_endpoint: Option<String>,
    /// Ends when the process that started it does.
    #[arg(long, hide = true)]
    pub(crate) ends_with_parent: bool,
}

/// Who places the workers.
#[derive(Debug, Default, Args)]
pub(crate) struct ExternalArgs {
    /// Launch no worker: wait for those that mpirun, Slurm or Kubernetes places (squad-worker join --ticket FILE).
    #[arg(long, requires = "ticket_file")]
    pub(crate) external: bool,
    /// Where the workers' ticket is written, readable for nobody else; it holds a secret.
    #[arg(long, value_name = "FILE", requires = "external")]
    pub(crate) ticket_file: Option<PathBuf>,
}

/// Machines and how many workers each runs, in the order of ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts(Vec<(String, u32)>);

impl Hosts {
    /// Workers of all together.
    pub(crate) fn slots(&self) -> u32 {
        self.0.iter().map(|(_, slots)| slots).sum()
    }

    /// Whether all of them are this machine.
    pub(crate) fn are_local(&self) -> bool {
        self.0.iter().all(|(host, _)| matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1"))
    }
}

impl std::fmt::Display for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all: Vec<String> = self.0.iter().map(|(host, slots)| format!("{host}:{slots}")).collect();
        f.write_str(&all.join(","))
    }
}

impl FromStr for Hosts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let one = |part: &str| {
            let (host, slots) = part.rsplit_once(':').unwrap_or((part, "1"));
            let slots = slots.parse().ok().filter(|slots| (1..=1024).contains(slots));
            // A name that begins with a hyphen would be a flag to ssh.
            let name = !host.is_empty()
                && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@'))
                && !host.starts_with('-');
            slots.filter(|_| name).map(|slots| (host.to_owned(), slots))
        };
        let all: Option<Vec<(String, u32)>> = text.split(',').map(one).collect();
        all.map(Self).ok_or_else(|| format!("{text:?} is no list of machines; write it as a:2,b:2"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_listed_with_their_slots() {
        let hosts: Hosts = "a:2,b.example:3,c".parse().unwrap();
        assert_eq!((hosts.slots(), hosts.to_string().as_str()), (6, "a:2,b.example:3,c:1"));
        assert!(!hosts.are_local() && "localhost:2".parse::<Hosts>().unwrap().are_local());
        for bad in ["", "a:", "a:0", ":2", "a:2,,b", "-oProxyCommand=x:1", "a b:1"] {
            assert!(bad.parse::<Hosts>().is_err(), "{bad}");
        }
    }
}
