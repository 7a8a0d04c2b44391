//! Copies of a batch's pieces, in every form, enqueued in a lane.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use adjoin_shm::{Payload, PayloadMut};
use cudarc::driver::sys::{
    CUmemLocation_st, CUmemLocationType, CUmemcpyAttributes, CUmemcpySrcAccessOrder,
};

use super::context::Entered;
use super::copies::{CopyList, Side};
use super::host::PinnedBuffer;
use super::lane::Lane;
use super::memory::DeviceBuffer;
use super::module::{Grid, Kernel, Module, argument};
use crate::error::CudaError;

/// Which way bytes go: from pieces to the batch's buffer on the device, or back to pieces. Those lie on the host, unless
/// their client shares memory of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToDevice,
    ToHost,
}

/// Bytes that a block of the copy kernel moves in one round.
const BYTES_PER_BLOCK: usize = 16 * 1024;
/// Blocks for each row at most: enough for one row to fill the bus.
const BLOCKS_PER_ROW_MAX: usize = 64;
/// Threads of a block.
const THREADS: u32 = 256;

/// Bytes of an entry of the table that the copy kernel reads: source, destination, size.
pub(crate) const ROW_BYTES: usize = 24;

impl Lane {
    /// Enqueues all copies of `list`, one call for each. The list is empty afterwards.
    ///
    /// # Errors
    /// If the driver refuses one; those before it are under way, and those after it are not.
    pub(crate) fn copy_each(
        &mut self,
        list: &mut CopyList,
        direction: Direction,
    ) -> Result<(), CudaError> {
        self.hold_all(list);
        let outcome = self.enqueue_each(list, direction);
        list.clear();
        outcome
    }

    fn enqueue_each(&self, list: &CopyList, direction: Direction) -> Result<(), CudaError> {
        let entered = self.stream().context().enter()?;
        let pieces = list.sides.iter().zip(&list.pieces);
        let ranges = list.device.iter().zip(&list.byte_sizes);
        for ((&side, &piece), (&device, &byte_size)) in pieces.zip(ranges) {
            match (side, direction) {
                (Side::Host, Direction::ToDevice) => {
                    self.copy_in(&entered, device, piece, byte_size)?;
                }
                (Side::Host, Direction::ToHost) => {
                    self.copy_out(&entered, piece, device, byte_size)?;
                }
                (Side::Device, Direction::ToDevice) => {
                    self.copy_within(&entered, device, piece, byte_size)?;
                }
                (Side::Device, Direction::ToHost) => {
                    self.copy_within(&entered, piece, device, byte_size)?;
                }
            }
        }
        Ok(())
    }

    fn copy_in(
        &self,
        entered: &Entered<'_>,
        to: u64,
        from: u64,
        byte_size: usize,
    ) -> Result<(), CudaError> {
        let from = ptr::with_exposed_provenance::<c_void>(to_address(from));
        let stream = self.stream().raw();
        // SAFETY: both ranges are held by this lane, which waits for the stream before it lets go.
        let status = unsafe { (entered.table().cuMemcpyHtoDAsync_v2)(to, from, byte_size, stream) };
        entered.check("cuMemcpyHtoDAsync_v2", status)
    }

    fn copy_out(
        &self,
        entered: &Entered<'_>,
        to: u64,
        from: u64,
        byte_size: usize,
    ) -> Result<(), CudaError> {
        let to = ptr::with_exposed_provenance_mut::<c_void>(to_address(to));
        let stream = self.stream().raw();
        // SAFETY: as in `copy_in`; nobody else writes the range, as whoever made the list had a `PayloadMut` of it.
        let status = unsafe { (entered.table().cuMemcpyDtoHAsync_v2)(to, from, byte_size, stream) };
        entered.check("cuMemcpyDtoHAsync_v2", status)
    }

