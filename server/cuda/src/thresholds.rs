//! Which form of copy for which pieces, measured on the device at hand.

use std::time::{Duration, Instant};

use crate::counters::CopyForm;
use crate::device::Device;
use crate::driver::{CopyList, DeviceBuffer, Direction, Lane, PinnedBuffer, ROW_BYTES, Waiting};
use crate::error::CudaError;
use crate::kernels::Kernels;

/// Where one form of copy begins to be faster than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Pieces of fewer bytes than this, on average, are moved by one kernel. 0: never.
    pub kernel_below_bytes: usize,
    /// From this number of pieces on they are given to the driver in one call, where it can do that.
    pub batched_from_pieces: usize,
}

impl Default for Thresholds {
    /// Guesses for devices on PCIe, for where nothing was measured: a launch costs about as much as one copy, and a
    /// copy engine needs some tens of kilobytes to come to its speed.
    fn default() -> Self {
        Self {
            kernel_below_bytes: 32 * 1024,
            batched_from_pieces: 4,
        }
    }
}

/// Pieces of a measurement.
const PIECES: usize = 32;
/// Bytes of a piece, for the first threshold.
const SIZES: [usize; 6] = [1 << 10, 4 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10];
/// Pieces, for the second.
const COUNTS: [usize; 5] = [2, 4, 8, 16, 32];
/// Bytes of a piece, for the second.
const BATCHED_BYTES: usize = 64 << 10;
/// A wake-up would be as long as what is measured.
const AWAKE: Waiting = Waiting {
    nap: Duration::ZERO,
    look: Duration::from_millis(10),
};
/// Turns, of which the median counts.
const TURNS: usize = 9;

impl Thresholds {
    /// The form for `copies` copies of `byte_size` bytes in all.
    #[must_use]
    pub fn choose(&self, copies: usize, byte_size: usize, has_batched_copy: bool) -> CopyForm {
        if copies <= 1 {
            CopyForm::Contiguous
        } else if byte_size / copies < self.kernel_below_bytes {
            CopyForm::Kernel
        } else if has_batched_copy && copies >= self.batched_from_pieces {
            CopyForm::Batched
        } else {
            CopyForm::Copies
        }
    }

    /// Times all forms on `device`, from pinned memory, asking to waiting. Takes some tens of milliseconds.
    ///
    /// # Errors
    /// If the device has no 8 MiB for it, or a copy fails.
    pub fn measure(device: &Device, kernels: &Kernels) -> Result<Self, CudaError> {
        let mut bench = Bench::new(device, kernels)?;
        let mut thresholds = Self {
            kernel_below_bytes: 0,
            batched_from_pieces: usize::MAX,
        };
        for byte_size in SIZES {
            let kernel = bench.time(CopyForm::Kernel, PIECES, byte_size)?;
            let other = bench
                .time(CopyForm::Copies, PIECES, byte_size)?
                .min(bench.time(CopyForm::Batched, PIECES, byte_size)?);
            if kernel >= other {
                break;
            }
            thresholds.kernel_below_bytes = byte_size + 1;
        }
        for pieces in COUNTS.into_iter().rev() {
            let batched = bench.time(CopyForm::Batched, pieces, BATCHED_BYTES)?;
            if batched >= bench.time(CopyForm::Copies, pieces, BATCHED_BYTES)? {
                break;
            }
            thresholds.batched_from_pieces = pieces;
        }
        Ok(thresholds)
    }
}

/// What a measurement copies between.
struct Bench<'k> {
    kernels: &'k Kernels,
    has_batched_copy: bool,
    lane: Lane,
    list: CopyList,
    source: PinnedBuffer,
    table: PinnedBuffer,
    destination: DeviceBuffer,
}

impl<'k> Bench<'k> {
    fn new(device: &Device, kernels: &'k Kernels) -> Result<Self, CudaError> {
        let byte_size = PIECES * SIZES[SIZES.len() - 1];
        Ok(Self {
            kernels,
            has_batched_copy: device.driver().has_batched_copy(),
            lane: Lane::new(device, PIECES)?,
            list: CopyList::with_capacity(PIECES),
            source: PinnedBuffer::new(device, byte_size)?,
            table: PinnedBuffer::new(device, PIECES * ROW_BYTES)?,
            destination: DeviceBuffer::new(device, byte_size)?,
        })
    }

    /// The median of some turns; the longest there is for a form that the driver does not have.
    fn time(
        &mut self,
        form: CopyForm,
        pieces: usize,
        byte_size: usize,
    ) -> Result<Duration, CudaError> {
        if form == CopyForm::Batched && !self.has_batched_copy {
            return Ok(Duration::MAX);
        }
        let mut times = [Duration::ZERO; TURNS];
        for time in &mut times {
            let start = Instant::now();
            self.copy(form, pieces, byte_size)?;
            self.lane.settle_by(AWAKE)?;
            *time = start.elapsed();
        }
        times.sort_unstable();
        Ok(times[TURNS / 2])
    }

    fn copy(&mut self, form: CopyForm, pieces: usize, byte_size: usize) -> Result<(), CudaError> {
        for piece in 0..pieces {
            // In turned order, so that no two can be joined.
            let from = self
                .source
                .range((pieces - 1 - piece) * byte_size, byte_size)?;
            let to = self.destination.range(piece * byte_size, byte_size)?;
            self.list.push(from, self.source.hold(), to);
        }
        let (lane, list) = (&mut self.lane, &mut self.list);
        let direction = Direction::ToDevice;
        match form {
            CopyForm::Contiguous | CopyForm::Copies => lane.copy_each(list, direction),
            CopyForm::Batched => lane.copy_batched(list, direction),
            CopyForm::Kernel => {
                let module = self.kernels.module();
                lane.copy_by_kernel(list, direction, module, &mut self.table, 0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let thresholds = Thresholds {
            kernel_below_bytes: 1000,
            batched_from_pieces: 4,
        };
        assert_eq!(thresholds.choose(1, 10, true), CopyForm::Contiguous);
        assert_eq!(thresholds.choose(2, 1998, true), CopyForm::Kernel);
        assert_eq!(thresholds.choose(2, 2000, true), CopyForm::Copies);
        assert_eq!(thresholds.choose(4, 4000, true), CopyForm::Batched);
        assert_eq!(thresholds.choose(4, 4000, false), CopyForm::Copies);
    }
}
