//! `adjoin infer`.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use adjoin_client::{Client, InferError, Model, Pending, Response, TensorInfo};
use adjoin_schema::DataType;
use clap::Args;

use crate::control::SocketDirArguments;
use crate::npy::{self, Array};
use crate::{Failure, output};

/// Room in a region beside the payload: both rings, descriptors, alignment.
const OVERHEAD_BYTES: u64 = 1 << 20;
/// Room for outputs where nothing is known of their size; a server that needs more says how much.
const RESPONSE_BYTES: u64 = 1 << 20;

/// Runs a model once on arrays from files, through shared memory.
///
/// Inputs are .npy files in C order; outputs are written to DIR/NAME.npy, one line for each goes to
/// standard output.
#[derive(Debug, Args)]
pub(crate) struct InferArguments {
    /// Name of the model
    model: String,

    /// Version of the model [default: the newest ready one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    model_version: Option<u64>,

    /// An input and the .npy file that holds it; once for each input of the model
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = parse_input, required = true)]
    inputs: Vec<InputFile>,

    /// Directory for the outputs; made if it is not there
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,

    /// Longest wait for the answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,

    #[command(flatten)]
    server: SocketDirArguments,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct InputFile {
    name: String,
    path: PathBuf,
}

fn parse_input(text: &str) -> Result<InputFile, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => Ok(InputFile {
            name: name.to_owned(),
            path: path.into(),
        }),
        _ => Err("it is NAME=FILE, such as image=image.npy".into()),
    }
}

