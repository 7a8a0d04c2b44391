//! Where results go whose size only the run shows: to the one request, or divided among those of a batch by rows.

use adjoin_backend::{OutputSink, SinkError, strings};
use adjoin_schema::{DataType, Shape, element_count};
use adjoin_shm::Payload;
use smallvec::SmallVec;

use crate::session::response::{Dynamic, DynamicTarget};

/// Requests whose outputs of unknown size found no room, and the bytes of all those outputs.
pub(super) type NoRoom = SmallVec<[(usize, u64); 2]>;

/// Outputs of unknown size of one request: their bytes, so that a client learns how much room to make, and whether
/// one of them found none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    byte_size: u64,
    is_full: bool,
}

impl Tally {
    pub(super) fn without_room(tallies: &[Self]) -> NoRoom {
        let full = tallies
            .iter()
            .enumerate()
            .filter(|(_, tally)| tally.is_full);
        full.map(|(index, tally)| (index, tally.byte_size))
            .collect()
    }
}

/// Takes outputs of unknown size for one request.
pub(super) struct Alone {
    pub(super) target: DynamicTarget,
    pub(super) outputs: Vec<Dynamic>,
    pub(super) tally: Tally,
}

impl OutputSink for Alone {
    fn accept(
        &mut self,
        index: usize,
        dtype: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError> {
        self.tally.byte_size += payload.byte_size() as u64;
        match self.target.store(index, dtype, shape, payload) {
            Ok(output) => self.outputs.push(output),
            Err(error) => {
                self.tally.is_full = true;
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Divides outputs of unknown size among the requests of a batch by rows.
pub(super) struct Joined {
    /// For each job, its rows and where its outputs find room; empty where no output is of unknown size.
    pub(super) targets: SmallVec<[(u32, DynamicTarget); 32]>,
    /// Rows of all jobs.
    pub(super) rows: u32,
    pub(super) outputs: Vec<(usize, Dynamic)>,
    /// One for each job.
    pub(super) tallies: SmallVec<[Tally; 32]>,
}

impl OutputSink for Joined {
    fn accept(
        &mut self,
        index: usize,
        dtype: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError> {
        let error = SinkError {
            byte_size: payload.byte_size() as u64,
        };
        let rows = usize::try_from(self.rows).map_err(|_| error.clone())?;
        // An output that does not have a row for each row of the batch cannot be divided: the batch then
        // fails, and its requests run alone.
        if shape.first() != Some(&i64::from(self.rows)) {
            return Err(error);
        }
        let row = Row::of(dtype, shape, payload, rows).ok_or_else(|| error.clone())?;
        let mut at = 0;
        for (of, (rows, target)) in self.targets.iter().enumerate() {
            let byte_size = row.bytes(payload, at, *rows as usize);
            let part = byte_size.and_then(|byte_size| payload.part(at, byte_size));
            let part = part.ok_or_else(|| error.clone())?;
            let byte_size = part.byte_size();
            at += byte_size;
            self.tallies[of].byte_size += byte_size as u64;
            let mut shape = Shape::from_slice(shape);
            shape[0] = i64::from(*rows);
            match target.store(index, dtype, &shape, part) {
                Ok(output) => self.outputs.push((of, output)),
                Err(_) => self.tallies[of].is_full = true,
            }
        }
        Ok(())
    }
}

/// How long a row of an output is.
enum Row {
    Bytes(usize),
    /// Each string says its length.
    Strings(usize),
}

impl Row {
    /// `None` if the output is not made of `rows` equal rows.
    fn of(dtype: DataType, shape: &[i64], payload: Payload<'_>, rows: usize) -> Option<Self> {
        if dtype == DataType::Bytes {
            let strings = element_count(&shape[1..]).ok()?;
            return Some(Self::Strings(usize::try_from(strings).ok()?));
        }
        let is_even = payload.byte_size().is_multiple_of(rows);
        is_even.then(|| Self::Bytes(payload.byte_size() / rows))
    }

    /// Bytes of the `rows` that begin at `at`.
    fn bytes(&self, payload: Payload<'_>, at: usize, rows: usize) -> Option<usize> {
        match self {
            Self::Bytes(row) => row.checked_mul(rows),
            Self::Strings(row) => {
                let end = strings::end(payload, at, row.checked_mul(rows)?)?;
                Some(end - at)
            }
        }
    }
}
