//! Batches are filled up to one of few sizes.
//!
//! The provider chooses how to compute for each size that is new to it: a tenth of a second for a network of fifty
//! convolutions. So there are few sizes, all of which are run when the model is loaded, and a batch that has another one is
//! filled with rows of zeros, which nobody gets. The more rows, the wider the steps: at most a fifth of a batch is zeros.

use adjoin_backend::{Dimension, ModelMetadata, TensorMetadata};
use adjoin_input_transform::EngineInput;

use super::batch::Wanted;
use super::options::FillTo;

/// Up to here every size is one.
const EACH_UP_TO: u32 = 8;

/// The sizes that batches of a model have, in rows and ascending. None: they run as they come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchSizes(Vec<u32>);

impl BatchSizes {
    /// What a model is told, or the usual steps. Batches can be filled where nothing is open but their rows.
    ///
    /// # Errors
    /// Why sizes that were asked for cannot be had.
    pub(crate) fn new(
        asked: Option<&FillTo>,
        metadata: &ModelMetadata,
        rows_max: u32,
    ) -> Result<Self, String> {
        let mut tensors = metadata.inputs.iter().chain(&metadata.outputs);
        let can_fill = rows_max > 1 && tensors.all(leaves_rows_open);
        match asked {
            Some(FillTo::All) => Ok(Self::default()),
            None if !can_fill => Ok(Self::default()),
            None => Ok(Self(steps(rows_max))),
            Some(FillTo::Sizes(_)) if !can_fill => Err(
                "batch_sizes are for models whose inputs and outputs leave no more open than their rows, and that run more \
                 than one row at once"
                    .to_owned(),
            ),
            Some(FillTo::Sizes(sizes)) => match sizes.last() {
                Some(&last) if last > rows_max => Err(format!(
                    "batch_sizes has {last}, and the model's batches have {rows_max} rows at most"
                )),
                last => {
                    let rest = (last < Some(&rows_max)).then_some(rows_max);
                    Ok(Self(sizes.iter().copied().chain(rest).collect()))
                }
            },
        }
    }

    pub(crate) fn as_slice(&self) -> &[u32] {
        &self.0
    }

    /// Makes inputs and outputs those of a batch of one of the sizes, if they can be. What is there of the inputs stays
    /// their beginning, and what is wanted of the outputs is theirs.
    pub(crate) fn fill(&self, inputs: &mut [EngineInput], wanted: &mut [Wanted]) {
        let Some((rows, filled)) = self.of(inputs) else {
            return;
        };
        // How many rows are in what the engine makes is not known before.
        let is_known = |wanted: &Wanted| match wanted {
            Wanted::Known(known) => known.shape.first() == Some(&i64::from(rows)),
            Wanted::Skipped => true,
            Wanted::Made => false,
        };
        if !wanted.iter().all(is_known) {
            return;
        }
        let fill = |shape: &mut [i64], byte_size: &mut usize| {
            if let Some(first) = shape.first_mut() {
                *first = i64::from(filled);
                // A whole number of rows, and no more than the buffers were made for.
                *byte_size = *byte_size / rows as usize * filled as usize;
            }
        };
        for input in inputs {
            fill(&mut input.shape, &mut input.byte_size);
        }
        for wanted in wanted {
            if let Wanted::Known(known) = wanted {
                fill(&mut known.run_shape, &mut known.run_byte_size);
            }
        }
    }

    /// Rows of a batch, and of what it is filled up to, if those are more.
    fn of(&self, inputs: &[EngineInput]) -> Option<(u32, u32)> {
        let rows = *inputs.first()?.shape.first()?;
        let rows = u32::try_from(rows).ok().filter(|&rows| rows > 0)?;
        let filled = self.0.iter().copied().find(|&size| size >= rows)?;
        (filled > rows).then_some((rows, filled))
    }
}

/// Whether the first dimension is open, and no other.
fn leaves_rows_open(tensor: &TensorMetadata) -> bool {
    let is_open = |dimension: &Dimension| dimension.or_open() < 0;
    match tensor.dimensions.split_first() {
        Some((rows, rest)) => is_open(rows) && !rest.iter().any(is_open),
        None => false,
    }
}

