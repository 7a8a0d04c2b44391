//! Buffers of the device for one batch, made for the largest that is known, and made anew for a larger one.

use std::collections::HashMap;

use adjoin_cuda::{BatchSlot, CudaError, SlotSpec, Transfers};
use adjoin_schema::Shape;
use smallvec::SmallVec;

use super::session::DeviceSession;

/// What makes two batches the same to a graph, in one set of buffers: the shapes of all inputs, and which outputs are
/// wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GraphKey {
    pub(crate) shapes: SmallVec<[Shape; 4]>,
    pub(crate) wanted: SmallVec<[bool; 8]>,
}

/// Bytes that a batch needs of each tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needed<'n> {
    /// As the engine takes them.
    pub(crate) inputs: &'n [usize],
    /// Of those that are made of pixels; 0 for others.
    pub(crate) pixels: &'n [usize],
    pub(crate) outputs: &'n [usize],
    pub(crate) pieces: usize,
}

/// A batch slot that grows.
#[derive(Debug)]
pub(crate) struct Slot {
    slot: BatchSlot,
    /// Which graph each kind of batch has, over the buffers that there are now; `None` for one that cannot be captured.
    graphs: HashMap<GraphKey, Option<i32>>,
}

impl Slot {
    pub(crate) fn new(transfers: &Transfers, spec: SlotSpec) -> Result<Self, CudaError> {
        Ok(Self {
            slot: BatchSlot::new(transfers, spec)?,
            graphs: HashMap::new(),
        })
    }

    pub(crate) fn batch(&mut self) -> &mut BatchSlot {
        &mut self.slot
    }

    pub(crate) fn transfers(&self) -> &Transfers {
        self.slot.transfers()
    }

    /// Sees to it that a batch fits. What has to grow grows by half at least, so that sizes that creep up do not bring an
    /// allocation each.
    ///
    /// # Errors
    /// If the device has no room; the slot is as before then.
    pub(crate) fn make_room(&mut self, needed: &Needed<'_>) -> Result<(), CudaError> {
        let spec = self.slot.spec();
        if covers(&spec.inputs, needed.inputs)
            && covers(&spec.pixels, needed.pixels)
            && covers(&spec.outputs, needed.outputs)
            && spec.pieces_max >= needed.pieces
        {
            return Ok(());
        }
        let grown = |ahead: fn(usize) -> usize| SlotSpec {
            inputs: grown(&spec.inputs, needed.inputs, ahead),
            pixels: grown(&spec.pixels, needed.pixels, ahead),
            outputs: grown(&spec.outputs, needed.outputs, ahead),
            pieces_max: grown(&[spec.pieces_max], &[needed.pieces], ahead)[0],
        };
        let transfers = self.slot.transfers();
        let ahead = BatchSlot::new(transfers, grown(|byte_size| byte_size + byte_size / 2));
        let slot = match ahead {
            Err(error) if error.is_out_of_memory() => {
                BatchSlot::new(transfers, grown(|byte_size| byte_size))?
            }
            other => other?,
        };
        *self = Self {
            slot,
            graphs: HashMap::new(),
        };
        Ok(())
    }

    /// The graph for a batch, if it has one or can have one.
    pub(crate) fn graph(&mut self, key: &GraphKey, session: &DeviceSession) -> Option<i32> {
        if let Some(known) = self.graphs.get(key) {
            return *known;
        }
        // Nothing is noted where there is none left, or what clients send would fill the table.
        let graph = session.further_graph()?;
        self.graphs.insert(key.clone(), Some(graph));
        Some(graph)
    }

    /// Whether any kind of batch has a graph.
    pub(crate) fn has_graph(&self) -> bool {
        self.graphs.values().any(Option::is_some)
    }

    /// That batches of a kind cannot be captured.
    pub(crate) fn give_up_graph(&mut self, key: GraphKey) {
        self.graphs.insert(key, None);
    }
}

fn covers(has: &[usize], needed: &[usize]) -> bool {
    has.len() == needed.len() && has.iter().zip(needed).all(|(has, needed)| has >= needed)
}

fn grown(has: &[usize], needed: &[usize], ahead: fn(usize) -> usize) -> Vec<usize> {
    let grow = |(&has, &needed): (&usize, &usize)| {
        if needed > has {
            needed.max(ahead(has))
        } else {
            has
        }
    };
    has.iter().zip(needed).map(grow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_to_grow_grows_by_half_and_the_rest_stays() {
        let half = |byte_size: usize| byte_size + byte_size / 2;
        assert_eq!(grown(&[100, 100, 8], &[101, 100, 64], half), [150, 100, 64]);
        assert_eq!(grown(&[100], &[101], |byte_size| byte_size), [101]);
        assert!(covers(&[4, 4], &[4, 0]) && !covers(&[4, 4], &[4, 5]));
    }
}
