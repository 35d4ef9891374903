//! A GPU's streams and events, by the driver.
#![allow(unsafe_code, reason = "the driver is a C library")]

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{result, sys};

/// Floats in a GPU's memory that are to be summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceBuffer {
    address: u64,
    len: usize,
}

impl DeviceBuffer {
    /// `len` floats at `address`.
    ///
    /// # Safety
    /// The memory is there, on the device of the communicator that gets the buffer, until the reduction has been settled
    /// and the device has done it; meanwhile nothing but work that the caller's stream was given before reads or writes it.
    #[must_use]
    pub unsafe fn from_raw(address: u64, len: usize) -> Self {
        Self { address, len }
    }

    /// Number of floats.
    #[must_use]
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    pub(super) fn address(self) -> u64 {
        self.address
    }
}

/// Floats on a GPU that are this value's own.
pub(super) struct Memory {
    buffer: DeviceBuffer,
    gpu: Arc<Gpu>,
}

impl Memory {
    /// `len` floats of whatever content.
    pub(super) fn new(gpu: &Arc<Gpu>, len: usize) -> Result<Self, String> {
        gpu.make_current()?;
        // SAFETY: the context is current. The driver gives nothing for nothing.
        let address = unsafe { result::malloc_sync((len * size_of::<f32>()).max(1)) }.map_err(said)?;
        Ok(Self { buffer: DeviceBuffer { address, len }, gpu: Arc::clone(gpu) })
    }

    /// Copies `values`, as many as there are here, to the GPU.
    pub(super) fn write(&self, values: &[f32]) -> Result<(), String> {
        assert_eq!(values.len(), self.buffer.len, "as many floats there as here");
        self.gpu.make_current()?;
        // SAFETY: the memory is there and has room for them.
        unsafe { result::memcpy_htod_sync(self.buffer.address, values) }.map_err(said)
    }

    /// Copies what is there to `values`, which are as many.
    pub(super) fn read(&self, values: &mut [f32]) -> Result<(), String> {
        assert_eq!(values.len(), self.buffer.len, "as many floats here as there");
        self.gpu.make_current()?;
        // SAFETY: the memory is there; all bits are floats.
        unsafe { result::memcpy_dtoh_sync(values, self.buffer.address) }.map_err(said)
    }

    /// The floats, to be summed.
    ///
    /// # Safety
    /// As [`DeviceBuffer::from_raw`], and the copy must not outlive this.
    pub(super) unsafe fn buffer(&self) -> DeviceBuffer {
        self.buffer
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.gpu.make_current().is_ok() {
            // SAFETY: made in `new`, freed once.
            unsafe { result::free_sync(self.buffer.address) }.ok();
        }
    }
}

fn said(error: result::DriverError) -> String {
    format!("{:?}", error.0)
}

/// A GPU that this process uses: its primary context, which libtorch uses too.
#[derive(Debug)]
pub(super) struct Gpu {
    device: sys::CUdevice,
    context: sys::CUcontext,
}

// SAFETY: contexts may be made current on any thread.
unsafe impl Send for Gpu {}
// SAFETY: nothing in it changes.
unsafe impl Sync for Gpu {}

impl Gpu {
    pub(super) fn open(index: usize) -> Result<Arc<Self>, String> {
        // SAFETY: loads libcuda.so.1, whose initialisers are made for being loaded this way.
        if !unsafe { sys::is_culib_present() } {
            return Err("there is no NVIDIA driver on this machine (libcuda.so.1)".into());
        }
        result::init().map_err(said)?;
        let device = result::device::get(index as i32).map_err(said)?;
        // SAFETY: the device comes from the driver; the context is released when this is dropped.
        let context = unsafe { result::primary_ctx::retain(device) }.map_err(said)?;
        Ok(Arc::new(Self { device, context }))
    }

    /// Makes it this thread's device.
    pub(super) fn make_current(&self) -> Result<(), String> {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(self.context) }.map_err(said)
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: retained once in `open`.
        unsafe { result::primary_ctx::release(self.device) }.ok();
    }
}

/// A queue of work on a GPU.
pub(super) struct Stream {
    raw: sys::CUstream,
    /// False for the default stream, which is nobody's.
    owned: bool,
    _gpu: Arc<Gpu>,
}

// SAFETY: the driver's streams may be used from any thread.
unsafe impl Send for Stream {}

impl Stream {
    /// A new one, that does not wait for the default stream.
    pub(super) fn new(gpu: &Arc<Gpu>) -> Result<Self, String> {
        gpu.make_current()?;
        let raw = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(said)?;
        Ok(Self { raw, owned: true, _gpu: Arc::clone(gpu) })
    }

    /// The default stream, on which libtorch works as long as nobody gives it another.
    pub(super) fn default_of(gpu: &Arc<Gpu>) -> Self {
        Self { raw: result::stream::null(), owned: false, _gpu: Arc::clone(gpu) }
    }

    pub(super) fn raw(&self) -> sys::CUstream {
        self.raw
    }

    /// Has what comes later wait, on the GPU, for `mark`.
    pub(super) fn wait_for(&self, mark: &Mark) -> Result<(), String> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are alive; the driver keeps what it needs of the event.
        unsafe { result::stream::wait_event(self.raw, mark.inner.raw, flags) }.map_err(said)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: made in `new`; the driver frees it when its work is done.
            unsafe { result::stream::destroy(self.raw) }.ok();
        }
    }
}

/// A place in a stream's work.
#[derive(Clone, Debug)]
pub struct Mark {
    inner: Arc<Event>,
}

#[derive(Debug)]
struct Event {
    raw: sys::CUevent,
    _gpu: Arc<Gpu>,
}

// SAFETY: the driver's events may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: as above; it is recorded once, before it is shared.
unsafe impl Sync for Event {}

impl Mark {
    /// Marks the end of what `stream` has been told so far. The GPU is current on this thread.
    pub(super) fn at_end_of(stream: &Stream) -> Result<Self, String> {
        let raw = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(said)?;
        let inner = Event { raw, _gpu: Arc::clone(&stream._gpu) };
        // SAFETY: both are alive.
        unsafe { result::event::record(raw, stream.raw) }.map_err(said)?;
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether the GPU has come to it.
    pub(super) fn is_reached(&self) -> Result<bool, String> {
        // SAFETY: the event is alive.
        match unsafe { result::event::query(self.inner.raw) } {
            Ok(()) => Ok(true),
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            Err(error) => Err(said(error)),
        }
    }

    /// Time from `earlier` to this; `None` where the GPU has not come to both. Zero where this comes first.
    #[must_use]
    pub fn since(&self, earlier: &Mark) -> Option<Duration> {
        // SAFETY: both are alive, and of one GPU.
        let milliseconds = unsafe { result::event::elapsed(earlier.inner.raw, self.inner.raw) }.ok()?;
        Some(Duration::from_secs_f32(milliseconds.max(0.0) / 1000.0))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made in `at_end_of`, destroyed once.
        unsafe { result::event::destroy(self.raw) }.ok();
    }
}
