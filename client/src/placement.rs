//! Where a request's tensors lie: in which session, at which offsets. A request that outlives its
//! session moves to the next one with its bytes.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use adjoin_schema::descriptor::DescriptorWriter;
use adjoin_schema::layout::RegionKind;

use crate::client::Patience;
use crate::exchange::Exchange;
use crate::reclaim::Extents;
use crate::session::Session;
use crate::{Explanation, InferError};

impl Exchange {
    /// Room for the inputs and the descriptor in a session, with the descriptor written.
    pub(crate) fn place(&self, session: &Session) -> Result<Extents, InferError> {
        let byte_sizes = self.inputs.iter().map(|input| input.byte_size);
        let inputs = session.allocate_inputs(byte_sizes)?;
        let mut writer = DescriptorWriter::new();
        let request = self.descriptor(&inputs);
        let bytes = writer.request(&request).map_err(|rejection| {
            InferError::Invalid(Explanation::new(rejection, Some(&request), None))
        })?;
        let mut descriptor = session.allocate_descriptor(bytes.len() as u64)?;
        descriptor.write(bytes);
        Ok(Extents {
            inputs,
            descriptor: Some(descriptor),
        })
    }

    /// Goes to a session that takes requests, with the inputs as they are.
    #[cold]
    pub(crate) fn move_over(&mut self, patience: Patience) -> Result<(), InferError> {
        let session = self.client.live_session(patience)?;
        if Arc::ptr_eq(&session, &self.session) {
            return Ok(());
        }
        let mut extents = self.place(&session)?;
        for (from, to) in self.extents.inputs.iter().zip(&mut extents.inputs) {
            from.payload().copy_to(&mut to.payload_mut());
        }
        // A server that closes a session takes its pages back from the first one on. If that one is still
        // there after the copy, then all were there before it.
        fence(Ordering::Acquire);
        let is_lost = self.session.is_memory_taken_back(RegionKind::Request);
        for input in &mut self.inputs {
            input.is_lost |= is_lost && input.byte_size > 0;
        }
        self.begin_in(session, extents);
        Ok(())
    }
}
