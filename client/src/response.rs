//! Outputs, read where the server wrote them.

use std::sync::Arc;
use std::time::Duration;

use adjoin_schema::layout::{CompletionEntry, completion_flags};
use adjoin_shm::{Element, output_slice};

use crate::answer::{Answer, Output};
use crate::exchange::Exchange;
use crate::session::Session;
use crate::tensor::{TensorInfo, check_element, find};
use crate::{InferError, Lease, OutputPlace, Request, TensorError};

/// The outputs of a request, borrowed from it.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'r> {
    pub(crate) session: &'r Arc<Session>,
    pub(crate) answer: &'r Answer,
    pub(crate) completion: &'r CompletionEntry,
}

/// The answer to a submitted request. Its outputs can be read in place until it is dropped, or made a
/// request again.
#[derive(Debug)]
pub struct Response {
    exchange: Box<Exchange>,
}

/// How a request ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Rows of the batch that it ran in.
    pub batch_size: u32,
    /// From the server's intake to the start of the batch.
    pub queue: Duration,
    /// Time of the batch in the engine.
    pub execute: Duration,
    /// The model version that ran.
    pub model_version: u64,
    /// Whether the server copied the outputs once, because their size was not known before.
    pub is_output_copied: bool,
}

impl<'r> Outputs<'r> {
    pub(crate) fn of(exchange: &'r Exchange) -> Result<Self, InferError> {
        match exchange.completion() {
            Some(completion) => Ok(Self::in_exchange(exchange, completion)),
            None => Err(InferError::protocol("an answer without a completion")),
        }
    }

    fn in_exchange(exchange: &'r Exchange, completion: &'r CompletionEntry) -> Self {
        Self {
            session: &exchange.session,
            answer: &exchange.answer,
            completion,
        }
    }

    /// An output, in place.
    ///
    /// # Errors
    /// `NameUnknown`, or `DataTypeMismatch` if `T` is not its element type. Elements of `BOOL` and `BYTES`
    /// outputs are `u8`.
    pub fn get<T: Element>(&self, name: &str) -> Result<&'r [T], TensorError> {
        let output = self.find(name)?;
        check_element::<T>(&output.name, output.dtype)?;
        self.view(output)
    }

    /// As [`Outputs::get`], by the order of the response.
    ///
    /// # Errors
    /// `IndexOutOfRange`, or `DataTypeMismatch`.
    pub fn get_at<T: Element>(&self, index: usize) -> Result<&'r [T], TensorError> {
        let output = self.output(index)?;
        check_element::<T>(&output.name, output.dtype)?;
        self.view(output)
    }

    /// The bytes of an output, whatever its data type.
    ///
    /// # Errors
    /// `NameUnknown`.
    pub fn bytes(&self, name: &str) -> Result<&'r [u8], TensorError> {
        self.view(self.find(name)?)
    }

    /// As [`Outputs::bytes`], by the order of the response.
    ///
    /// # Errors
    /// `IndexOutOfRange`.
    pub fn bytes_at(&self, index: usize) -> Result<&'r [u8], TensorError> {
        self.view(self.output(index)?)
    }

    /// Dimensions of an output.
    ///
    /// # Errors
    /// `NameUnknown`.
    pub fn shape(&self, name: &str) -> Result<&'r [i64], TensorError> {
        self.find(name).map(|output| output.shape.as_slice())
    }

    /// The place of an output, by the order of the response.
    ///
    /// # Errors
    /// `IndexOutOfRange`, `Lost`, or `Forked`.
    pub fn place_at(&self, index: usize) -> Result<OutputPlace, TensorError> {
        let output = self.output(index)?;
        check_host(output)?;
        OutputPlace::new(self.session, output.offset, output.byte_size)
    }

    /// A number that stays the same only while the outputs of one request have the same names, types, shapes
    /// and places.
    #[must_use]
    pub fn layout_id(&self) -> u64 {
        self.answer.layout_id
    }

    /// What an output is; `None` past the last one.
    #[must_use]
    pub fn output_at(&self, index: usize) -> Option<TensorInfo<'r>> {
        self.answer.outputs.get(index).map(info)
    }

    /// What the outputs are.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = TensorInfo<'r>> + use<'r> {
        self.answer.outputs.iter().map(info)
    }

    /// How the request ran.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let completion = self.completion;
        Stats {
            batch_size: completion.batch_size,
            queue: Duration::from_nanos(completion.queue_ns),
            execute: Duration::from_nanos(completion.execute_ns),
            model_version: self.answer.model_version,
            is_output_copied: completion.flags & completion_flags::OUTPUT_COPIED != 0,
        }
    }

    fn find(&self, name: &str) -> Result<&'r Output, TensorError> {
        let outputs = &self.answer.outputs;
        find(outputs.iter().map(|output| output.name.as_str()), name).map(|index| &outputs[index])
    }

    fn output(&self, index: usize) -> Result<&'r Output, TensorError> {
        let outputs = &self.answer.outputs;
        let count = outputs.len();
        outputs
            .get(index)
            .ok_or(TensorError::IndexOutOfRange { index, count })
    }

    fn view<T: Element>(&self, output: &Output) -> Result<&'r [T], TensorError> {
        check_host(output)?;
        self.session.check_outputs()?;
        let region = self.session.memory.response();
        Ok(output_slice(region, output.offset, output.byte_size)?)
    }
}

