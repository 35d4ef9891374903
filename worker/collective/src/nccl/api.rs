//! NCCL's functions, from a library that is opened by name or by path.
//!
//! cudarc's own loader looks for `libnccl.so` alone, a name that only development packages have, and panics where it finds
//! none. So its types are used, and its functions are not.
#![allow(unsafe_code, reason = "NCCL is a C library")]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::ptr::null;
use std::sync::Arc;

use cudarc::nccl::sys::{ncclComm_t, ncclConfig_t, ncclUniqueId};
use libloading::os::unix::Library;

use super::device::{DeviceBuffer, Stream};
use super::{Version, loaded_file};
use crate::CollectiveError;

/// The oldest NCCL that knows the configuration that is handed over.
const OLDEST: u32 = 22_800;
const NAME: &str = "libnccl.so.2";
/// `ncclSuccess` and `ncclInProgress`; every other number is an error.
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
/// `ncclFloat32` and `ncclSum`.
const FLOAT32: c_uint = 7;
const SUM: c_uint = 0;
/// `NCCL_CONFIG_UNDEF_INT`: NCCL chooses.
const CHOOSE: c_int = c_int::MIN;
const CONFIG_MAGIC: c_uint = 0xcafe_beef;

type OnComm = unsafe extern "C" fn(ncclComm_t) -> c_int;
type AllReduce =
    unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_uint, c_uint, ncclComm_t, *mut c_void) -> c_int;

/// Whether something is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    UnderWay,
}

/// NCCL's functions. What they are called with is checked here, as far as it can be.
pub(super) struct Api {
    version: Version,
    get_unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> c_int,
    init: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> c_int,
    async_error: unsafe extern "C" fn(ncclComm_t, *mut c_int) -> c_int,
    all_reduce: AllReduce,
    finalize: OnComm,
    destroy: OnComm,
    abort: OnComm,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char,
}

/// What all ranks must know to find each other.
#[derive(Clone, Copy)]
pub(super) struct UniqueId(ncclUniqueId);

impl UniqueId {
    pub(super) fn to_bytes(self) -> Vec<u8> {
        self.0.internal.iter().map(|byte| byte.to_ne_bytes()[0]).collect()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut internal = [0 as c_char; 128];
        if bytes.len() != internal.len() {
            return None;
        }
        internal.iter_mut().zip(bytes).for_each(|(to, from)| *to = c_char::from_ne_bytes([*from]));
        Some(Self(ncclUniqueId { internal }))
    }
}

impl Api {
    pub(super) fn load(files: &[PathBuf]) -> Result<Self, CollectiveError> {
        let by_name = std::iter::once(PathBuf::from(NAME));
        let mut said = Vec::new();
        for file in by_name.chain(files.iter().cloned()) {
            // SAFETY: NCCL's initialisers are made for being loaded at any time.
            match unsafe { Library::new(&file) } {
                Ok(library) => return Self::of(library),
                Err(error) => {
                    let cause = std::error::Error::source(&error);
                    said.push(cause.map_or_else(|| error.to_string(), ToString::to_string));
                }
            }
        }
        Err(CollectiveError::NcclMissing { tried: said.join("; ") })
    }

    fn of(library: Library) -> Result<Self, CollectiveError> {
        /// # Safety
        /// `T` is the type of NCCL's function `name`.
        unsafe fn function<T: Copy>(library: &Library, name: &str) -> Result<T, CollectiveError> {
            // SAFETY: as the caller promises.
            let found = unsafe { library.get::<T>(name) };
            found
                .map(|symbol| *symbol)
                .map_err(|error| CollectiveError::NcclMissing { tried: error.to_string() })
        }
        // SAFETY: the types are those of nccl.h, where enumerations are passed and given as integers, which is their
        // representation; as integers, numbers that are new in another version do no harm.
        let (api, get_version) = unsafe {
            let get_version: unsafe extern "C" fn(*mut c_int) -> c_int =
                function(&library, "ncclGetVersion")?;
            let api = Self {
                version: Version { code: 0, file: loaded_file("libnccl.so") },
                get_unique_id: function(&library, "ncclGetUniqueId")?,
                init: function(&library, "ncclCommInitRankConfig")?,
                async_error: function(&library, "ncclCommGetAsyncError")?,
                all_reduce: function(&library, "ncclAllReduce")?,
                finalize: function(&library, "ncclCommFinalize")?,
                destroy: function(&library, "ncclCommDestroy")?,
                abort: function(&library, "ncclCommAbort")?,
                error_string: function(&library, "ncclGetErrorString")?,
                last_error: function(&library, "ncclGetLastError")?,
            };
            (api, get_version)
        };
        // Never unloaded, so the functions stay valid: NCCL has threads of its own, which outlive communicators.
        std::mem::forget(library);
        let mut code: c_int = 0;
        // SAFETY: writes one integer.
        let result = unsafe { get_version(&raw mut code) };
        let code = code.unsigned_abs();
        if result != SUCCESS || code < OLDEST {
            let version = Version { code, file: None };
            let problem =
                format!("version {version} is too old, 2.28 is needed; scripts/setup.sh --cuda brings it");
            return Err(CollectiveError::Nccl { rank: 0, problem });
        }
        Ok(Self { version: Version { code, ..api.version }, ..api })
    }

    pub(super) fn version(&self) -> Version {
        self.version.clone()
    }

