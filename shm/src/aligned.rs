//! Private bytes that begin where an engine may read and write them, for memory that comes and goes with a request.

use adjoin_schema::limits::ALIGNMENT;

use crate::payload::{Payload, PayloadMut};

/// Bytes of this process that begin at a multiple of 64.
#[derive(Debug)]
pub struct AlignedBytes {
    /// Does not move, so that what is aligned stays so.
    bytes: Vec<u8>,
    start: usize,
}

/// The alignment as an offset in memory.
const STEP: usize = 64;
const _: () = assert!(STEP as u64 == ALIGNMENT);

/// Bytes to be left out from `address` on, fewer than 64, for what comes then to begin where an engine may read it.
#[must_use]
pub fn padding(address: usize) -> usize {
    address.wrapping_neg() % STEP
}

impl AlignedBytes {
    /// So many zeros.
    #[must_use]
    pub fn zeroed(byte_size: usize) -> Self {
        let mut bytes = vec![0; byte_size + STEP - 1];
        let start = padding(bytes.as_ptr().addr());
        bytes.truncate(start + byte_size);
        Self { bytes, start }
    }

    /// A copy of a payload.
    #[must_use]
    pub fn holding(payload: Payload<'_>) -> Self {
        let mut copy = Self::zeroed(payload.byte_size());
        payload.copy_to(&mut copy.payload_mut());
        copy
    }

    /// What `fill` appends, in room for `byte_size` bytes that nobody has written yet; `None` if there is no memory for
    /// it. What it appends beyond the room is cut off.
    pub(crate) fn filled<E>(
        byte_size: usize,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Option<Result<Self, E>> {
        let mut bytes = Vec::<u8>::new();
        let room = byte_size.checked_add(STEP - 1)?;
        bytes.try_reserve_exact(room).ok()?;
        let start = padding(bytes.as_ptr().addr());
        bytes.resize(start, 0);
        let place = bytes.as_ptr();
        Some(fill(&mut bytes).map(|()| {
            bytes.truncate(start + byte_size);
            if bytes.as_ptr() == place {
                return Self { bytes, start };
            }
            // It wrote more than it had room for.
            Self::holding(Payload::from_slice(&bytes[start..]))
        }))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The bytes, to be written.
    #[must_use]
    pub fn payload_mut(&mut self) -> PayloadMut<'_> {
        PayloadMut::from_slice(&mut self.bytes[self.start..])
    }
}

impl PartialEq for AlignedBytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for AlignedBytes {}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(copy: &AlignedBytes, bytes: &[u8]) {
        assert_eq!(copy.bytes(), bytes);
        assert_eq!(
            copy.bytes().as_ptr().addr() % 64,
            0,
            "{} bytes",
            bytes.len()
        );
    }

    #[test]
    fn bytes_begin_at_a_multiple_of_the_alignment() {
        for byte_size in [0, 1, 63, 64, 65, 1 << 20] {
            check(&AlignedBytes::zeroed(byte_size), &vec![0; byte_size]);
            let wanted = vec![7; byte_size];
            for more in [0, 1, 1000] {
                let fill = |bytes: &mut Vec<u8>| {
                    bytes.extend(std::iter::repeat_n(7, byte_size + more));
                    Ok::<_, ()>(())
                };
                let filled = AlignedBytes::filled(byte_size, fill).unwrap();
                check(&filled.unwrap(), &wanted);
            }
        }
        check(&AlignedBytes::holding(Payload::from_slice(b"abc")), b"abc");
        let failed = AlignedBytes::filled(8, |_| Err(1)).unwrap();
        assert_eq!(failed.unwrap_err(), 1);
        assert!(AlignedBytes::filled(usize::MAX, |_| Ok::<_, ()>(())).is_none());
    }
}
