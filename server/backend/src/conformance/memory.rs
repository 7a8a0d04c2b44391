//! Tensors in memory as a server would give it, for this suite and for an engine's own tests.

use adjoin_schema::DataType;
use adjoin_shm::{AlignedBuffer, Payload};

use crate::{Input, Output, OutputSink, SinkError};

/// Bytes before and after an output that must stay as they are.
const GUARD: usize = 64;
const UNTOUCHED: u8 = 0xa5;

/// A tensor's type, shape and bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Type of the elements.
    pub dtype: DataType,
    /// All dimensions.
    pub shape: Vec<i64>,
    /// The elements, little-endian.
    pub bytes: Vec<u8>,
}

/// Numbers that have bytes on the wire.
pub trait Number: Copy {
    /// Their type.
    const DTYPE: DataType;
    /// The bytes of one.
    fn bytes(self) -> impl IntoIterator<Item = u8>;
}

macro_rules! numbers {
    ($($number:ty => $dtype:ident),+) => {$(
        impl Number for $number {
            const DTYPE: DataType = DataType::$dtype;
            fn bytes(self) -> impl IntoIterator<Item = u8> {
                self.to_le_bytes()
            }
        }
    )+};
}

numbers!(f32 => Fp32, u8 => Uint8, i32 => Int32, i64 => Int64);

impl Tensor {
    /// A tensor of these values.
    #[must_use]
    pub fn new<T: Number>(shape: &[i64], values: &[T]) -> Self {
        Self {
            dtype: T::DTYPE,
            shape: shape.into(),
            bytes: values.iter().flat_map(|value| value.bytes()).collect(),
        }
    }

    /// The values of a tensor of float32.
    ///
    /// # Panics
    /// If it is another one.
    #[must_use]
    pub fn f32s(&self) -> Vec<f32> {
        assert_eq!(self.dtype, DataType::Fp32);
        let (values, rest) = self.bytes.as_chunks();
        assert!(rest.is_empty());
        values
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect()
    }
}

/// An input where a client would have put it.
#[derive(Debug)]
pub struct Placed {
    dtype: DataType,
    /// May be changed, to lie about what is there.
    pub shape: Vec<i64>,
    byte_size: usize,
    buffer: AlignedBuffer,
}

impl Placed {
    /// Puts a tensor into memory of its own.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn new(tensor: &Tensor) -> Self {
        let byte_size = tensor.bytes.len();
        let mut placed = Self {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            byte_size,
            buffer: AlignedBuffer::new(byte_size).unwrap(),
        };
        placed.write(&tensor.bytes);
        placed
    }

    /// Other bytes in the same place.
    ///
    /// # Panics
    /// If they are not as many.
    pub fn write(&mut self, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.byte_size);
        Payload::from_slice(bytes).copy_to(&mut self.buffer.payload_mut(bytes.len()));
    }

    /// As an engine gets it.
    #[must_use]
    pub fn input(&self) -> Input<'_> {
        Input::whole(self.dtype, &self.shape, self.buffer.payload(self.byte_size))
    }
}

/// Room for an output, with guards around it.
#[derive(Debug)]
pub struct Room {
    dtype: DataType,
    shape: Vec<i64>,
    byte_size: usize,
    buffer: AlignedBuffer,
}

impl Room {
    /// Room for a tensor.
    ///
    /// # Panics
    /// If its size cannot be told from type and shape.
    #[must_use]
    pub fn new(dtype: DataType, shape: &[i64]) -> Self {
        let byte_size = dtype.byte_size(shape).unwrap().unwrap();
        Self::of_size(dtype, shape, byte_size.try_into().unwrap())
    }

    /// Room of any size.
    ///
    /// # Panics
    /// If there is no memory.
    #[must_use]
    pub fn of_size(dtype: DataType, shape: &[i64], byte_size: usize) -> Self {
        let whole = byte_size + 2 * GUARD;
        let mut buffer = AlignedBuffer::new(whole).unwrap();
        Payload::from_slice(&vec![UNTOUCHED; whole]).copy_to(&mut buffer.payload_mut(whole));
        Self {
            dtype,
            shape: shape.into(),
            byte_size,
            buffer,
        }
    }

    /// As an engine gets it.
    pub fn output(&mut self) -> Output<'_> {
        let whole = self.buffer.payload_mut(self.byte_size + 2 * GUARD);
        let (_, rest) = whole.split_at(GUARD);
        let (payload, _) = rest.split_at(self.byte_size);
        Output::Bound {
            dtype: self.dtype,
            shape: &self.shape,
            payload,
        }
    }

    /// What was written.
    ///
    /// # Panics
    /// If a guard was written too.
    #[must_use]
    pub fn tensor(&self) -> Tensor {
        let whole = self.buffer.payload(self.byte_size + 2 * GUARD).to_vec();
        let (before, rest) = whole.split_at(GUARD);
        let (bytes, after) = rest.split_at(self.byte_size);
        let is_untouched = |guard: &[u8]| guard.iter().all(|&byte| byte == UNTOUCHED);
        assert!(is_untouched(before), "bytes before an output were written");
        assert!(is_untouched(after), "bytes behind an output were written");
        Tensor {
            dtype: self.dtype,
            shape: self.shape.clone(),
            bytes: bytes.into(),
        }
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.tensor().bytes.iter().all(|&byte| byte == UNTOUCHED)
    }
}

/// Takes every result, up to a number of bytes.
#[derive(Debug)]
pub struct Taker {
    /// What was taken, with the number of the output.
    pub taken: Vec<(usize, Tensor)>,
    /// How often something was offered.
    pub offered: usize,
    /// Larger results find no room.
    pub bytes_max: usize,
}

impl Default for Taker {
    fn default() -> Self {
        Self {
            taken: Vec::new(),
            offered: 0,
            bytes_max: usize::MAX,
        }
    }
}

impl OutputSink for Taker {
    fn accept(
        &mut self,
        index: usize,
        dtype: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError> {
        self.offered += 1;
        if payload.byte_size() > self.bytes_max {
            let byte_size = payload.byte_size() as u64;
            return Err(SinkError { byte_size });
        }
        let tensor = Tensor {
            dtype,
            shape: shape.into(),
            bytes: payload.to_vec(),
        };
        self.taken.push((index, tensor));
        Ok(())
    }
}
