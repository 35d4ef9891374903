//! Which rank a launcher gave to this process.

use thiserror::Error;

/// The slots of this process among all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The first of its ranks.
    pub(crate) rank: u32,
    /// How many ranks the job has.
    pub(crate) world: u32,
    /// The number of that rank among those of its host.
    pub(crate) local_rank: u32,
    /// How many ranks its host has, as far as the launcher says.
    pub(crate) local_size: u32,
    /// How many ranks this process has.
    pub(crate) slots: u32,
}

/// What a user said in flags; it comes before what the launcher says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    /// `--rank`.
    pub(crate) rank: Option<u32>,
    /// `--world`.
    pub(crate) world: Option<u32>,
    /// `--local-rank`.
    pub(crate) local_rank: Option<u32>,
    /// `--slots`: ranks of this process.
    pub(crate) slots: u32,
}

/// Why a process does not know its rank.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PlaceError {
    /// No launcher is known.
    #[error(
        "no launcher told this process its rank (OMPI_COMM_WORLD_RANK, PMI_RANK, RANK, SLURM_PROCID and \
         JOB_COMPLETION_INDEX are not set); start it with mpirun or srun, or say --rank and --world"
    )]
    NoRank,
    /// The world is missing.
    #[error("the rank is known from {rank_from}, the number of ranks is not: say --world")]
    NoWorld {
        /// Where the rank comes from.
        rank_from: &'static str,
    },
    /// A variable is no number.
    #[error("the environment's {name} is {value:?}, which is no number of ranks")]
    NoNumber {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// The rank is past the end.
    #[error("rank {rank} is not among the {world} ranks of the job (with {slots} to each process)")]
    Outside {
        /// The last rank of the process.
        rank: u32,
        /// How many there are.
        world: u32,
        /// Ranks of a process.
        slots: u32,
    },
}

/// The variables of one launcher.
struct Launcher {
    rank: &'static str,
    world: &'static [&'static str],
    local_rank: &'static str,
    local_size: &'static str,
}

/// What is asked, in this order: mpirun inside a Slurm job sets its own variables beside Slurm's.
const LAUNCHERS: &[Launcher] = &[
    // Open MPI.
    Launcher {
        rank: "OMPI_COMM_WORLD_RANK",
        world: &["OMPI_COMM_WORLD_SIZE"],
        local_rank: "OMPI_COMM_WORLD_LOCAL_RANK",
        local_size: "OMPI_COMM_WORLD_LOCAL_SIZE",
    },
    // MPICH's and Intel's Hydra.
    Launcher {
        rank: "PMI_RANK",
        world: &["PMI_SIZE"],
        local_rank: "MPI_LOCALRANKID",
        local_size: "MPI_LOCALNRANKS",
    },
    // torchrun and those like it.
    Launcher {
        rank: "RANK",
        world: &["WORLD_SIZE"],
        local_rank: "LOCAL_RANK",
        local_size: "LOCAL_WORLD_SIZE",
    },
    // srun.
    Launcher {
        rank: "SLURM_PROCID",
        world: &["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"],
        local_rank: "SLURM_LOCALID",
        local_size: "SLURM_NTASKS_PER_NODE",
    },
    // An Indexed Job of Kubernetes numbers its pods and says no more: a pod is a host of its own.
    Launcher { rank: "JOB_COMPLETION_INDEX", world: &[], local_rank: "", local_size: "" },
];

