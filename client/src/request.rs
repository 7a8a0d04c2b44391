//! A request that is with nobody but its owner: its inputs can be written, and it can be submitted.

use std::sync::Arc;

use adjoin_shm::Element;

use crate::exchange::Exchange;
use crate::pending::{FailedRequest, Pending};
use crate::reclaim::Preparation;
use crate::response::Outputs;
use crate::session::Standing;
use crate::tensor::{TensorInfo, check_element, find};
use crate::{Client, InferError, InputPlace, Lease, SubmitOptions, TensorError};

/// Inputs in shared memory, to be written in place and run, as often as one likes.
///
/// A request keeps its place and its bytes from run to run. When its session is over it moves to the
/// next one, with its bytes. Only where a server shut down and took them with it before this side
/// noticed, the next submission says [`InferError::InputLost`] until they are written again.
#[derive(Debug)]
pub struct Request {
    exchange: Box<Exchange>,
}

impl Request {
    pub(crate) fn new(exchange: Exchange) -> Self {
        Self {
            exchange: Box::new(exchange),
        }
    }

    pub(crate) fn from_exchange(exchange: Box<Exchange>) -> Self {
        Self { exchange }
    }

    /// An input, to be written in place. It holds what was last written.
    ///
    /// # Errors
    /// `NameUnknown`, or `DataTypeMismatch` if `T` is not its element type. Elements of `BOOL` and `BYTES`
    /// inputs are `u8`.
    pub fn input_mut<T: Element>(&mut self, name: &str) -> Result<&mut [T], TensorError> {
        self.input_mut_at(self.index(name)?)
    }

    /// As [`Request::input_mut`], by the order in which the inputs were named to the builder.
    ///
    /// # Errors
    /// `IndexOutOfRange`, or `DataTypeMismatch`.
    pub fn input_mut_at<T: Element>(&mut self, index: usize) -> Result<&mut [T], TensorError> {
        if let Some(info) = self.input_at(index) {
            check_element::<T>(info.name, info.dtype)?;
        }
        Ok(self.exchange.input_range(index)?.as_mut_slice()?)
    }

    /// The bytes of an input, whatever its data type.
    ///
    /// # Errors
    /// `NameUnknown`.
    pub fn input_bytes_mut(&mut self, name: &str) -> Result<&mut [u8], TensorError> {
        self.input_bytes_mut_at(self.index(name)?)
    }

    /// As [`Request::input_bytes_mut`], by the order in which the inputs were named to the builder.
    ///
    /// # Errors
    /// `IndexOutOfRange`.
    pub fn input_bytes_mut_at(&mut self, index: usize) -> Result<&mut [u8], TensorError> {
        Ok(self.exchange.input_range(index)?.as_mut_slice()?)
    }

    /// The place of an input, to be written through its address. While it lives, [`Request::input_mut`]
    /// refuses that input.
    ///
    /// # Errors
    /// `IndexOutOfRange`, or `Forked`.
    pub fn input_place_at(&mut self, index: usize) -> Result<InputPlace, TensorError> {
        let range = Arc::clone(self.exchange.shared_input(index)?);
        Ok(InputPlace::new(&range, &self.exchange.session))
    }

    /// Whether an input lies at that place now.
    #[must_use]
    pub fn is_input_at(&self, index: usize, place: &InputPlace) -> bool {
        let range = self.exchange.extents.inputs.get(index);
        range.is_some_and(|range| range.start() == place.start())
    }

    /// Whether an input went with an earlier session and was not looked at for writing since; see
    /// [`InferError::InputLost`].
    #[must_use]
    pub fn is_input_lost(&self, index: usize) -> bool {
        let input = self.exchange.inputs.get(index);
        input.is_some_and(|input| input.is_lost)
    }

    /// A number that changes whenever the inputs lie elsewhere, as after a move to another session.
    #[must_use]
    pub fn place_id(&self) -> u64 {
        self.exchange.place_id
    }

    /// For those who keep the address of an input while the request has left its session and found no other one yet:
    /// takes over what was written there since, so that it goes to the next session. False if the place,
    /// with the [`Request::place_id`] of its moment, is not of the session that was left, or its
    /// bytes went with the server.
    ///
    /// # Errors
    /// `SizeMismatch`, `IndexOutOfRange`, or `Forked`.
    pub fn catch_up(
        &mut self,
        index: usize,
        place_id: u64,
        place: &InputPlace,
    ) -> Result<bool, TensorError> {
        if !self.exchange.session.is_ours() {
            return Err(TensorError::Forked);
        }
        let count = self.input_count();
        let input = self.exchange.inputs.get(index);
        let byte_size = input
            .ok_or(TensorError::IndexOutOfRange { index, count })?
            .region_bytes();
        let given = place.byte_size();
        if given != byte_size {
            return Err(TensorError::SizeMismatch { given, byte_size });
        }
        Ok(self.exchange.catch_up(index, place_id, place))
    }

