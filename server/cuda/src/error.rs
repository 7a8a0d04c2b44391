//! What can go wrong with the driver, a device, or a batch on it.

use std::ops::RangeInclusive;

use thiserror::Error;

/// A failure of the driver, of a device, or of what was asked of them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no driver on this machine, or the loader does not find it.
    #[error(
        "no CUDA driver on this machine (libcuda.so.1 is not found); install NVIDIA's driver, or add the directory \
         that has it to LD_LIBRARY_PATH"
    )]
    NoDriver,
    /// The library is there and lacks functions that every supported driver has.
    #[error("the CUDA driver lacks {missing}; install driver 525 or later")]
    DriverTooOld {
        /// Names of the functions.
        missing: String,
    },
    /// The driver is there and sees no device.
    #[error(
        "the CUDA driver sees no device; check CUDA_VISIBLE_DEVICES, and `nvidia-smi` for the driver's state"
    )]
    NoDevice,
    /// There are devices, but not this one.
    #[error("there is no CUDA device {index}: this machine has {count}, counted from 0")]
    WrongDevice {
        /// The number that was asked for.
        index: u32,
        /// Devices that the driver sees.
        count: u32,
    },
    /// A call of the driver failed.
    #[error("{call} failed: {name} ({code}): {text}")]
    Call {
        /// The function of the driver.
        call: &'static str,
        /// The driver's number for the failure.
        code: u32,
        /// The driver's name for it.
        name: String,
        /// The driver's description of it.
        text: String,
    },
    /// An earlier failure left the device's context unusable; nothing runs on it before a reset.
    #[error(
        "the context of CUDA device {device} is lost after an earlier error; it must be rebuilt"
    )]
    ContextLost {
        /// The device's number.
        device: u32,
    },
    /// The object belongs to a context that has been rebuilt since.
    #[error(
        "this object belongs to generation {generation} of the context of CUDA device {device}, which is gone"
    )]
    ContextGone {
        /// The device's number.
        device: u32,
        /// The generation that the object belongs to.
        generation: u64,
    },
    /// The device could not be brought back.
    #[error("CUDA device {device} did not come back after a reset ({reason}); restart the server")]
    NotRecovered {
        /// The device's number.
        device: u32,
        /// What the new context said.
        reason: String,
    },
    /// Pinned memory beyond what the configuration allows.
    #[error("{wanted} bytes of pinned memory are wanted and {left} of {limit} are left")]
    PinnedBudget {
        /// Bytes that were asked for.
        wanted: usize,
        /// Bytes that are free.
        left: usize,
        /// Bytes that may be used in all.
        limit: usize,
    },
    /// A range that is not within a buffer.
    #[error("{byte_size} bytes at {at} do not lie in a buffer of {capacity} bytes")]
    OutOfRange {
        /// First byte.
        at: usize,
        /// Bytes from there on.
        byte_size: usize,
        /// Bytes of the buffer.
        capacity: usize,
    },
    /// A batch of more pieces than the slot was made for.
    #[error("a batch of {pieces} pieces does not fit a slot made for {limit}")]
    TooManyPieces {
        /// Requests in the batch.
        pieces: usize,
        /// Requests that fit.
        limit: usize,
    },
    /// An input or output that the slot does not have.
    #[error("there is no {what} {index}: the slot has {count}, counted from 0")]
    NoSuchTensor {
        /// `input` or `output`.
        what: &'static str,
        /// The number that was asked for.
        index: usize,
        /// How many the slot has.
        count: usize,
    },
    /// Something that only a newer driver can do.
    #[error("this driver has no {call}; install driver {since} or later")]
    Unsupported {
        /// The function that is missing.
        call: &'static str,
        /// The first release of the driver that has it.
        since: &'static str,
    },
    /// Memory of the device that was not made to be shared by descriptor.
    #[error("this device memory was not made to be shared; make it with DeviceBuffer::shareable")]
    NotShareable,
    /// What another process gave is nothing that the driver takes.
    #[error(
        "what was given is no memory of this device: {call} failed with error {code} of the driver"
    )]
    NotTaken {
        /// The driver's function.
        call: &'static str,
        /// What it returned.
        code: u32,
    },
    /// Memory of another process that is not this device's.
    #[error("the memory that was imported is not on this device")]
    OtherDevice,
    /// Arguments that a kernel is not made for.
    #[error("{reason}")]
    Arguments {
        /// What does not fit, with the values.
        reason: String,
    },
    /// The system did not give a thread or memory.
    #[error("{what}: {reason}")]
    System {
        /// What was asked of the system.
        what: &'static str,
        /// What it answered.
        reason: String,
    },
}

/// Failures after which the driver refuses every further call in the same context.
const STICKY: [u32; 15] = [
    4,   // deinitialized
    46,  // device unavailable
    214, // uncorrectable ECC error
    220, // uncorrectable NVLink error
    700, // illegal address
    702, // launch timeout
    709, // context is destroyed
    710, // device-side assertion
    714, // hardware stack error
    715, // illegal instruction
    716, // misaligned address
    717, // invalid address space
    718, // invalid program counter
    719, // launch failed
    999, // unknown
];

/// What the driver says of a capture and a call that do not go together.
const CAPTURE: RangeInclusive<u32> = 900..=908;

/// Out of memory, by the driver's number.
const OUT_OF_MEMORY: u32 = 2;

impl CudaError {
    /// Whether nothing can run in the context any more: the device must be rebuilt by
    /// [`Device::reset`](crate::Device::reset).
    #[must_use]
    pub fn is_sticky(&self) -> bool {
        match self {
            Self::Call { code, .. } => is_sticky_code(*code),
            Self::ContextLost { .. } | Self::NotRecovered { .. } => true,
            _ => false,
        }
    }

    /// Whether a capture was in the way, which passes.
    #[must_use]
    pub fn is_capture(&self) -> bool {
        matches!(self, Self::Call { code, .. } if CAPTURE.contains(code))
    }

    /// Whether device or pinned memory ran out.
    #[must_use]
    pub fn is_out_of_memory(&self) -> bool {
        match self {
            Self::Call { code, .. } => *code == OUT_OF_MEMORY,
            Self::PinnedBudget { .. } => true,
            _ => false,
        }
    }
}

/// Whether a number of the driver stands for a failure that spoils its context.
pub(crate) fn is_sticky_code(code: u32) -> bool {
    STICKY.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(code: u32) -> CudaError {
        let text = String::new();
        CudaError::Call {
            call: "cuMemAlloc_v2",
            code,
            name: text.clone(),
            text,
        }
    }

    #[test]
    fn kinds_of_failure() {
        assert!(call(700).is_sticky());
        assert!(!call(2).is_sticky());
        assert!(call(2).is_out_of_memory());
        assert!(CudaError::ContextLost { device: 0 }.is_sticky());
        assert!(!CudaError::NoDriver.is_sticky());
    }
}
