//! Elements of tensors: from typed lists and JSON to bytes, from bytes to JSON, and whether bytes are as many as they
//! should be. Numbers lie in little-endian order, strings as their length in four bytes and their bytes.

use adjoin_control_api::inference::InferTensorContents;
use adjoin_schema::DataType;
use bytes::Bytes;
use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::Fault;

/// The strings of a BYTES tensor, `count` of them and nothing after. Where the lengths do not add up, the last item is a
/// text that says at which element.
pub fn string_elements(bytes: &[u8], count: u64) -> impl Iterator<Item = Result<&[u8], Fault>> {
    let mut rest = bytes;
    let mut index = 0;
    std::iter::from_fn(move || {
        if index >= count {
            let left = std::mem::take(&mut rest).len();
            return (left > 0).then(|| {
                Err(Fault::invalid(format!(
                    "{left} bytes are left after {count} strings"
                )))
            });
        }
        let element = first_string(&mut rest, index, count);
        index += 1;
        if element.is_err() {
            // After a fault there is nothing more to say.
            index = count;
            rest = &[];
        }
        Some(element)
    })
}

fn first_string<'a>(rest: &mut &'a [u8], index: u64, count: u64) -> Result<&'a [u8], Fault> {
    let Some((length, after)) = rest.split_first_chunk::<4>() else {
        let left = rest.len();
        return Err(Fault::invalid(format!(
            "{left} bytes are left for the length of string {index} of {count}; it takes 4"
        )));
    };
    let length = u32::from_le_bytes(*length);
    let end = usize::try_from(length).unwrap_or(usize::MAX);
    let Some((element, after)) = after.split_at_checked(end) else {
        let left = after.len();
        return Err(Fault::invalid(format!(
            "string {index} of {count} has {length} bytes, and {left} are left"
        )));
    };
    *rest = after;
    Ok(element)
}

/// Checks that bytes are those of `count` elements.
pub(crate) fn check_bytes(dtype: DataType, count: u64, bytes: &[u8]) -> Result<(), Fault> {
    let Some(element) = dtype.element_bytes() else {
        return string_elements(bytes, count).try_for_each(|element| element.map(|_| ()));
    };
    let (expected, got) = (count.saturating_mul(element), bytes.len());
    if got as u64 != expected {
        return Err(Fault::invalid(format!(
            "{count} elements of {dtype} take {expected} bytes, and {got} came"
        )));
    }
    Ok(())
}

fn check_count(field: &str, expected: u64, got: usize) -> Result<(), Fault> {
    if got as u64 != expected {
        return Err(Fault::invalid(format!(
            "the shape has {expected} elements, {field} has {got}"
        )));
    }
    Ok(())
}

/// The bytes of typed contents. FP16 and BF16 have no list of their own: they travel raw.
pub(crate) fn from_typed(
    contents: InferTensorContents,
    dtype: DataType,
    count: u64,
) -> Result<Bytes, Fault> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let lists = [
        ("bool_contents", bool_contents.len()),
        ("int_contents", int_contents.len()),
        ("int64_contents", int64_contents.len()),
        ("uint_contents", uint_contents.len()),
        ("uint64_contents", uint64_contents.len()),
        ("fp32_contents", fp32_contents.len()),
        ("fp64_contents", fp64_contents.len()),
        ("bytes_contents", bytes_contents.len()),
    ];
    let field = match dtype {
        DataType::Bool => "bool_contents",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int_contents",
        DataType::Int64 => "int64_contents",
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => "uint_contents",
        DataType::Uint64 => "uint64_contents",
        DataType::Fp32 => "fp32_contents",
        DataType::Fp64 => "fp64_contents",
        DataType::Bytes => "bytes_contents",
        DataType::Fp16 | DataType::Bf16 => {
            return Err(Fault::invalid(format!(
                "{dtype} has no typed contents; it goes into raw_input_contents"
            )));
        }
    };
    let foreign = lists
        .iter()
        .find(|(name, length)| *name != field && *length > 0);
    if let Some((name, length)) = foreign {
        return Err(Fault::invalid(format!(
            "{dtype} goes into {field}, and {name} has {length} elements"
        )));
    }
    let own = lists.iter().find(|(name, _)| *name == field);
    check_count(field, count, own.map_or(0, |(_, length)| *length))?;
    let mut out = Vec::new();
    match dtype {
        DataType::Bool => out.extend(bool_contents.into_iter().map(u8::from)),
        DataType::Fp32 => out.extend(fp32_contents.into_iter().flat_map(f32::to_le_bytes)),
        DataType::Fp64 => out.extend(fp64_contents.into_iter().flat_map(f64::to_le_bytes)),
        DataType::Bytes => {
            for element in bytes_contents {
                push_string(&mut out, &element)?;
            }
        }
        DataType::Int64 => push_integers(&mut out, dtype, int64_contents)?,
        DataType::Uint64 => push_integers(&mut out, dtype, uint64_contents)?,
        DataType::Int8 | DataType::Int16 | DataType::Int32 => {
            push_integers(&mut out, dtype, int_contents)?
        }
        _ => push_integers(&mut out, dtype, uint_contents)?,
    }
    Ok(out.into())
}

