//! Building a request: which inputs with which shapes, checked against the model's description.

use std::time::Instant;

use adjoin_schema::attach::TensorSpec;
use adjoin_schema::text::shape_text;
use adjoin_schema::{DataType, Shape};
use smallvec::SmallVec;

use crate::device::{DevicePlace, DeviceRoom};
use crate::exchange::{Exchange, Input};
use crate::tensor::names;
use crate::{DeviceRegion, Model, Request, RequestError};

/// A request that is being put together. [`RequestBuilder::build`] takes its place in shared memory.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing before `build`"]
pub struct RequestBuilder {
    model: Model,
    inputs: SmallVec<[Input; 2]>,
    wanted: Vec<String>,
    rooms: Vec<DeviceRoom>,
    may_prepare: bool,
    give_up_at: Option<Instant>,
}

impl RequestBuilder {
    pub(crate) fn new(model: Model) -> Self {
        Self {
            model,
            inputs: SmallVec::new(),
            wanted: Vec::new(),
            rooms: Vec::new(),
            may_prepare: true,
            give_up_at: None,
        }
    }

    /// Adds an input with these dimensions; its data type is the model's.
    ///
    /// # Errors
    /// `InputUnknown`, `InputRepeated`, `ShapeMismatch`, or `ByteSize` for an input of strings, whose size
    /// does not follow from its shape: see [`RequestBuilder::input_with_bytes`].
    pub fn input(self, name: &str, shape: &[i64]) -> Result<Self, RequestError> {
        self.add(name, shape, None)
    }

    /// Adds an input of `BYTES` elements that takes `byte_size` bytes in all: for each element its
    /// length as a little-endian `u32`, then its bytes.
    ///
    /// # Errors
    /// As [`RequestBuilder::input`]; `ByteSize` if the data type has elements of one size, and they make
    /// another one.
    pub fn input_with_bytes(
        self,
        name: &str,
        shape: &[i64],
        byte_size: u64,
    ) -> Result<Self, RequestError> {
        self.add(name, shape, Some(byte_size))
    }

    /// Adds an input that lies in a region on the device, `offset` bytes from its start, which is a multiple of 64. What the
    /// device is to write there has to be written when the request is submitted.
    ///
    /// # Errors
    /// As [`RequestBuilder::input`]. That the range lies in the region is checked by the server.
    pub fn input_on_device(
        self,
        name: &str,
        shape: &[i64],
        region: &DeviceRegion,
        offset: u64,
    ) -> Result<Self, RequestError> {
        let mut with_input = self.add(name, shape, None)?;
        if let Some(input) = with_input.inputs.last_mut() {
            let region = region.clone();
            input.on_device = Some(DevicePlace { region, offset });
        }
        Ok(with_input)
    }

    /// Has an output go to a region on the device, `offset` bytes from its start, which is a multiple of 64; `byte_size` is
    /// the room that it has there. It is there when the request is answered, and stays until the next run: the
    /// response says how large it is, and has none of its bytes.
    ///
    /// # Errors
    /// `OutputUnknown`, or `OutputRepeated`. That the range lies in the region is checked by the server.
    pub fn output_on_device(
        mut self,
        name: &str,
        region: &DeviceRegion,
        offset: u64,
        byte_size: u64,
    ) -> Result<Self, RequestError> {
        let name = name.to_owned();
        self.check_output(&name)?;
        if self.rooms.iter().any(|room| room.name == name) {
            return Err(RequestError::OutputRepeated { name });
        }
        let region = region.clone();
        self.rooms.push(DeviceRoom {
            name,
            place: DevicePlace { region, offset },
            byte_size,
        });
        Ok(self)
    }

    fn add(
        mut self,
        name: &str,
        shape: &[i64],
        byte_size: Option<u64>,
    ) -> Result<Self, RequestError> {
        let info = self.model.info();
        let Some(index) = info.inputs.iter().position(|spec| spec.name == name) else {
            return Err(RequestError::InputUnknown {
                model: info.model.clone(),
                name: name.to_owned(),
                known: names(info.inputs.iter().map(|spec| spec.name.as_str())),
            });
        };
        if self.inputs.iter().any(|input| input.spec == index) {
            let name = name.to_owned();
            return Err(RequestError::InputRepeated { name });
        }
        let spec = &info.inputs[index];
        let input = Input {
            spec: index,
            dtype: spec.dtype,
            shape: check_shape(spec, shape)?,
            byte_size: check_byte_size(spec, shape, byte_size)?,
            on_device: None,
            is_lost: false,
        };
        self.inputs.push(input);
        Ok(self)
    }