/// That an output lies where the processor reaches it.
fn check_host(output: &Output) -> Result<(), TensorError> {
    if output.is_on_device {
        let name = output.name.clone();
        return Err(TensorError::OnDevice { name });
    }
    Ok(())
}

fn info(output: &Output) -> TensorInfo<'_> {
    TensorInfo {
        name: &output.name,
        dtype: output.dtype,
        shape: &output.shape,
        byte_size: output.byte_size,
        is_on_device: output.is_on_device,
    }
}

impl Response {
    pub(crate) fn new(exchange: Box<Exchange>) -> Self {
        Self { exchange }
    }

    /// The outputs.
    #[must_use]
    pub fn outputs(&self) -> Outputs<'_> {
        let exchange = &self.exchange;
        let completion = exchange
            .completion()
            .expect("a response is only made of an exchange that was answered");
        Outputs::in_exchange(exchange, completion)
    }

    /// See [`Outputs::get`].
    ///
    /// # Errors
    /// As there.
    pub fn get<T: Element>(&self, name: &str) -> Result<&[T], TensorError> {
        self.outputs().get(name)
    }

    /// See [`Outputs::get_at`].
    ///
    /// # Errors
    /// As there.
    pub fn get_at<T: Element>(&self, index: usize) -> Result<&[T], TensorError> {
        self.outputs().get_at(index)
    }

    /// See [`Outputs::bytes`].
    ///
    /// # Errors
    /// As there.
    pub fn bytes(&self, name: &str) -> Result<&[u8], TensorError> {
        self.outputs().bytes(name)
    }

    /// See [`Outputs::shape`].
    ///
    /// # Errors
    /// As there.
    pub fn shape(&self, name: &str) -> Result<&[i64], TensorError> {
        self.outputs().shape(name)
    }

    /// How the request ran.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.outputs().stats()
    }

    /// Makes it a request again, with its inputs as they are, and keeps the outputs: they stay readable
    /// until the lease is dropped, however often the request runs meanwhile.
    #[must_use]
    pub fn split(mut self) -> (Request, Lease) {
        let lease = Lease::of(&mut self.exchange);
        (Request::from_exchange(self.exchange), lease)
    }

    /// Gives the outputs back and makes it a request again, with its inputs as they are.
    #[must_use]
    pub fn into_request(self) -> Request {
        let mut request = Request::from_exchange(self.exchange);
        request.release();
        request
    }
}