/// Asks the flags and the environment.
///
/// # Errors
/// When they do not say, or say nonsense.
pub(crate) fn find(flags: Flags, get: impl Fn(&str) -> Option<String>) -> Result<Place, PlaceError> {
    let number = |name: &'static str| {
        let value = if name.is_empty() { None } else { get(name) };
        let parsed =
            value.map(|value| value.trim().parse().map_err(|_| PlaceError::NoNumber { name, value }));
        parsed.transpose()
    };
    let launcher = LAUNCHERS.iter().find(|launcher| flags.rank.is_none() && get(launcher.rank).is_some());
    let slots = flags.slots.max(1);
    let (rank, rank_from) = match (flags.rank, launcher) {
        (Some(rank), _) => (rank, "--rank"),
        // The launcher numbers processes.
        (None, Some(launcher)) => (number(launcher.rank)?.unwrap_or(0) * slots, launcher.rank),
        (None, None) => return Err(PlaceError::NoRank),
    };
    let mut world = flags.world;
    for name in launcher.iter().flat_map(|launcher| launcher.world) {
        if world.is_none() {
            world = number(name)?.map(|processes: u32| processes * slots);
        }
    }
    let world = world.ok_or(PlaceError::NoWorld { rank_from })?;
    if rank + slots > world {
        return Err(PlaceError::Outside { rank: rank + slots - 1, world, slots });
    }
    let of_launcher = |name: fn(&Launcher) -> &'static str| match launcher {
        Some(launcher) => number(name(launcher)),
        None => Ok(None),
    };
    let local_rank = match flags.local_rank {
        Some(local) => local,
        None => of_launcher(|launcher| launcher.local_rank)?.unwrap_or(0) * slots,
    };
    let local_size = of_launcher(|launcher| launcher.local_size)?.unwrap_or(1) * slots;
    Ok(Place { rank, world, local_rank, local_size: local_size.max(local_rank + slots), slots })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(flags: Flags, variables: &[(&str, &str)]) -> Result<Place, PlaceError> {
        find(flags, |name| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    fn expected(rank: u32, world: u32, local_rank: u32, local_size: u32) -> Result<Place, PlaceError> {
        Ok(Place { rank, world, local_rank, local_size, slots: 1 })
    }

    #[test]
    fn every_launcher_is_understood() {
        let one = Flags { slots: 1, ..Flags::default() };
        let open_mpi = [
            ("OMPI_COMM_WORLD_RANK", "3"),
            ("OMPI_COMM_WORLD_SIZE", "4"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
            ("OMPI_COMM_WORLD_LOCAL_SIZE", "2"),
            // Inside a Slurm job, whose own task is the batch script.
            ("SLURM_PROCID", "0"),
            ("SLURM_NTASKS", "1"),
        ];
        assert_eq!(place(one, &open_mpi), expected(3, 4, 1, 2));
        assert_eq!(place(one, &[("PMI_RANK", "1"), ("PMI_SIZE", "2")]), expected(1, 2, 0, 1));
        let torchrun = [("RANK", "5"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "4")];
        assert_eq!(place(one, &torchrun), expected(5, 8, 1, 4));
        let slurm = [
            ("SLURM_PROCID", "2"),
            ("SLURM_NTASKS", "9"),
            ("SLURM_STEP_NUM_TASKS", "4"),
            ("SLURM_LOCALID", "0"),
        ];
        assert_eq!(place(one, &slurm), expected(2, 4, 0, 1), "the step's tasks, not the job's");
        let pod = [("JOB_COMPLETION_INDEX", "1")];
        let two = Place { rank: 2, world: 4, local_rank: 0, local_size: 2, slots: 2 };
        assert_eq!(place(Flags { world: Some(4), slots: 2, ..one }, &pod), Ok(two));
    }

    #[test]
    fn flags_come_first() {
        let flags = Flags { rank: Some(1), world: Some(2), local_rank: Some(1), slots: 1 };
        assert_eq!(place(flags, &[("RANK", "7"), ("WORLD_SIZE", "8")]), expected(1, 2, 1, 2));
    }

    #[test]
    fn what_is_not_said_or_makes_no_sense_is_an_error() {
        let one = Flags { slots: 1, ..Flags::default() };
        assert_eq!(place(one, &[]), Err(PlaceError::NoRank));
        let index = [("JOB_COMPLETION_INDEX", "1")];
        assert_eq!(place(one, &index), Err(PlaceError::NoWorld { rank_from: "JOB_COMPLETION_INDEX" }));
        assert_eq!(
            place(Flags { world: Some(3), slots: 2, ..one }, &index),
            Err(PlaceError::Outside { rank: 3, world: 3, slots: 2 })
        );
        let odd = place(one, &[("RANK", "x"), ("WORLD_SIZE", "2")]);
        assert!(odd.unwrap_err().to_string().contains("RANK is \"x\""));
    }
}
