//! The sizes that a model takes under TensorRT: its engines are made for a range of each dimension, the profile, and an
//! input outside of it would have the provider build them anew, for minutes, in the middle of serving. So every open
//! dimension has a range before a model is served, and the server refuses what lies beyond.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use adjoin_backend::{Dimension, ModelMetadata, TensorMetadata};

use super::options::PROFILE;

/// What the profile is called in messages.
const WHICH: [&str; 3] = ["least", "usual", "largest"];

/// The sizes of each input, and what the provider is told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// For each input, the range of each dimension.
    pub(crate) sizes: Vec<Vec<RangeInclusive<i64>>>,
    /// The provider's texts for the least, the usual and the largest shapes; none for a model without open dimensions.
    pub(crate) texts: Option<[String; 3]>,
}

/// The least, the usual and the largest shape of a tensor.
type Shapes = [Vec<i64>; 3];

impl Profile {
    /// The profile that a configuration gives for a model; without one, rows may be 1 to `rows_max`, and no other dimension
    /// may be open.
    ///
    /// # Errors
    /// What is missing or cannot be, with what to write.
    pub(crate) fn new(
        model: &ModelMetadata,
        given: &[Option<String>; 3],
        rows_max: u32,
    ) -> Result<Self, String> {
        let shapes = match given {
            [None, None, None] => of_rows(model, rows_max)?,
            [Some(least), Some(usual), Some(most)] => read([least, usual, most])?,
            _ => {
                return Err(format!(
                    "a profile has all of {}, or none of them",
                    PROFILE.join(", ")
                ));
            }
        };
        let sizes = model
            .inputs
            .iter()
            .map(|input| sizes(input, shapes.get(&input.name)));
        Ok(Self {
            sizes: sizes.collect::<Result<_, _>>()?,
            texts: (!shapes.is_empty()).then(|| texts(&shapes)),
        })
    }

    /// The largest size of each dimension of each input.
    pub(crate) fn largest(&self) -> Vec<Vec<i64>> {
        let largest =
            |sizes: &Vec<RangeInclusive<i64>>| sizes.iter().map(|range| *range.end()).collect();
        self.sizes.iter().map(largest).collect()
    }
}

fn is_open(dimension: &Dimension) -> bool {
    dimension.or_open() < 0
}

/// The profile of a model whose only open dimension is the first of all inputs that have one.
fn of_rows(model: &ModelMetadata, rows_max: u32) -> Result<BTreeMap<String, Shapes>, String> {
    let mut shapes = BTreeMap::new();
    for input in &model.inputs {
        let open = input
            .dimensions
            .iter()
            .filter(|dimension| is_open(dimension))
            .count();
        let has_rows = rows_max > 0 && input.dimensions.first().is_some_and(is_open);
        match open {
            0 => continue,
            1 if has_rows => {}
            _ => {
                return Err(format!(
                    "input {:?} has shape {:?}, and engines are made for a range of sizes; give them in {}, such as \
                     \"{}:{}\"",
                    input.name,
                    input.open_shape().as_slice(),
                    PROFILE.join(", "),
                    input.name,
                    written(
                        &input
                            .dimensions
                            .iter()
                            .map(|d| d.or_open().max(1))
                            .collect::<Vec<_>>()
                    ),
                ));
            }
        }
        let with = |rows: u32| {
            let size = |dimension: &Dimension| {
                if is_open(dimension) {
                    i64::from(rows)
                } else {
                    dimension.or_open()
                }
            };
            input.dimensions.iter().map(size).collect::<Vec<_>>()
        };
        shapes.insert(
            input.name.clone(),
            [with(1), with(rows_max), with(rows_max)],
        );
    }
    Ok(shapes)
}