/// Every size up to [`EACH_UP_TO`], then four for each doubling, and the largest.
fn steps(rows_max: u32) -> Vec<u32> {
    let mut sizes: Vec<u32> = (1..=EACH_UP_TO.min(rows_max)).collect();
    let mut size = EACH_UP_TO;
    while size < rows_max {
        // An eighth of the next power of two: a quarter of the one before.
        size = size
            .saturating_add((size + 1).next_power_of_two() / 8)
            .min(rows_max);
        sizes.push(size);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use adjoin_backend::InputAccess;
    use adjoin_schema::DataType;

    use super::*;
    use crate::device::batch::Known;

    fn metadata(dimensions: &[i64]) -> ModelMetadata {
        let dimension = |&size: &i64| match size {
            -1 => Dimension::Unknown,
            size => Dimension::Fixed(size),
        };
        let tensor = TensorMetadata {
            name: "x".into(),
            dtype: DataType::Fp32,
            dimensions: dimensions.iter().map(dimension).collect(),
            access: InputAccess::InPieces,
        };
        ModelMetadata {
            inputs: vec![tensor.clone()],
            outputs: vec![tensor],
        }
    }

    fn sizes(asked: Option<FillTo>, dimensions: &[i64], rows_max: u32) -> Result<Vec<u32>, String> {
        BatchSizes::new(asked.as_ref(), &metadata(dimensions), rows_max).map(|sizes| sizes.0)
    }

    fn input(rows: i64) -> EngineInput {
        EngineInput {
            dtype: DataType::Fp32,
            shape: [rows, 4].as_slice().into(),
            byte_size: 16 * usize::try_from(rows).unwrap(),
            made: None,
        }
    }

    fn output(rows: i64) -> Wanted {
        let EngineInput {
            dtype,
            shape,
            byte_size,
            ..
        } = input(rows);
        Wanted::Known(Known::new(dtype, shape, byte_size))
    }

    #[test]
    fn steps_are_as_wide_as_a_fifth_of_a_batch_at_most() {
        let expected = [
            1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 50,
        ];
        assert_eq!(steps(50), expected);
        assert_eq!(steps(3), [1, 2, 3]);
        assert_eq!(steps(9), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let sizes = steps(65_536);
        assert_eq!(sizes.last(), Some(&65_536));
        for rows in 1..65_536 {
            let size = sizes[sizes.partition_point(|&size| size < rows)];
            assert!(size - rows <= size / 5, "{rows} in {size}");
        }
    }

    #[test]
    fn sizes_are_for_models_that_leave_their_rows_open() {
        assert_eq!(sizes(None, &[-1, 4], 3), Ok(vec![1, 2, 3]));
        for (dimensions, rows_max) in [(&[-1, -1][..], 8), (&[2, 4], 8), (&[-1, 4], 1), (&[], 8)] {
            assert_eq!(
                sizes(None, dimensions, rows_max),
                Ok(vec![]),
                "{dimensions:?}"
            );
            let refused = sizes(Some(FillTo::Sizes(vec![1])), dimensions, rows_max).unwrap_err();
            assert!(
                refused.contains("no more open than their rows"),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_model_says_its_sizes() {
        assert_eq!(sizes(Some(FillTo::All), &[-1, 4], 8), Ok(vec![]));
        let asked = |sizes: &[u32]| Some(FillTo::Sizes(sizes.into()));
        assert_eq!(sizes(asked(&[2, 4]), &[-1, 4], 8), Ok(vec![2, 4, 8]));
        assert_eq!(sizes(asked(&[2, 8]), &[-1, 4], 8), Ok(vec![2, 8]));
        let refused = sizes(asked(&[2, 9]), &[-1, 4], 8).unwrap_err();
        assert!(
            refused.contains("has 9, and the model's batches have 8 rows"),
            "{refused}"
        );
    }

    #[test]
    fn inputs_and_outputs_are_filled_together() {
        let sizes = BatchSizes(vec![1, 2, 8]);
        let (mut inputs, mut wanted) = ([input(3)], [output(3), Wanted::Skipped]);
        sizes.fill(&mut inputs, &mut wanted);
        assert_eq!((&*inputs[0].shape, inputs[0].byte_size), (&[8, 4][..], 128));
        let [Wanted::Known(known), _] = &wanted else {
            panic!("{wanted:?}")
        };
        assert_eq!((&*known.shape, known.byte_size), (&[3, 4][..], 48));
        assert_eq!((&*known.run_shape, known.run_byte_size), (&[8, 4][..], 128));
    }

    #[test]
    fn what_has_a_size_or_cannot_be_filled_stays() {
        let sizes = BatchSizes(vec![1, 2, 8]);
        let cases = [
            (input(2), output(2)),
            (input(9), output(9)),
            (input(0), output(0)),
            (input(3), Wanted::Made),
            (input(3), output(6)),
        ];
        for (input, output) in cases {
            let (mut inputs, mut wanted) = ([input.clone()], [output]);
            sizes.fill(&mut inputs, &mut wanted);
            assert_eq!(inputs, [input]);
            if let [Wanted::Known(known)] = &wanted {
                assert_eq!(known.run_shape, known.shape);
            }
        }
    }
}