    fn copy_within(
        &self,
        entered: &Entered<'_>,
        to: u64,
        from: u64,
        byte_size: usize,
    ) -> Result<(), CudaError> {
        let stream = self.stream().raw();
        // SAFETY: as in `copy_in`; the client may write its part meanwhile, which makes other values of it and no more.
        let status = unsafe { (entered.table().cuMemcpyDtoDAsync_v2)(to, from, byte_size, stream) };
        entered.check("cuMemcpyDtoDAsync_v2", status)
    }

    /// Enqueues all copies of `list` by one call. The list is empty afterwards.
    ///
    /// # Errors
    /// If the driver refuses; [`CudaError::Unsupported`] if it has no such call, and then nothing was enqueued.
    pub(crate) fn copy_batched(
        &mut self,
        list: &mut CopyList,
        direction: Direction,
    ) -> Result<(), CudaError> {
        self.hold_all(list);
        let outcome = self.enqueue_batched(list, direction);
        list.clear();
        outcome
    }

    fn enqueue_batched(&self, list: &mut CopyList, direction: Direction) -> Result<(), CudaError> {
        let entered = self.stream().context().enter()?;
        let Some(copy) = entered.table().cuMemcpyBatchAsync else {
            let (call, since) = ("cuMemcpyBatchAsync", "570");
            return Err(CudaError::Unsupported { call, since });
        };
        let nowhere = CUmemLocation_st {
            type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_INVALID,
            id: 0,
        };
        let mut attributes = CUmemcpyAttributes {
            srcAccessOrder: CUmemcpySrcAccessOrder::CU_MEMCPY_SRC_ACCESS_ORDER_STREAM,
            srcLocHint: nowhere,
            dstLocHint: nowhere,
            flags: 0,
        };
        let mut first = 0;
        let mut failed = usize::MAX;
        let count = list.pieces.len();
        let (destinations, sources) = match direction {
            Direction::ToDevice => (&mut list.device, &mut list.pieces),
            Direction::ToHost => (&mut list.pieces, &mut list.device),
        };
        // SAFETY:
        // - three arrays of `count`, one attribute that holds from copy 0 on;
        // - all ranges are held by this lane, which waits for the stream before it lets go.
        let status = unsafe {
            copy(
                destinations.as_mut_ptr(),
                sources.as_mut_ptr(),
                list.byte_sizes.as_mut_ptr(),
                count,
                &raw mut attributes,
                &raw mut first,
                1,
                &raw mut failed,
                self.stream().raw(),
            )
        };
        entered.check("cuMemcpyBatchAsync", status)
    }

    /// Enqueues one kernel that does all copies of `list`, which it reads from `table`, `at` bytes from its start. The
    /// list is empty afterwards. Nothing else may write that part of the table before the work is done.
    ///
    /// # Errors
    /// If the table is too small, or the driver refuses.
    pub(crate) fn copy_by_kernel(
        &mut self,
        list: &mut CopyList,
        direction: Direction,
        module: &Arc<Module>,
        table: &mut PinnedBuffer,
        at: usize,
    ) -> Result<(), CudaError> {
        self.hold_all(list);
        let rows = list.len();
        let largest = list.largest();
        let outcome = write_table(list, direction, table, at)
            .and_then(|()| self.launch_copy(module, table, at, rows, largest));
        list.clear();
        outcome
    }

    /// Enqueues the copy kernel over `rows` entries of the table as they are when it runs: those of size 0 do nothing.
    pub(crate) fn launch_copy(
        &mut self,
        module: &Arc<Module>,
        table: &PinnedBuffer,
        at: usize,
        rows: usize,
        largest: usize,
    ) -> Result<(), CudaError> {
        self.stream().context().check_same(table.context())?;
        let mut address = table.range(at, rows * ROW_BYTES)?.device_address;
        let mut count = to_u32(rows)?;
        self.hold(table.hold());
        self.hold(module.hold());
        let blocks = largest
            .div_ceil(BYTES_PER_BLOCK)
            .clamp(1, BLOCKS_PER_ROW_MAX);
        let grid = Grid {
            blocks: [to_u32(blocks)?, count.max(1), 1],
            threads: THREADS,
        };
        let arguments = &mut [argument(&mut address), argument(&mut count)];
        self.launch(module, Kernel::CopyRows, grid, arguments)
    }

