//! Private memory for outputs that no client maps: replies in messages, and tensors between the steps of an ensemble.

use adjoin_schema::limits::ALIGNMENT;
use adjoin_shm::{Payload, PayloadMut};

/// Zeroed bytes that begin where an engine may read and write them.
#[derive(Debug)]
pub(super) struct PrivateRoom {
    bytes: Vec<u8>,
    start: usize,
}

impl PrivateRoom {
    pub(super) fn new(byte_size: usize) -> Self {
        let alignment = usize::try_from(ALIGNMENT).unwrap_or(1);
        // A vector's bytes do not move, so that what is aligned stays so.
        let bytes = vec![0; byte_size + alignment - 1];
        let start = bytes.as_ptr().addr().wrapping_neg() % alignment;
        let mut room = Self { bytes, start };
        room.bytes.truncate(start + byte_size);
        room
    }

    /// A copy of a payload.
    pub(super) fn holding(payload: Payload<'_>) -> Self {
        let mut room = Self::new(payload.byte_size());
        payload.copy_to(&mut room.payload_mut());
        room
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn payload_mut(&mut self) -> PayloadMut<'_> {
        PayloadMut::from_slice(&mut self.bytes[self.start..])
    }
}

impl AsRef<[u8]> for PrivateRoom {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_begin_at_a_multiple_of_the_alignment() {
        for byte_size in [0, 1, 63, 64, 65, 1 << 20] {
            let room = PrivateRoom::new(byte_size);
            assert_eq!(room.bytes().len(), byte_size);
            assert_eq!(room.bytes().as_ptr().addr() % 64, 0, "{byte_size} bytes");
        }
        let room = PrivateRoom::holding(Payload::from_slice(b"abc"));
        assert_eq!(room.bytes(), b"abc");
    }
}
