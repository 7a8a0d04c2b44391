//! Whether the models of an ensemble's steps fit one another.

use std::collections::HashMap;

use adjoin_schema::text::shape_text;
use adjoin_schema::{DataType, Shape};

use crate::checked::{Checked, Step, TensorConfig, word};
use crate::error::{ConfigError, quoted};
use crate::fits::{can_be_equal, mismatch, names};

/// The tensors of an ensemble that are there so far, by name.
type Tensors<'a> = HashMap<&'a str, Flowing>;

impl Checked {
    /// Checks each step of an ensemble against the model that it runs, which `find` gives with its whole configuration:
    /// names, types, shapes and rows. Of a model without steps there is nothing to check.
    ///
    /// # Errors
    /// [`ConfigError::Value`] if there is no such model, or if it takes fewer rows than the ensemble;
    /// [`ConfigError::Mismatch`] if its tensors are others.
    pub fn steps_fit<'a>(
        &self,
        find: impl Fn(&Step) -> Option<&'a Self>,
    ) -> Result<(), ConfigError> {
        let Some(ensemble) = &self.ensemble else {
            return Ok(());
        };
        let inputs = self.inputs.iter().map(|input| &input.tensor);
        let mut tensors: Tensors<'_> = inputs
            .map(|tensor| (tensor.name.as_str(), Flowing::new(tensor, self)))
            .collect();
        for step in &ensemble.steps {
            let model = find(step).ok_or_else(|| {
                let expected = "no such model is served";
                ConfigError::value(
                    "ensemble_scheduling.step.model_name",
                    step_text(step),
                    expected,
                )
            })?;
            self.rows_fit(step, model)?;
            step.inputs_fit(model, &tensors)?;
            step.add_outputs(model, &mut tensors)?;
        }
        for output in &self.outputs {
            let promised = Flowing::new(&output.tensor, self);
            // That a step makes it was found when the configuration was checked.
            if let Some(made) = tensors
                .get(output.tensor.name.as_str())
                .filter(|made| !made.fits(&promised))
            {
                let path = format!("output {}", quoted(&output.tensor.name));
                return Err(mismatch(path, promised.text(), made.text()));
            }
        }
        Ok(())
    }

    fn rows_fit(&self, step: &Step, model: &Self) -> Result<(), ConfigError> {
        if model.max_batch_size == 0 || model.max_batch_size >= self.max_batch_size {
            return Ok(());
        }
        let expected = format!(
            "step {} takes at most {}",
            step_text(step),
            model.max_batch_size
        );
        Err(ConfigError::value(
            "max_batch_size",
            self.max_batch_size,
            expected,
        ))
    }
}

impl Step {
    fn inputs_fit(&self, model: &Checked, tensors: &Tensors<'_>) -> Result<(), ConfigError> {
        let known = || model.inputs.iter().map(|input| &input.tensor);
        for input in model.inputs.iter().filter(|input| !input.is_optional) {
            if !self.inputs.contains_key(&input.tensor.name) {
                let path = format!("ensemble_scheduling.step {}, input_map", step_text(self));
                let configured = names(self.inputs.keys());
                return Err(mismatch(
                    path,
                    configured,
                    names(known().map(|tensor| &tensor.name)),
                ));
            }
        }
        for (name, tensor) in &self.inputs {
            let wanted = Flowing::new(self.own("input", name, known())?, model);
            if let Some(given) = tensors
                .get(tensor.as_str())
                .filter(|given| !given.fits(&wanted))
            {
                let configured = format!("{} {}", quoted(tensor), given.text());
                return Err(mismatch(
                    self.place("input", name),
                    configured,
                    wanted.text(),
                ));
            }
        }
        Ok(())
    }

    fn add_outputs<'a>(
        &'a self,
        model: &Checked,
        tensors: &mut Tensors<'a>,
    ) -> Result<(), ConfigError> {
        for (name, tensor) in &self.outputs {
            let known = model.outputs.iter().map(|output| &output.tensor);
            let own = self.own("output", name, known)?;
            tensors.insert(tensor, Flowing::new(own, model));
        }
        Ok(())
    }

    /// The model's tensor of that name.
    fn own<'a>(
        &self,
        kind: &str,
        name: &str,
        known: impl Iterator<Item = &'a TensorConfig> + Clone,
    ) -> Result<&'a TensorConfig, ConfigError> {
        known
            .clone()
            .find(|tensor| tensor.name == name)
            .ok_or_else(|| {
                let configured = format!("that there is an {kind} of this name");
                mismatch(
                    self.place(kind, name),
                    configured,
                    names(known.map(|tensor| &tensor.name)),
                )
            })
    }

    fn place(&self, kind: &str, name: &str) -> String {
        format!(
            "ensemble_scheduling.step {}, {kind} {}",
            step_text(self),
            quoted(name)
        )
    }
}