/// Shapes by name, from `NAME:1x3x224x224,NAME:1x8`. Names that are no inputs stay: engines of parts of the graph have
/// inputs of their own.
fn read(texts: [&str; 3]) -> Result<BTreeMap<String, Shapes>, String> {
    let mut shapes: BTreeMap<String, Shapes> = BTreeMap::new();
    for (which, text) in texts.into_iter().enumerate() {
        let key = PROFILE[which];
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let wrong =
                || format!("parameter {key:?} has {part:?}; expected \"INPUT:1x3x224x224\"");
            let (name, sizes) = part.rsplit_once(':').ok_or_else(wrong)?;
            let size = |text: &str| text.trim().parse::<i64>().ok().filter(|&size| size > 0);
            let sizes: Option<Vec<i64>> = sizes.split('x').map(size).collect();
            let sizes = sizes.filter(|_| !name.is_empty()).ok_or_else(wrong)?;
            let place = &mut shapes.entry(name.to_owned()).or_default()[which];
            if !place.is_empty() {
                return Err(format!("parameter {key:?} has {name:?} twice"));
            }
            *place = sizes;
        }
    }
    for (name, shapes) in &shapes {
        let [least, usual, most] = shapes;
        let ranks = [least, usual, most].map(Vec::len);
        if let Some(which) = ranks.iter().position(|&rank| rank != ranks[0] || rank == 0) {
            return Err(format!(
                "the profile has {} dimensions of {name:?} for the least sizes, and {} for the {} ones",
                ranks[0], ranks[which], WHICH[which]
            ));
        }
        let is_ordered = least.iter().zip(usual).zip(most);
        if !is_ordered
            .clone()
            .all(|((least, usual), most)| least <= usual && usual <= most)
        {
            return Err(format!(
                "the profile of {name:?} goes from {} over {} to {}; no size may be below the one before",
                written(least),
                written(usual),
                written(most)
            ));
        }
    }
    Ok(shapes)
}

/// The range of each dimension of an input.
fn sizes(
    input: &TensorMetadata,
    shapes: Option<&Shapes>,
) -> Result<Vec<RangeInclusive<i64>>, String> {
    let Some([least, _, most]) = shapes else {
        if input.dimensions.iter().any(is_open) {
            return Err(format!(
                "the profile lacks input {:?}, whose shape {:?} is open",
                input.name,
                input.open_shape().as_slice()
            ));
        }
        return Ok(input
            .dimensions
            .iter()
            .map(|dimension| dimension.or_open()..=dimension.or_open())
            .collect());
    };
    let fits = |((dimension, &least), &most): ((&Dimension, &i64), &i64)| {
        is_open(dimension) || (least == dimension.or_open() && most == dimension.or_open())
    };
    let mut all = input.dimensions.iter().zip(least).zip(most);
    if least.len() != input.dimensions.len() || !all.all(fits) {
        return Err(format!(
            "the profile of input {:?} goes from {} to {}, and its shape is {:?}",
            input.name,
            written(least),
            written(most),
            input.open_shape().as_slice()
        ));
    }
    Ok(least
        .iter()
        .zip(most)
        .map(|(&least, &most)| least..=most)
        .collect())
}

fn written(sizes: &[i64]) -> String {
    let sizes: Vec<_> = sizes.iter().map(i64::to_string).collect();
    sizes.join("x")
}

/// Shapes as the provider reads them.
fn texts(shapes: &BTreeMap<String, Shapes>) -> [String; 3] {
    [0, 1, 2].map(|which| {
        let part =
            |(name, shapes): (&String, &Shapes)| format!("{name}:{}", written(&shapes[which]));
        Vec::from_iter(shapes.iter().map(part)).join(",")
    })
}

#[cfg(test)]
mod tests {
    use adjoin_backend::InputAccess;
    use adjoin_schema::DataType;

    use super::*;

    /// Inputs of these dimensions, -1 for open ones.
    fn model(inputs: &[(&str, &[i64])]) -> ModelMetadata {
        let dimension = |&size: &i64| match size {
            -1 => Dimension::Unknown,
            size => Dimension::Fixed(size),
        };
        let input = |(name, sizes): &(&str, &[i64])| TensorMetadata {
            name: (*name).to_owned(),
            dtype: DataType::Fp32,
            dimensions: sizes.iter().map(dimension).collect(),
            access: InputAccess::InPieces,
        };
        ModelMetadata {
            inputs: inputs.iter().map(input).collect(),
            outputs: Vec::new(),
        }
    }