    /// Copies the bytes of another place into an input.
    ///
    /// # Errors
    /// `IndexOutOfRange`, `Shared`, `SizeMismatch`, or `Forked`.
    pub fn copy_input_from(&mut self, index: usize, from: &InputPlace) -> Result<(), TensorError> {
        let to = self.exchange.input_range(index)?;
        let (given, byte_size) = (from.byte_size(), to.byte_size());
        if given != byte_size {
            return Err(TensorError::SizeMismatch { given, byte_size });
        }
        from.range().payload().copy_to(&mut to.payload_mut());
        Ok(())
    }

    /// Takes back what a lease of this request keeps with the server: the next run is a prepared one, and
    /// its outputs replace those of the lease. A lease of another request, or from before a move,
    /// just ends.
    pub fn take_back(&mut self, lease: Lease) {
        lease.return_to(&mut self.exchange);
    }

    /// What an input is; `None` past the last one.
    #[must_use]
    pub fn input_at(&self, index: usize) -> Option<TensorInfo<'_>> {
        let input = self.exchange.inputs.get(index)?;
        Some(TensorInfo {
            name: self.exchange.input_name(input),
            dtype: input.dtype,
            shape: &input.shape,
            byte_size: input.byte_size,
            is_on_device: input.on_device.is_some(),
        })
    }

    /// How many inputs there are.
    #[must_use]
    pub fn input_count(&self) -> usize {
        self.exchange.inputs.len()
    }

    /// What the inputs are.
    pub fn inputs(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        self.exchange.inputs.iter().map(|input| TensorInfo {
            name: self.exchange.input_name(input),
            dtype: input.dtype,
            shape: &input.shape,
            byte_size: input.byte_size,
            is_on_device: input.on_device.is_some(),
        })
    }

    fn index(&self, name: &str) -> Result<usize, TensorError> {
        let exchange = &self.exchange;
        find(
            exchange
                .inputs
                .iter()
                .map(|input| exchange.input_name(input)),
            name,
        )
    }

    /// Runs the request and waits for its outputs, which can be read in place until the request is used
    /// again.
    ///
    /// The response of a request that is not prepared is released when the request is next used, or
    /// dropped.
    ///
    /// # Errors
    /// See [`InferError`]. The request can be used again after every one of them. `TooManyInFlight` if
    /// others have taken all places: it does not wait for them, as they may be this thread's own.
    pub fn infer(&mut self) -> Result<Outputs<'_>, InferError> {
        self.infer_with(&SubmitOptions::default())
    }

    /// As [`Request::infer`], with a deadline or a priority. It waits for the server's answer also when the
    /// deadline has passed; for a limit on this side's patience see [`Pending::wait_timeout`].
    ///
    /// # Errors
    /// As [`Request::infer`].
    pub fn infer_with(&mut self, options: &SubmitOptions) -> Result<Outputs<'_>, InferError> {
        self.exchange.start(options)?;
        self.exchange.finish(None)?;
        Outputs::of(&self.exchange)
    }

    /// Submits the request and does not wait.
    ///
    /// # Errors
    /// `TooManyInFlight` if as many requests are out as the session has places, and what else stands in
    /// the way; see [`InferError`]. The error brings the request back.
    pub fn submit(self) -> Result<Pending, FailedRequest> {
        self.submit_with(&SubmitOptions::default())
    }

    /// As [`Request::submit`], with a deadline or a priority.
    ///
    /// # Errors
    /// As [`Request::submit`].
    pub fn submit_with(mut self, options: &SubmitOptions) -> Result<Pending, FailedRequest> {
        match self.exchange.start(options) {
            Ok(()) => Ok(Pending::new(self.exchange)),
            Err(error) => Err(FailedRequest {
                error,
                request: Some(self),
            }),
        }
    }

    /// Gives the last response back now rather than when the request is next used. That of a prepared
    /// request stays.
    pub fn release(&mut self) {
        if self.exchange.session.is_ours() {
            self.exchange.release_answer();
        }
    }

    /// Whether the server keeps the request in its checked form.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        matches!(self.exchange.preparation, Preparation::Done(_))
    }

    /// Whether the next submission finds its session serving, as far as this side knows. If not, it connects
    /// first, which may take as long as [`ClientOptions`](crate::ClientOptions) allow.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let exchange = &self.exchange;
        let standing = || exchange.session.standing_before_submission();
        !exchange.is_ashore && standing() == Standing::Serving
    }

    /// Name of the model.
    #[must_use]
    pub fn model_name(&self) -> &str {
        &self.exchange.target.info.model
    }

    /// The client that the request was made with.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.exchange.client
    }
}
