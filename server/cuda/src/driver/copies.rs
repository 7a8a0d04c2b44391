//! A list of copies that bring the pieces of a batch together, or take them apart, joined where neighbours touch.

use super::hold::Hold;
use super::host::HostRange;

/// Where the pieces of requests lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Host,
    /// On the device, in memory that a client shares.
    Device,
}

/// Copies between the pieces of requests and ranges of a batch's buffer on the device, and what keeps both alive. Reused:
/// clearing keeps the room.
#[derive(Debug, Default)]
pub(crate) struct CopyList {
    pub(super) sides: Vec<Side>,
    /// The pieces: addresses of this process for those on the host.
    pub(super) pieces: Vec<u64>,
    /// The pieces, where the device sees them.
    pub(super) mapped: Vec<u64>,
    /// Ranges of the batch's buffer.
    pub(super) device: Vec<u64>,
    pub(super) byte_sizes: Vec<usize>,
    pub(super) holds: Vec<Hold>,
}

/// A piece of a request.
struct Piece {
    side: Side,
    address: u64,
    mapped: u64,
    byte_size: usize,
}

impl CopyList {
    /// A list with room for `pieces`, which then needs no allocation.
    pub(crate) fn with_capacity(pieces: usize) -> Self {
        Self {
            sides: Vec::with_capacity(pieces),
            pieces: Vec::with_capacity(pieces),
            mapped: Vec::with_capacity(pieces),
            device: Vec::with_capacity(pieces),
            byte_sizes: Vec::with_capacity(pieces),
            holds: Vec::with_capacity(2 * pieces + 2),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.sides.clear();
        self.pieces.clear();
        self.mapped.clear();
        self.device.clear();
        self.byte_sizes.clear();
        self.holds.clear();
    }

    /// Adds a copy between `host` and `device`. `hold` keeps the host's range alive; the list takes it over.
    ///
    /// One that goes on where the last one ends, on both sides and within one registration, is joined to it: a copy
    /// that reaches from one registration into another is refused by the driver.
    pub(crate) fn push(&mut self, host: HostRange, hold: Hold, device: u64) {
        let piece = Piece {
            side: Side::Host,
            address: host.address as u64,
            mapped: host.device_address,
            byte_size: host.byte_size,
        };
        self.add(piece, hold, device);
    }

    /// The same for a piece on the device, in the memory that `hold` keeps.
    pub(crate) fn push_on_device(
        &mut self,
        address: u64,
        byte_size: usize,
        hold: Hold,
        device: u64,
    ) {
        let piece = Piece {
            side: Side::Device,
            address,
            mapped: address,
            byte_size,
        };
        self.add(piece, hold, device);
    }

    fn add(&mut self, piece: Piece, hold: Hold, device: u64) {
        if piece.byte_size == 0 {
            return;
        }
        if self.touches_last(&piece, &hold, device) {
            if let Some(byte_size) = self.byte_sizes.last_mut() {
                *byte_size += piece.byte_size;
            }
            return;
        }
        self.sides.push(piece.side);
        self.pieces.push(piece.address);
        self.mapped.push(piece.mapped);
        self.device.push(device);
        self.byte_sizes.push(piece.byte_size);
        self.holds.push(hold);
    }

    /// Holds of one kind keep memory of one side, so sides need not be compared.
    fn touches_last(&self, piece: &Piece, hold: &Hold, device: u64) -> bool {
        let (Some(&last_piece), Some(&last_device), Some(&byte_size), Some(last_hold)) = (
            self.pieces.last(),
            self.device.last(),
            self.byte_sizes.last(),
            self.holds.last(),
        ) else {
            return false;
        };
        last_piece + byte_size as u64 == piece.address
            && last_device + byte_size as u64 == device
            && last_hold.is_same(hold)
    }

    /// Copies after joining.
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes of all copies.
    pub(crate) fn byte_size(&self) -> usize {
        self.byte_sizes.iter().sum()
    }

    /// Bytes of the largest copy.
    pub(super) fn largest(&self) -> usize {
        self.byte_sizes.iter().copied().max().unwrap_or(0)
    }
}