    fn given(texts: [&str; 3]) -> [Option<String>; 3] {
        texts.map(|text| Some(text.to_owned()))
    }

    const NONE: [Option<String>; 3] = [None, None, None];

    #[test]
    fn rows_are_the_profile_of_a_model_that_leaves_nothing_else_open() {
        let profile = Profile::new(&model(&[("x", &[-1, 3]), ("w", &[2])]), &NONE, 8).unwrap();
        assert_eq!(profile.sizes, [vec![1..=8, 3..=3], vec![2..=2]]);
        assert_eq!(
            profile.texts,
            Some(["x:1x3", "x:8x3", "x:8x3"].map(String::from))
        );
        assert_eq!(profile.largest(), [vec![8, 3], vec![2]]);
        let closed = Profile::new(&model(&[("x", &[4, 3])]), &NONE, 8).unwrap();
        assert_eq!(
            (closed.sizes, closed.texts),
            (vec![vec![4..=4, 3..=3]], None)
        );
    }

    #[test]
    fn what_else_is_open_needs_a_profile() {
        for (inputs, rows) in [
            (&[("ids", &[-1_i64, -1][..])][..], 8),
            (&[("ids", &[-1][..])], 0),
            (&[("ids", &[4, -1][..])], 8),
        ] {
            let missing = Profile::new(&model(inputs), &NONE, rows).unwrap_err();
            for word in [
                "\"ids\"",
                "trt_profile_min_shapes",
                "trt_profile_max_shapes",
            ] {
                assert!(
                    missing.contains(word),
                    "{missing:?} should contain {word:?}"
                );
            }
        }
    }

    #[test]
    fn a_profile_is_read_as_the_provider_has_it() {
        let texts = ["a:0:1x4,part:2", "a:0:2x4, part:3", "a:0:8x4,part:9"];
        let profile = Profile::new(&model(&[("a:0", &[-1, 4])]), &given(texts), 32).unwrap();
        assert_eq!(profile.sizes, [vec![1..=8, 4..=4]]);
        let told = ["a:0:1x4,part:2", "a:0:2x4,part:3", "a:0:8x4,part:9"];
        assert_eq!(profile.texts, Some(told.map(String::from)));
    }

    #[test]
    fn profiles_that_cannot_be_are_named() {
        let model = model(&[("x", &[-1, 4])]);
        let refusal = |texts: [&str; 3]| Profile::new(&model, &given(texts), 8).unwrap_err();
        for (refused, word) in [
            (refusal(["x", "x:1x4", "x:1x4"]), "\"x\"; expected"),
            (refusal(["x:1xa", "x:1x4", "x:1x4"]), "\"x:1xa\""),
            (refusal(["x:0x4", "x:1x4", "x:1x4"]), "\"x:0x4\""),
            (
                refusal(["x:2x4", "x:1x4", "x:8x4"]),
                "from 2x4 over 1x4 to 8x4",
            ),
            (refusal(["x:1x4", "x:1x4", "x:8"]), "1 for the largest"),
            (refusal(["x:1x4", "x:1x4", ""]), "0 for the largest"),
            (refusal(["x:1x3", "x:2x3", "x:8x3"]), "shape is [-1, 4]"),
            (refusal(["x:1", "x:2", "x:8"]), "shape is [-1, 4]"),
            (refusal(["y:1x4", "y:1x4", "y:1x4"]), "lacks input \"x\""),
            (refusal(["x:1x4,x:1x4", "x:1x4", "x:1x4"]), "\"x\" twice"),
        ] {
            assert!(
                refused.contains(word),
                "{refused:?} should contain {word:?}"
            );
        }
        let part = [Some("x:1x4".to_owned()), None, None];
        let refused = Profile::new(&model, &part, 8).unwrap_err();
        assert!(refused.contains("all of"), "{refused}");
    }
}
