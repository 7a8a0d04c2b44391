//! A stream with everything that its transfers touch.
//!
//! A transfer goes on after the call that asked for it has returned, after an error, and after its caller has panicked.
//! If its memory is unmapped meanwhile, the device reads or writes what is no longer there. So only a lane enqueues
//! transfers; it holds what they touch, and lets go of it when an event behind them has fired. A lane that is dropped
//! waits first. A lane that cannot wait, because the context is lost, hands what it holds to the context's quarantine.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use adjoin_shm::{Payload, PayloadMut};
use cudarc::driver::sys::{
    CUmemLocation_st, CUmemLocationType, CUmemcpyAttributes, CUmemcpySrcAccessOrder,
};

use super::copies::CopyList;
use super::graph::{self, Graph};
use super::hold::Hold;
use super::host::PinnedBuffer;
use super::memory::DeviceBuffer;
use super::module::{Grid, Kernel, Module, argument};
use super::stream::{Event, Stream};
use crate::device::Device;
use crate::error::CudaError;

/// Which way bytes go.
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

/// A stream, the event behind its work, and what that work touches.
#[derive(Debug)]
pub struct Lane {
    stream: Stream,
    done: Event,
    holds: Vec<Hold>,
    /// Whether there may be work that was not waited for.
    in_flight: bool,
    /// Whether `done` is behind all of it.
    is_marked: bool,
}

/// Bytes of an entry of the table that the copy kernel reads: source, destination, size.
pub(crate) const ROW_BYTES: usize = 24;

impl Lane {
    /// A lane on `device` with room for what `pieces` transfers touch, so that holding it needs no allocation.
    ///
    /// # Errors
    /// If the driver has no resources for it.
    pub fn new(device: &Device, pieces: usize) -> Result<Self, CudaError> {
        Ok(Self {
            stream: Stream::new(device)?,
            done: Event::new(device)?,
            holds: Vec::with_capacity(pieces + 8),
            in_flight: false,
            is_marked: false,
        })
    }

    /// The stream, to wait for events, to record them, and for an engine's own work.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Keeps a device buffer until all work so far and that of now is done: for work that an engine enqueues itself.
    pub fn keep(&mut self, buffer: &DeviceBuffer) {
        self.touch();
        self.holds.push(buffer.hold());
    }