fn push_integers<T: Into<i128>>(
    out: &mut Vec<u8>,
    dtype: DataType,
    values: Vec<T>,
) -> Result<(), Fault> {
    for value in values {
        push_integer(out, dtype, value.into())?;
    }
    Ok(())
}

/// Appends an integer, if it is one of the type's.
fn push_integer(out: &mut Vec<u8>, dtype: DataType, value: i128) -> Result<(), Fault> {
    let Some(element) = dtype
        .element_bytes()
        .and_then(|bytes| usize::try_from(bytes).ok())
    else {
        return Err(Fault::invalid(format!("{value} is no {dtype}")));
    };
    let is_unsigned = matches!(
        dtype,
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 | DataType::Uint64
    );
    let bits = 8 * element;
    let range = if is_unsigned {
        0..1i128 << bits
    } else {
        -(1i128 << (bits - 1))..1i128 << (bits - 1)
    };
    if !range.contains(&value) {
        return Err(Fault::invalid(format!("{value} is no {dtype}")));
    }
    // The low bytes of two's complement are the number in any width that holds it.
    out.extend_from_slice(&value.to_le_bytes()[..element]);
    Ok(())
}

fn push_string(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Fault> {
    let length = u32::try_from(text.len()).map_err(|_| {
        Fault::invalid(format!(
            "a string has {} bytes; the most is 2^32 - 1",
            text.len()
        ))
    })?;
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(text);
    Ok(())
}

/// The bytes of elements in JSON: nested lists in row-major order, or a flat one.
pub(crate) fn from_json(data: &RawValue, dtype: DataType, count: u64) -> Result<Bytes, Fault> {
    let mut taken = Taken {
        dtype,
        count,
        seen: 0,
        out: Vec::new(),
    };
    let mut json = serde_json::Deserializer::from_str(data.get());
    Elements {
        taken: &mut taken,
        is_outermost: true,
    }
    .deserialize(&mut json)
    .map_err(|error| Fault::invalid(format!("'data': {error}")))?;
    check_seen(&taken)?;
    Ok(taken.out.into())
}

fn check_seen(taken: &Taken) -> Result<(), Fault> {
    let (seen, count) = (taken.seen, taken.count);
    if seen != count {
        return Err(Fault::invalid(format!(
            "the shape has {count} elements, 'data' has {seen}"
        )));
    }
    Ok(())
}

/// Elements taken so far.
struct Taken {
    dtype: DataType,
    count: u64,
    seen: u64,
    out: Vec<u8>,
}

impl Taken {
    fn number(&mut self) -> Result<(), Fault> {
        self.seen += 1;
        // Ends early: nobody needs to read on, nor make room.
        if self.seen > self.count {
            let count = self.count;
            return Err(Fault::invalid(format!(
                "more elements than the shape's {count}"
            )));
        }
        Ok(())
    }

    fn integer(&mut self, value: i128) -> Result<(), Fault> {
        match self.dtype {
            // Whole numbers are written without a point.
            #[allow(clippy::cast_precision_loss, reason = "as any reader of JSON rounds")]
            DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
                self.float(value as f64)
            }
            DataType::Bool if (0..=1).contains(&value) => self.boolean(value == 1),
            dtype => {
                self.number()?;
                push_integer(&mut self.out, dtype, value)
            }
        }
    }

    #[allow(
        clippy::cast_possible_truncation,
        reason = "to the precision of the tensor"
    )]
    fn float(&mut self, value: f64) -> Result<(), Fault> {
        self.number()?;
        match self.dtype {
            DataType::Fp16 => self
                .out
                .extend_from_slice(&f16::from_f64(value).to_le_bytes()),
            DataType::Bf16 => self
                .out
                .extend_from_slice(&bf16::from_f64(value).to_le_bytes()),
            DataType::Fp32 => self.out.extend_from_slice(&(value as f32).to_le_bytes()),
            DataType::Fp64 => self.out.extend_from_slice(&value.to_le_bytes()),
            dtype => return Err(Fault::invalid(format!("{value} is no {dtype}"))),
        }
        Ok(())
    }

    fn boolean(&mut self, value: bool) -> Result<(), Fault> {
        self.number()?;
        if self.dtype != DataType::Bool {
            return Err(Fault::invalid(format!("{value} is no {}", self.dtype)));
        }
        self.out.push(value.into());
        Ok(())
    }

    fn text(&mut self, value: &str) -> Result<(), Fault> {
        self.number()?;
        if self.dtype != DataType::Bytes {
            return Err(Fault::invalid(format!("{value:?} is no {}", self.dtype)));
        }
        push_string(&mut self.out, value.as_bytes())
    }
}