fn step_text(step: &Step) -> String {
    match step.version {
        Some(version) => format!("{:?} version {version}", step.model),
        None => format!("{:?}", step.model),
    }
}

/// What flows from one step to another.
struct Flowing {
    dtype: DataType,
    shape: Shape,
}

impl Flowing {
    fn new(tensor: &TensorConfig, of: &Checked) -> Self {
        Self {
            dtype: tensor.dtype,
            shape: tensor.client_shape(of.max_batch_size),
        }
    }

    fn fits(&self, other: &Self) -> bool {
        self.dtype == other.dtype && can_be_equal(&self.shape, &other.shape)
    }

    fn text(&self) -> String {
        format!(
            "{} {}",
            word(self.dtype).as_str_name(),
            shape_text(&self.shape, &[])
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_text;

    fn checked(name: &str, text: &str) -> Checked {
        Checked::new(name, &parse_text(text).unwrap()).unwrap().0
    }

    /// Decode and classify as an ensemble, the second step's configuration and the ensemble's rows given.
    fn fit(rows: u32, classify: &str) -> Result<(), String> {
        let decode = checked(
            "decode",
            "input { name: 'bytes' data_type: TYPE_STRING dims: 1 } output { name: 'pixels' data_type: TYPE_FP32 dims: [ 3, -1, -1 ] } max_batch_size: 8",
        );
        let classify = checked("classify", classify);
        let ensemble = checked(
            "e",
            &format!(
                "max_batch_size: {rows} input {{ name: 'IN' data_type: TYPE_STRING dims: 1 }}
                 output {{ name: 'OUT' data_type: TYPE_FP32 dims: 10 }}
                 ensemble_scheduling {{ step [
                   {{ model_name: 'classify' model_version: 2 input_map {{ key: 'x' value: 'p' }} output_map {{ key: 'y' value: 'OUT' }} }},
                   {{ model_name: 'decode' input_map {{ key: 'bytes' value: 'IN' }} output_map {{ key: 'pixels' value: 'p' }} }} ] }}"
            ),
        );
        let find = |step: &Step| {
            [&decode, &classify]
                .into_iter()
                .find(|model| model.name == step.model)
        };
        ensemble.steps_fit(find).map_err(|error| error.to_string())
    }

    const GOOD: &str = "max_batch_size: 4 input { name: 'x' data_type: TYPE_FP32 dims: [ 3, 28, 28 ] }
        output [ { name: 'y' data_type: TYPE_FP32 dims: 10 }, { name: 'z' data_type: TYPE_FP32 dims: 1 } ]";

    #[test]
    fn steps_that_fit_are_taken() {
        assert_eq!(fit(4, GOOD), Ok(()));
        let whole = GOOD
            .replace("max_batch_size: 4", "")
            .replace("[ 3,", "[ -1, 3,")
            .replace("dims: 10", "dims: [ -1, 10 ]");
        assert_eq!(fit(8, &whole), Ok(()));
        let optional =
            format!("{GOOD} input {{ name: 'more' data_type: TYPE_FP32 dims: 1 optional: true }}");
        assert_eq!(fit(4, &optional), Ok(()));
    }

    #[test]
    fn steps_that_do_not_fit_say_what_is_given_and_wanted() {
        for (rows, from, to, words) in [
            (
                5,
                "",
                "",
                [
                    "max_batch_size is 5",
                    "\"classify\" version 2 takes at most 4",
                ],
            ),
            (
                4,
                "[ 3, 28",
                "[ 1, 28",
                [
                    "\"classify\" version 2, input \"x\" says \"p\" TYPE_FP32 [-1,3,-1,-1]",
                    "TYPE_FP32 [-1,1,28,28]",
                ],
            ),
            (
                4,
                "'x' data_type: TYPE_FP32",
                "'x' data_type: TYPE_UINT8",
                ["\"p\" TYPE_FP32", "TYPE_UINT8"],
            ),
            (
                4,
                "dims: 10",
                "dims: 7",
                [
                    "output \"OUT\" says TYPE_FP32 [-1,10]",
                    "has TYPE_FP32 [-1,7]",
                ],
            ),
            (
                4,
                "'x'",
                "'image'",
                ["input_map says \"x\"", "the model has \"image\""],
            ),
            (
                4,
                "'y'",
                "'logits'",
                ["output \"y\"", "the model has \"logits\", \"z\""],
            ),
        ] {
            let error = fit(rows, &GOOD.replace(from, to)).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let alone = checked(
            "e",
            "input { name: 'a' data_type: TYPE_BOOL dims: 1 } output { name: 'b' data_type: TYPE_BOOL dims: 1 }
             ensemble_scheduling { step { model_name: 'gone' input_map { key: 'a' value: 'a' } output_map { key: 'b' value: 'b' } } }",
        );
        let error = alone.steps_fit(|_| None).unwrap_err().to_string();
        assert!(
            error.contains("\"gone\"; no such model is served"),
            "{error}"
        );
    }
}