    /// Wants only these outputs, and those that go to a device; without a call, all.
    pub fn outputs(mut self, names: &[&str]) -> Self {
        self.wanted = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Whether the server may keep the request in its checked form after the first submission, which
    /// makes the later ones faster. Default true. The room for its response stays reserved then, for as
    /// long as the request exists.
    pub fn prepare(mut self, may_prepare: bool) -> Self {
        self.may_prepare = may_prepare;
        self
    }

    /// A moment until which [`RequestBuilder::build`] may wait for a connection, where the client's session is over.
    /// Without it, for as long as [`ClientOptions::reconnect_timeout`](crate::ClientOptions::reconnect_timeout).
    pub fn give_up_at(mut self, moment: Instant) -> Self {
        self.give_up_at = Some(moment);
        self
    }

    /// Takes room for the inputs in the request region. They hold what was there before: write them.
    ///
    /// # Errors
    /// `InputMissing`, `OutputUnknown`, `RegionFull`, or `Session` if there is none.
    pub fn build(self) -> Result<Request, RequestError> {
        self.check()?;
        let Self {
            model,
            inputs,
            mut wanted,
            rooms,
            may_prepare,
            give_up_at,
        } = self;
        if !wanted.is_empty() {
            let is_new = |room: &&DeviceRoom| !wanted.contains(&room.name);
            let new: Vec<String> = (rooms.iter().filter(is_new))
                .map(|room| room.name.clone())
                .collect();
            wanted.extend(new);
        }
        let Model { client, target } = model;
        let session = client.live_session(give_up_at)?;
        let outputs = (wanted.into_boxed_slice(), rooms.into_boxed_slice());
        let mut exchange = Exchange::new(client, session, target, inputs, outputs, may_prepare);
        exchange.extents = exchange
            .place(&exchange.session)
            .map_err(RequestError::of_placement)?;
        Ok(Request::new(exchange))
    }

    fn check(&self) -> Result<(), RequestError> {
        let info = self.model.info();
        let is_given = |index| self.inputs.iter().any(|input| input.spec == index);
        if let Some(missing) = (0..info.inputs.len()).find(|&index| !is_given(index)) {
            return Err(RequestError::InputMissing {
                model: info.model.clone(),
                name: info.inputs[missing].name.clone(),
                known: names(info.inputs.iter().map(|spec| spec.name.as_str())),
            });
        }
        self.wanted
            .iter()
            .try_for_each(|name| self.check_output(name))
    }

    fn check_output(&self, name: &str) -> Result<(), RequestError> {
        let info = self.model.info();
        if info.outputs.iter().any(|spec| spec.name == name) {
            return Ok(());
        }
        Err(RequestError::OutputUnknown {
            model: info.model.clone(),
            name: name.to_owned(),
            known: names(info.outputs.iter().map(|spec| spec.name.as_str())),
        })
    }
}

fn check_shape(spec: &TensorSpec, shape: &[i64]) -> Result<Shape, RequestError> {
    let fits = |(&given, &wanted): (&i64, &i64)| given >= 0 && (wanted < 0 || given == wanted);
    if shape.len() == spec.shape.len() && shape.iter().zip(&spec.shape).all(fits) {
        return Ok(Shape::from_slice(shape));
    }
    Err(RequestError::ShapeMismatch {
        name: spec.name.clone(),
        got: shape_text(shape, &[]),
        expected: shape_text(&spec.shape, &spec.dimension_names),
    })
}

fn check_byte_size(
    spec: &TensorSpec,
    shape: &[i64],
    given: Option<u64>,
) -> Result<u64, RequestError> {
    let wrong = |reason| RequestError::ByteSize {
        name: spec.name.clone(),
        dtype: spec.dtype,
        reason,
    };
    match (spec.dtype.byte_size(shape), given) {
        (Err(_), _) => Err(wrong("the shape makes more bytes than can be addressed")),
        (Ok(None), None) => Err(wrong(
            "the size of strings does not follow from the shape; use `input_with_bytes`",
        )),
        (Ok(Some(made)), Some(given)) if made != given => {
            Err(wrong("the shape makes another number of bytes"))
        }
        (Ok(made), given) => Ok(made.or(given).unwrap_or(0)),
    }
}

const _: () = assert!(DataType::Bytes.element_bytes().is_none());