    pub(crate) fn keep_buffer(&mut self, buffer: Option<&DeviceBuffer>) {
        if let Some(buffer) = buffer {
            self.keep(buffer);
        }
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

    pub(super) fn keep_module(&mut self, module: &Arc<Module>) {
        self.holds.push(module.hold());
    }

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
        let entered = self.stream.context().enter()?;
        let stream = self.stream.raw();
        let ranges = list.host.iter().zip(&list.device).zip(&list.byte_sizes);
        for ((&host, &device), &byte_size) in ranges {
            let host = ptr::with_exposed_provenance_mut::<c_void>(to_address(host));
            match direction {
                Direction::ToDevice => {
                    // SAFETY: both ranges are held by this lane, which waits for the stream before it lets go.
                    let status = unsafe {
                        (entered.table().cuMemcpyHtoDAsync_v2)(device, host, byte_size, stream)
                    };
                    entered.check("cuMemcpyHtoDAsync_v2", status)?;
                }
                Direction::ToHost => {
                    // SAFETY: as above; nobody else writes the range, as whoever made the list had a `PayloadMut` of it.
                    let status = unsafe {
                        (entered.table().cuMemcpyDtoHAsync_v2)(host, device, byte_size, stream)
                    };
                    entered.check("cuMemcpyDtoHAsync_v2", status)?;
                }
            }
        }
        Ok(())
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
        let entered = self.stream.context().enter()?;
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
        let count = list.host.len();
        let (destinations, sources) = match direction {
            Direction::ToDevice => (&mut list.device, &mut list.host),
            Direction::ToHost => (&mut list.host, &mut list.device),
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
                self.stream.raw(),
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
        let mut address = table.range(at, rows * ROW_BYTES)?.device_address;
        let mut count = to_u32(rows)?;
        self.touch();
        self.holds.push(table.hold());
        self.holds.push(module.hold());
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

    /// Enqueues a kernel. `arguments` are addresses of values of the types that it takes, in its order; they are read
    /// before this returns.
    pub(super) fn launch(
        &mut self,
        module: &Module,
        kernel: Kernel,
        grid: Grid,
        arguments: &mut [*mut c_void],
    ) -> Result<(), CudaError> {
        self.touch();
        let entered = self.stream.context().enter()?;
        let [x, y, z] = grid.blocks;
        // SAFETY:
        // - the arguments are those of the kernel, as its callers in this module's parent see to;
        // - what they lead to is held by this lane.
        let status = unsafe {
            (entered.table().cuLaunchKernel)(
                module.get(kernel),
                x,
                y,
                z,
                grid.threads,
                1,
                1,
                0,
                self.stream.raw(),
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        entered.check("cuLaunchKernel", status)
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
        let address = to.range(at, from.byte_size())?;
        self.touch();
        let entered = self.stream.context().enter()?;
        // SAFETY: the source is valid until this returns, and the stream is waited for below. If that fails, the driver
        // has copied the source to its own memory before it returned, as it does with memory that is not pinned.
        let status = unsafe {
            (entered.table().cuMemcpyHtoDAsync_v2)(
                address,
                from.as_ptr().cast(),
                from.byte_size(),
                self.stream.raw(),
            )
        };
        entered.check("cuMemcpyHtoDAsync_v2", status)?;
        drop(entered);
        self.stream.synchronize()
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
        let address = from.range(at, to.byte_size())?;
        self.touch();
        let entered = self.stream.context().enter()?;
        // SAFETY: as in `copy_pageable_in`: a copy to memory that is not pinned is over when the call returns.
        let status = unsafe {
            (entered.table().cuMemcpyDtoHAsync_v2)(
                to.as_mut_ptr().cast(),
                address,
                to.byte_size(),
                self.stream.raw(),
            )
        };
        entered.check("cuMemcpyDtoHAsync_v2", status)?;
        drop(entered);
        self.stream.synchronize()
    }

    /// Enqueues a copy within the device.
    ///
    /// # Errors
    /// If a range does not fit, or the driver refuses.
    pub fn copy_on_device(
        &mut self,
        to: (&DeviceBuffer, usize),
        from: (&DeviceBuffer, usize),
        byte_size: usize,
    ) -> Result<(), CudaError> {
        let destination = to.0.range(to.1, byte_size)?;
        let source = from.0.range(from.1, byte_size)?;
        self.keep(to.0);
        self.keep(from.0);
        let entered = self.stream.context().enter()?;
        // SAFETY: both ranges lie in buffers that this lane holds.
        let status = unsafe {
            (entered.table().cuMemcpyDtoDAsync_v2)(
                destination,
                source,
                byte_size,
                self.stream.raw(),
            )
        };
        entered.check("cuMemcpyDtoDAsync_v2", status)
    }

    /// Enqueues zeros for a range of a buffer: rows that a batch does not fill.
    ///
    /// # Errors
    /// If the range does not fit, or the driver refuses.
    pub fn clear_range(
        &mut self,
        buffer: &DeviceBuffer,
        at: usize,
        byte_size: usize,
    ) -> Result<(), CudaError> {
        let address = buffer.range(at, byte_size)?;
        if byte_size == 0 {
            return Ok(());
        }
        self.keep(buffer);
        let entered = self.stream.context().enter()?;
        // SAFETY: the range lies in a buffer that this lane holds.
        let status =
            unsafe { (entered.table().cuMemsetD8Async)(address, 0, byte_size, self.stream.raw()) };
        entered.check("cuMemsetD8Async", status)
    }

    /// Records what `enqueue` enqueues in this lane, instead of running it.
    ///
    /// # Errors
    /// What `enqueue` returns, or the driver's refusal to record something of it.
    pub fn capture<E: From<CudaError>>(
        &mut self,
        enqueue: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<Graph, E> {
        self.settle()?;
        graph::begin_capture(&self.stream)?;
        let outcome = enqueue(self);
        // What was recorded belongs to the graph; nothing of it runs.
        let holds = std::mem::take(&mut self.holds);
        self.in_flight = false;
        match outcome {
            Ok(()) => Ok(graph::end_capture(&self.stream, holds)?),
            Err(error) => {
                graph::abandon_capture(&self.stream);
                Err(error)
            }
        }
    }

    /// Enqueues all work of a graph.
    ///
    /// # Errors
    /// If the graph is of an earlier generation of the context, or the driver refuses.
    pub fn replay(&mut self, graph: &Graph) -> Result<(), CudaError> {
        if graph.generation() != self.stream.generation() {
            let device = self.stream.context().ordinal();
            let generation = graph.generation();
            return Err(CudaError::ContextGone { device, generation });
        }
        self.touch();
        self.holds.push(Hold::Graph(graph.parts.clone()));
        graph::launch(graph, &self.stream)
    }

    /// Puts the event behind the work so far, once.
    fn mark(&mut self) -> Result<(), CudaError> {
        if self.is_marked {
            return Ok(());
        }
        self.stream.record(&self.done)?;
        self.is_marked = true;
        Ok(())
    }

    /// Waits until all work is done, and lets go of what it touched.
    ///
    /// # Errors
    /// If the work failed.
    pub fn settle(&mut self) -> Result<(), CudaError> {
        if !self.in_flight {
            return Ok(());
        }
        self.mark()?;
        self.done.synchronize()?;
        self.let_go();
        Ok(())
    }

    /// Whether all work is done, without waiting. What it touched is let go of if it is.
    ///
    /// # Errors
    /// If the work failed.
    pub fn is_settled(&mut self) -> Result<bool, CudaError> {
        if self.in_flight {
            self.mark()?;
            if self.done.is_done()? {
                self.let_go();
            }
        }
        Ok(!self.in_flight)
    }

    /// Waits for whatever is under way, by every means there is, and lets go of what it touched. To be called after an
    /// error: no transfer is left when it returns, or its memory is in quarantine.
    pub fn drain(&mut self) {
        if !self.in_flight {
            return;
        }
        let context = self.stream.context().clone();
        let synchronized = self.stream.synchronize().or_else(|_| {
            // An error of this one call says nothing of the transfers: ask again, for all of the context.
            context.enter()?.synchronize()
        });
        match synchronized {
            Ok(()) => self.let_go(),
            Err(_) => {
                context.quarantine(self.holds.drain(..));
                self.in_flight = false;
            }
        }
    }

    /// There is work from here on that nobody has waited for.
    fn touch(&mut self) {
        self.in_flight = true;
        self.is_marked = false;
    }

    fn let_go(&mut self) {
        self.holds.clear();
        self.in_flight = false;
    }

    fn hold_all(&mut self, list: &mut CopyList) {
        self.touch();
        self.holds.append(&mut list.holds);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.drain();
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
