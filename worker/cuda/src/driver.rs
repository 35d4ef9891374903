//! What NVIDIA's driver says.
#![allow(unsafe_code, reason = "the driver is a C library")]

use std::ffi::c_int;

use cudarc::driver::{result, sys};
use serde::Serialize;

use crate::error::DeviceError;

/// The CUDA that libtorch's libraries are built for, as the driver counts: 13.0.
pub const NEEDED: u32 = 13_000;

/// A driver that has been started.
#[derive(Clone, Copy, Debug)]
pub struct Driver {
    version: u32,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// The driver's number of it.
    pub index: usize,
    /// Such as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Its memory.
    pub memory_bytes: u64,
    /// Such as `9.0`.
    pub compute_capability: String,
    /// Numbers of the GPUs whose memory it can reach directly.
    pub peers: Vec<usize>,
}

impl Driver {
    /// Loads and starts the driver.
    ///
    /// # Errors
    /// When there is none, it does not start, or it is too old for libtorch's CUDA libraries.
    pub fn open() -> Result<Self, DeviceError> {
        let driver = Self::open_any()?;
        if driver.version < NEEDED {
            return Err(DeviceError::DriverTooOld { found: driver.version, needed: NEEDED });
        }
        Ok(driver)
    }

    /// The same, of whatever version.
    ///
    /// # Errors
    /// When there is none, or it does not start.
    pub fn open_any() -> Result<Self, DeviceError> {
        // SAFETY: loads libcuda.so.1, whose initialisers are made for being loaded this way.
        if !unsafe { sys::is_culib_present() } {
            return Err(DeviceError::NoDriver);
        }
        match result::init() {
            Ok(()) => {}
            Err(error) if error.0 == sys::CUresult::CUDA_ERROR_NO_DEVICE => return Err(no_device()),
            Err(error) => return Err(failed(error)),
        }
        let mut version: c_int = 0;
        // SAFETY: the driver is there, and writes one integer.
        unsafe { sys::cuDriverGetVersion(&raw mut version) }.result().map_err(failed)?;
        Ok(Self { version: version.unsigned_abs() })
    }

    /// The newest CUDA that it knows: 13000 is 13.0.
    #[must_use]
    pub fn version(self) -> u32 {
        self.version
    }

    /// How many GPUs it shows, at least one.
    ///
    /// # Errors
    /// When it shows none.
    pub fn count(self) -> Result<usize, DeviceError> {
        match result::device::get_count().map_err(failed)? {
            count if count > 0 => Ok(count.unsigned_abs() as usize),
            _ => Err(no_device()),
        }
    }

    /// All GPUs that it shows.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub fn gpus(self) -> Result<Vec<Gpu>, DeviceError> {
        let count = result::device::get_count().map_err(failed)?;
        let devices = (0..count).map(result::device::get).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        let describe = |(index, device): (usize, &sys::CUdevice)| {
            use sys::CUdevice_attribute::{
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
                CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
            };
            // SAFETY: `device` comes from the driver, which has been started.
            let (memory, major, minor) = unsafe {
                (
                    result::device::total_mem(*device)?,
                    result::device::get_attribute(*device, MAJOR)?,
                    result::device::get_attribute(*device, MINOR)?,
                )
            };
            let mut peers = Vec::new();
            for (other, peer) in devices.iter().enumerate().filter(|(other, _)| *other != index) {
                let mut reaches: c_int = 0;
                // SAFETY: both come from the driver, which writes one integer.
                unsafe { sys::cuDeviceCanAccessPeer(&raw mut reaches, *device, *peer) }.result()?;
                if reaches != 0 {
                    peers.push(other);
                }
            }
            Ok(Gpu {
                index,
                name: result::device::get_name(*device)?,
                memory_bytes: memory as u64,
                compute_capability: format!("{major}.{minor}"),
                peers,
            })
        };
        devices.iter().enumerate().map(describe).collect::<Result<_, _>>().map_err(failed)
    }
}

fn no_device() -> DeviceError {
    DeviceError::NoDevice { visible: std::env::var("CUDA_VISIBLE_DEVICES").ok() }
}

fn failed(error: result::DriverError) -> DeviceError {
    DeviceError::DriverFailed { code: format!("{:?}", error.0) }
}