    /// Copies memory that is not pinned: the driver stages it, and this waits until it is done.
    ///
    /// # Errors
    /// If the range does not fit, or the driver refuses.
    pub(crate) fn copy_pageable_in(
        &mut self,
        to: &DeviceBuffer,
        at: usize,
        from: &Payload<'_>,
    ) -> Result<(), CudaError> {
        self.check_buffer(to)?;
        let address = to.range(at, from.byte_size())?;
        self.touch();
        let entered = self.stream().context().enter()?;
        // SAFETY: the source is valid until this returns, and the stream is waited for below. If that fails, the driver
        // has copied the source to its own memory before it returned, as it does with memory that is not pinned.
        let status = unsafe {
            (entered.table().cuMemcpyHtoDAsync_v2)(
                address,
                from.as_ptr().cast(),
                from.byte_size(),
                self.stream().raw(),
            )
        };
        entered.check("cuMemcpyHtoDAsync_v2", status)?;
        drop(entered);
        self.stream().synchronize()
    }

    /// Copies to memory that is not pinned: the driver stages it, and this waits until it is done.
    ///
    /// # Errors
    /// If the range does not fit, or the driver refuses.
    pub(crate) fn copy_pageable_out(
        &mut self,
        from: &DeviceBuffer,
        at: usize,
        to: &mut PayloadMut<'_>,
    ) -> Result<(), CudaError> {
        self.check_buffer(from)?;
        let address = from.range(at, to.byte_size())?;
        self.touch();
        let entered = self.stream().context().enter()?;
        // SAFETY: as in `copy_pageable_in`: a copy to memory that is not pinned is over when the call returns.
        let status = unsafe {
            (entered.table().cuMemcpyDtoHAsync_v2)(
                to.as_mut_ptr().cast(),
                address,
                to.byte_size(),
                self.stream().raw(),
            )
        };
        entered.check("cuMemcpyDtoHAsync_v2", status)?;
        drop(entered);
        self.stream().synchronize()
    }

    /// Writes the copies of `list` to `rows` entries of a table, for work that is replayed; what the list does not fill
    /// becomes empty. The list is empty afterwards.
    ///
    /// # Errors
    /// If the table is too small.
    pub(crate) fn write_table(
        &mut self,
        list: &mut CopyList,
        direction: Direction,
        table: &mut PinnedBuffer,
        at: usize,
        rows: usize,
    ) -> Result<(), CudaError> {
        self.hold_all(list);
        let outcome = write_table(list, direction, table, at).and_then(|()| {
            (list.len()..rows).try_for_each(|row| write_row(table, at, row, [0; 3]))
        });
        list.clear();
        outcome
    }
}

fn write_table(
    list: &CopyList,
    direction: Direction,
    table: &mut PinnedBuffer,
    at: usize,
) -> Result<(), CudaError> {
    let ranges = list.mapped.iter().zip(&list.device).zip(&list.byte_sizes);
    for (row, ((&host, &device), &byte_size)) in ranges.enumerate() {
        let (source, destination) = match direction {
            Direction::ToDevice => (host, device),
            Direction::ToHost => (device, host),
        };
        write_row(table, at, row, [source, destination, byte_size as u64])?;
    }
    Ok(())
}

/// Writes one entry of a table: source, destination, bytes.
fn write_row(
    table: &mut PinnedBuffer,
    at: usize,
    row: usize,
    entry: [u64; 3],
) -> Result<(), CudaError> {
    let mut bytes = [0; ROW_BYTES];
    for (place, value) in bytes.chunks_exact_mut(8).zip(entry) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
    table.write(at + row * ROW_BYTES, &Payload::from_slice(&bytes))
}

fn to_u32(number: usize) -> Result<u32, CudaError> {
    u32::try_from(number).map_err(|_| CudaError::Arguments {
        reason: format!("{number} is more than a launch takes"),
    })
}

fn to_address(address: u64) -> usize {
    // An address of this process, kept as the driver's type.
    usize::try_from(address).unwrap_or(0)
}
