//! Where an engine that reads and writes requests' pieces by itself puts an output.

use adjoin_shm::{AlignedBuffer, Payload, PayloadMut};
use smallvec::SmallVec;

use crate::{ExecuteError, Output};

/// Where each request has an input.
pub type Pieces<'a> = SmallVec<[Payload<'a>; 32]>;
/// Where each request wants an output, in the order of the rows; none if nobody does.
pub type Rooms<'a> = SmallVec<[PayloadMut<'a>; 32]>;

impl<'b> Output<'b> {
    /// Takes the rooms for an output of `byte_size` bytes, which leaves [`Output::Skipped`] behind. For one whose room the
    /// server does not have yet it is `own`, which grows to that size.
    ///
    /// # Errors
    /// If the rooms are not of `byte_size` bytes together, or there is no memory.
    pub fn take_rooms<'a>(
        &mut self,
        byte_size: usize,
        own: &'a mut AlignedBuffer,
    ) -> Result<Rooms<'a>, ExecuteError>
    where
        'b: 'a,
    {
        let rooms: Rooms<'a> = match std::mem::replace(self, Output::Skipped) {
            Output::Bound { payload, .. } => SmallVec::from_iter([payload]),
            Output::Pieces { pieces, .. } => pieces.into_iter().collect(),
            Output::Unbound => {
                let reserved = own.reserve(byte_size);
                reserved.map_err(|error| ExecuteError::Mismatch {
                    reason: format!("an output of {byte_size} bytes: {error}"),
                })?;
                SmallVec::from_iter([own.payload_mut(byte_size)])
            }
            Output::Skipped => return Ok(SmallVec::new()),
        };
        let given: usize = rooms.iter().map(PayloadMut::byte_size).sum();
        if given == byte_size {
            return Ok(rooms);
        }
        Err(ExecuteError::Mismatch {
            reason: format!("an output has {byte_size} bytes, and there is room for {given}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use adjoin_schema::DataType;

    use super::*;

    #[test]
    fn rooms_are_those_of_the_output_or_the_engines_own() {
        let mut own = AlignedBuffer::default();
        let sizes = |rooms: Rooms<'_>| Vec::from_iter(rooms.iter().map(PayloadMut::byte_size));
        let rooms = Output::Unbound.take_rooms(24, &mut own).unwrap();
        assert_eq!(sizes(rooms), [24]);
        assert!(Output::Skipped.take_rooms(24, &mut own).unwrap().is_empty());
        let mut bytes = [0; 24];
        let (first, second) = PayloadMut::from_slice(&mut bytes).split_at(8);
        let mut output = Output::Pieces {
            dtype: DataType::Fp32,
            shape: &[3, 2],
            pieces: vec![first, second],
        };
        assert_eq!(sizes(output.take_rooms(24, &mut own).unwrap()), [8, 16]);
        assert!(matches!(output, Output::Skipped));
    }

    #[test]
    fn rooms_of_another_size_are_an_error() {
        let mut bytes = [0; 20];
        let mut output = Output::Bound {
            dtype: DataType::Fp32,
            shape: &[3, 2],
            payload: PayloadMut::from_slice(&mut bytes),
        };
        let error = output
            .take_rooms(24, &mut AlignedBuffer::default())
            .unwrap_err();
        assert!(error.to_string().contains("room for 20"), "{error}");
    }
}