/// Reads one element, or a list of them.
struct Elements<'a> {
    taken: &'a mut Taken,
    is_outermost: bool,
}

impl<'de> DeserializeSeed<'de> for Elements<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Elements<'_> {
    fn element<E: Error>(
        self,
        take: impl FnOnce(&mut Taken) -> Result<(), Fault>,
    ) -> Result<(), E> {
        if self.is_outermost {
            return Err(E::custom("it is a list of the elements"));
        }
        take(self.taken).map_err(|fault| E::custom(fault.text))
    }
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "elements of {}", self.taken.dtype)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let taken = self.taken;
        while list
            .next_element_seed(Elements {
                taken: &mut *taken,
                is_outermost: false,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.element(|taken| taken.boolean(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.element(|taken| taken.integer(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.element(|taken| taken.integer(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.element(|taken| taken.float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.element(|taken| taken.text(value))
    }
}

/// Appends the elements as a flat list of JSON.
pub(crate) fn to_json(
    dtype: DataType,
    count: u64,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    out.push(b'[');
    match dtype {
        DataType::Bytes => {
            for (index, element) in string_elements(bytes, count).enumerate() {
                let text = std::str::from_utf8(element?)
                    .map_err(|_| Fault::invalid(format!("string {index} is no UTF-8: {BINARY}")))?;
                separate(out, index);
                write_json(out, text)?;
            }
        }
        DataType::Bool => each(out, bytes, |[byte]: [u8; 1]| Ok(byte != 0))?,
        DataType::Uint8 => each(out, bytes, |v| Ok(u8::from_le_bytes(v)))?,
        DataType::Uint16 => each(out, bytes, |v| Ok(u16::from_le_bytes(v)))?,
        DataType::Uint32 => each(out, bytes, |v| Ok(u32::from_le_bytes(v)))?,
        DataType::Uint64 => each(out, bytes, |v| Ok(u64::from_le_bytes(v)))?,
        DataType::Int8 => each(out, bytes, |v| Ok(i8::from_le_bytes(v)))?,
        DataType::Int16 => each(out, bytes, |v| Ok(i16::from_le_bytes(v)))?,
        DataType::Int32 => each(out, bytes, |v| Ok(i32::from_le_bytes(v)))?,
        DataType::Int64 => each(out, bytes, |v| Ok(i64::from_le_bytes(v)))?,
        DataType::Fp16 => each(out, bytes, |v| finite(f16::from_le_bytes(v).to_f32()))?,
        DataType::Bf16 => each(out, bytes, |v| finite(bf16::from_le_bytes(v).to_f32()))?,
        DataType::Fp32 => each(out, bytes, |v| finite(f32::from_le_bytes(v)))?,
        DataType::Fp64 => each(out, bytes, |v| finite(f64::from_le_bytes(v)))?,
    }
    out.push(b']');
    Ok(())
}

const BINARY: &str = "JSON cannot carry it; ask for the output with \"binary_data\": true";

fn each<const N: usize, T: serde::Serialize>(
    out: &mut Vec<u8>,
    bytes: &[u8],
    value: impl Fn([u8; N]) -> Result<T, Fault>,
) -> Result<(), Fault> {
    for (index, element) in bytes.as_chunks::<N>().0.iter().enumerate() {
        separate(out, index);
        write_json(out, &value(*element)?)?;
    }
    Ok(())
}

fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

fn write_json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) -> Result<(), Fault> {
    serde_json::to_writer(out, value)
        .map_err(|error| Fault::new(crate::Kind::Internal, error.to_string()))
}

fn finite<T: Into<f64> + Copy>(value: T) -> Result<T, Fault> {
    let number: f64 = value.into();
    if number.is_finite() {
        return Ok(value);
    }
    Err(Fault::invalid(format!("a value is {number}: {BINARY}")))
}
