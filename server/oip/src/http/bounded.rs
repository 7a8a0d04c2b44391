//! Lists and parameters of JSON that take no more memory than what a request needs: a body of a few bytes a part would
//! otherwise become a list many times its size before anyone could count it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::Value;

/// Most entries of a list of tensors, a shape or the parameters of one thing. What a model takes is below, and is checked
/// with a better text.
const ENTRIES_MAX: usize = 1024;

fn too_many<E: Error>() -> E {
    E::custom(format_args!(
        "more than {ENTRIES_MAX} entries in a list or in parameters"
    ))
}

/// Reads a list.
pub(super) fn list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct List<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = list.next_element()? {
                if entries.len() == ENTRIES_MAX {
                    return Err(too_many());
                }
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    deserializer.deserialize_seq(List(PhantomData))
}

/// Parameters by name, in the order of the text: a name that comes twice has its last value.
#[derive(Default)]
pub(super) struct Parameters(Vec<(String, Scalar)>);

impl Parameters {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.0
            .iter()
            .map(|(name, scalar)| (name.as_str(), scalar.value()))
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;

        impl<'de> Visitor<'de> for Map {
            type Value = Parameters;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("parameters by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() == ENTRIES_MAX {
                        return Err(too_many());
                    }
                    entries.push(entry);
                }
                Ok(Parameters(entries))
            }
        }

        deserializer.deserialize_map(Map)
    }
}

/// The value of a parameter. Of lists and objects, which no parameter takes, nothing is kept.
enum Scalar {
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    Other,
}

impl Scalar {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Int(value) => Value::Int(*value),
            Self::Float(value) => Value::Float(*value),
            Self::Text(text) => Value::Text(text),
            Self::Other => Value::Other,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the value of a parameter")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Int(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Int(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }

            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(text: &str) -> Result<Parameters, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn values_are_read_as_what_they_are_and_of_what_is_no_scalar_nothing_is_kept() {
        let text = r#"{"a": true, "b": -1, "c": 18446744073709551615, "d": 0.5, "e": "t", "f": null, "g": [[1], {}], "h": {"x": [1]}, "a": false}"#;
        let read = parameters(text).unwrap();
        let read: Vec<_> = read.iter().collect();
        let expected = [
            ("a", Value::Bool(true)),
            ("b", Value::Int(-1)),
            ("c", Value::Int(u64::MAX.into())),
            ("d", Value::Float(0.5)),
            ("e", Value::Text("t")),
            ("f", Value::Other),
            ("g", Value::Other),
            ("h", Value::Other),
            ("a", Value::Bool(false)),
        ];
        assert_eq!(read, expected);
        assert!(parameters("[1]").is_err());
        assert!(parameters("null").is_err());
    }

    #[test]
    fn more_entries_than_any_model_takes_end_the_reading() {
        let of = |count: usize| {
            let entries: Vec<_> = (0..count)
                .map(|number| format!("\"{number}\": 0"))
                .collect();
            parameters(&format!("{{{}}}", entries.join(",")))
        };
        assert_eq!(of(1024).unwrap().iter().count(), 1024);
        let error = of(1025).err().unwrap().to_string();
        assert!(error.contains("1024"), "{error}");

        let mut json = serde_json::Deserializer::from_str("[1, 2]");
        assert_eq!(list::<i64, _>(&mut json).unwrap(), [1, 2]);
        let long = format!("[{}1]", "1,".repeat(1024));
        let mut json = serde_json::Deserializer::from_str(&long);
        assert!(list::<i64, _>(&mut json).is_err());
    }
}