pub(crate) fn run(arguments: &InferArguments) -> Result<ExitCode, Failure> {
    let arrays = arguments
        .inputs
        .iter()
        .map(read_input)
        .collect::<Result<Vec<_>, _>>()?;
    let response = infer_with_room(arguments, &arrays)?;
    std::fs::create_dir_all(&arguments.output_dir)
        .map_err(|error| format!("cannot make {}: {error}", arguments.output_dir.display()))?;
    let outputs = response.outputs();
    let mut names = FileNames::default();
    for (index, tensor) in outputs.iter().enumerate() {
        let path = arguments.output_dir.join(names.file_name(tensor.name));
        write_output(&path, &tensor, outputs.bytes_at(index)?)?;
        let TensorInfo {
            name, dtype, shape, ..
        } = tensor;
        output::print(&format!(
            "{}: {dtype} {shape:?} -> {}\n",
            output::shown(name),
            path.display()
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn read_input(input: &InputFile) -> Result<Array, Failure> {
    let path = input.path.display();
    let file = File::open(&input.path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(npy::read(&mut BufReader::new(file)).map_err(|error| format!("{path}: {error}"))?)
}

/// The session is opened before anybody knows how large the outputs are. First the known ones say how much room
/// they take, then perhaps those of unknown size.
fn infer_with_room(arguments: &InferArguments, arrays: &[Array]) -> Result<Response, Failure> {
    let mut response_bytes = RESPONSE_BYTES;
    for _ in 0..3 {
        match infer(arguments, arrays, response_bytes)? {
            Outcome::Answer(response) => return Ok(response),
            Outcome::NeedsRoom(bytes) => response_bytes += bytes + OVERHEAD_BYTES,
        }
    }
    Err(format!("the outputs did not fit a session with {response_bytes} bytes for them").into())
}

enum Outcome {
    Answer(Response),
    /// The outputs take so many bytes, more than the session has.
    NeedsRoom(u64),
}

fn infer(
    arguments: &InferArguments,
    arrays: &[Array],
    response_bytes: u64,
) -> Result<Outcome, Failure> {
    let payload: u64 = arrays
        .iter()
        .map(|array| array.bytes.len() as u64 + 64)
        .sum();
    let client = Client::builder()
        .name("adjoin infer")
        // A part of the region is kept for descriptors.
        .request_bytes(OVERHEAD_BYTES + payload / 15 * 16)
        .response_bytes(response_bytes)
        .answer_timeout(Duration::from_millis(arguments.timeout_ms))
        .connect(&arguments.server.socket_dir)?;
    let model = client.model(&arguments.model)?;
    let model = match arguments.model_version {
        Some(version) => model.version(version)?,
        None => model,
    };
    match submit(arguments, &model, arrays)?
        .wait_timeout(Duration::from_millis(arguments.timeout_ms))
    {
        Ok(response) => Ok(Outcome::Answer(response)),
        Err(failed) => match failed.error {
            InferError::ResponseRegionFull(explanation)
            | InferError::OutputTooLarge(explanation) => {
                Ok(Outcome::NeedsRoom(explanation.rejection().detail[0]))
            }
            error => Err(error.into()),
        },
    }
}

fn submit(arguments: &InferArguments, model: &Model, arrays: &[Array]) -> Result<Pending, Failure> {
    let mut builder = model.request();
    for (input, array) in arguments.inputs.iter().zip(arrays) {
        let spec = model
            .info()
            .inputs
            .iter()
            .find(|spec| spec.name == input.name);
        if let Some(spec) = spec.filter(|spec| spec.dtype != array.dtype) {
            return Err(data_type_error(input, array.dtype, spec.dtype).into());
        }
        builder = match array.dtype {
            DataType::Bytes => {
                builder.input_with_bytes(&input.name, &array.shape, array.bytes.len() as u64)?
            }
            _ => builder.input(&input.name, &array.shape)?,
        };
    }
    let mut request = builder.prepare(false).build()?;
    for (index, array) in arrays.iter().enumerate() {
        request
            .input_bytes_mut_at(index)?
            .copy_from_slice(&array.bytes);
    }
    Ok(request.submit()?)
}

fn data_type_error(input: &InputFile, got: DataType, wanted: DataType) -> String {
    let numpy = match wanted {
        DataType::Fp16 => "float16",
        DataType::Fp32 => "float32",
        DataType::Fp64 => "float64",
        DataType::Bf16 => "ml_dtypes.bfloat16",
        DataType::Bytes => "S",
        other => &other.name().to_lowercase(),
    };
    let (path, name) = (input.path.display(), &input.name);
    format!("{path} holds {got}, and input {name:?} takes {wanted}; save array.astype('{numpy}')")
}

fn write_output(path: &Path, tensor: &TensorInfo<'_>, bytes: &[u8]) -> Result<(), Failure> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        npy::write(&mut file, tensor.dtype, tensor.shape, bytes)?;
        file.flush()
    };
    Ok(write().map_err(|error| format!("cannot write {}: {error}", path.display()))?)
}

/// File names for outputs, whose own names may hold anything.
#[derive(Debug, Default)]
struct FileNames {
    taken: Vec<String>,
}

impl FileNames {
    fn file_name(&mut self, tensor: &str) -> String {
        let is_plain =
            |character: char| character.is_ascii_alphanumeric() || "._-".contains(character);
        let plain: String = tensor
            .chars()
            .map(|c| if is_plain(c) { c } else { '_' })
            .collect();
        let plain = plain.trim_start_matches('.');
        let plain = if plain.is_empty() { "output" } else { plain };
        let numbered = (1..).map(|number| {
            if number == 1 {
                plain.to_owned()
            } else {
                format!("{plain}-{number}")
            }
        });
        let mut free = numbered.filter(|name| !self.taken.contains(name));
        let name = free.next().unwrap_or_default();
        self.taken.push(name.clone());
        name + ".npy"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_a_name_and_a_file() {
        let input = parse_input("a=b=c.npy").unwrap();
        assert_eq!(
            (input.name.as_str(), input.path.as_path()),
            ("a", Path::new("b=c.npy"))
        );
        for wrong in ["a", "=b", "a=", ""] {
            assert!(parse_input(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn output_names_make_files_in_one_directory() {
        let mut names = FileNames::default();
        let files = ["scores", "/a/b:0", "_a_b_0", "..", "../x"].map(|name| names.file_name(name));
        assert_eq!(
            files,
            [
                "scores.npy",
                "_a_b_0.npy",
                "_a_b_0-2.npy",
                "output.npy",
                "_x.npy"
            ]
        );
    }

    #[test]
    fn another_data_type_comes_with_the_call_that_makes_it_right() {
        let input = InputFile {
            name: "x".into(),
            path: "x.npy".into(),
        };
        let text = data_type_error(&input, DataType::Fp64, DataType::Uint8);
        assert!(
            text.contains("holds FP64") && text.contains("astype('uint8')"),
            "{text}"
        );
    }
}