    /// Makes an id, and opens the port at which the other ranks find this one.
    pub(super) fn unique_id(&self) -> Result<UniqueId, String> {
        let mut id = ncclUniqueId { internal: [0; 128] };
        // SAFETY: writes the 128 bytes of `id`.
        let result = unsafe { (self.get_unique_id)(&raw mut id) };
        self.check(result, "ncclGetUniqueId").map(|_| UniqueId(id))
    }

    fn check(&self, result: c_int, what: &str) -> Result<Progress, String> {
        match result {
            SUCCESS => Ok(Progress::Done),
            IN_PROGRESS => Ok(Progress::UnderWay),
            error => {
                // SAFETY: gives a string that is NCCL's own, for every number.
                let text = unsafe { text((self.error_string)(error)) };
                // SAFETY: takes no communicator; gives a string of NCCL's own.
                let detail = unsafe { text_of_last(self.last_error) };
                Err(format!("{what}: {text}{detail}"))
            }
        }
    }
}

/// # Safety
/// `pointer` is null or a C string that stays as it is.
unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: as the caller promises.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().trim().to_owned()
}

/// # Safety
/// `last_error` is NCCL's.
unsafe fn text_of_last(last_error: unsafe extern "C" fn(ncclComm_t) -> *const c_char) -> String {
    // SAFETY: a null communicator asks for the last error of this process.
    let text = unsafe { text(last_error(std::ptr::null_mut())) };
    if text.is_empty() { text } else { format!(" ({text})") }
}

/// A communicator. It is used by the one thread that made it.
pub(super) struct Comm {
    api: Arc<Api>,
    /// Null once it is aborted or destroyed.
    raw: ncclComm_t,
}

impl Comm {
    /// Begins to join; [`Self::progress`] tells when it has. The caller's current device is the rank's.
    pub(super) fn join(api: &Arc<Api>, id: UniqueId, rank: usize, world: usize) -> Result<Self, String> {
        let mut config = ncclConfig_t {
            size: size_of::<ncclConfig_t>(),
            magic: CONFIG_MAGIC,
            version: OLDEST,
            // Calls return at once, so that a peer that never comes is noticed.
            blocking: 0,
            cgaClusterSize: CHOOSE,
            minCTAs: CHOOSE,
            maxCTAs: CHOOSE,
            netName: null(),
            splitShare: CHOOSE,
            trafficClass: CHOOSE,
            commName: null(),
            collnetEnable: CHOOSE,
            CTAPolicy: CHOOSE,
            shrinkShare: CHOOSE,
            nvlsCTAs: CHOOSE,
            nChannelsPerNetPeer: CHOOSE,
            nvlinkCentricSched: CHOOSE,
        };
        let mut comm = Self { api: Arc::clone(api), raw: std::ptr::null_mut() };
        // SAFETY: writes the communicator's pointer; reads the configuration, which has the layout that its version says.
        let result =
            unsafe { (api.init)(&raw mut comm.raw, world as c_int, id.0, rank as c_int, &raw mut config) };
        api.check(result, "ncclCommInitRankConfig")?;
        Ok(comm)
    }

    /// How the last call is getting on.
    pub(super) fn progress(&self) -> Result<Progress, String> {
        if self.raw.is_null() {
            return Err("the communicator is closed".into());
        }
        let mut state: c_int = SUCCESS;
        // SAFETY: the communicator is alive; writes one integer.
        let result = unsafe { (self.api.async_error)(self.raw, &raw mut state) };
        self.api.check(result, "ncclCommGetAsyncError")?;
        self.api.check(state, "NCCL found out")
    }

    /// Begins to sum `buffer` over all ranks, behind what `stream` is to do before.
    pub(super) fn all_reduce(&self, buffer: DeviceBuffer, stream: &Stream) -> Result<Progress, String> {
        if self.raw.is_null() {
            return Err("the communicator is closed".into());
        }
        let memory = buffer.address() as *mut c_void;
        // SAFETY: whoever made the buffer promised that its memory is there, on this communicator's device, and nobody
        // else's until the sum has arrived; communicator and stream are alive.
        let result = unsafe {
            (self.api.all_reduce)(memory, memory, buffer.len(), FLOAT32, SUM, self.raw, stream.raw().cast())
        };
        self.api.check(result, "ncclAllReduce")
    }

    /// Ends everything that is under way, without the others.
    pub(super) fn abort(&mut self) {
        let raw = std::mem::replace(&mut self.raw, std::ptr::null_mut());
        if !raw.is_null() {
            // SAFETY: the communicator is alive, and never used again.
            let result = unsafe { (self.api.abort)(raw) };
            if let Err(problem) = self.api.check(result, "ncclCommAbort") {
                tracing::debug!("{problem}");
            }
        }
    }

    /// Begins to leave; [`Self::progress`] tells when all is flushed.
    pub(super) fn finalize(&self) -> Result<Progress, String> {
        if self.raw.is_null() {
            return Ok(Progress::Done);
        }
        // SAFETY: the communicator is alive.
        let result = unsafe { (self.api.finalize)(self.raw) };
        self.api.check(result, "ncclCommFinalize")
    }

    /// Frees it after [`Self::finalize`].
    pub(super) fn destroy(&mut self) {
        let raw = std::mem::replace(&mut self.raw, std::ptr::null_mut());
        if !raw.is_null() {
            // SAFETY: the communicator is finalised, and never used again.
            let result = unsafe { (self.api.destroy)(raw) };
            if let Err(problem) = self.api.check(result, "ncclCommDestroy") {
                tracing::debug!("{problem}");
            }
        }
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        self.abort();
    }
}
