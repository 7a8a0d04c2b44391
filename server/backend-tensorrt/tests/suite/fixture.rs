//! What the tests begin with.

use std::path::Path;
use std::time::Duration;

use adjoin_backend::{
    Backend, Copied, ExecuteError, Execution, Input, Instance, LoadError, Model, ModelSource,
    Output,
};
use adjoin_backend::{OutputSink, SinkError};
use adjoin_backend_tensorrt::TensorRtBackend;
use adjoin_cuda::{Driver, TransferSettings, Transfers};
use adjoin_fake_nvinfer::Plan;
use adjoin_schema::DataType;
use adjoin_shm::{Payload, PayloadMut};

/// Device 0 with room for staging.
pub(crate) fn transfers() -> Transfers {
    let device = Driver::find().unwrap().device(0).unwrap();
    let settings = TransferSettings {
        registered_bytes: 64 << 20,
        staging_bytes: 16 << 20,
        thresholds: Some(Default::default()),
        spin: Duration::from_micros(50),
    };
    Transfers::start(&device, settings).unwrap()
}

pub(crate) fn backend(transfers: &Transfers) -> TensorRtBackend {
    let library = TensorRtBackend::find(Some(&adjoin_fake_nvinfer::directory())).unwrap();
    let transfers = transfers.clone();
    TensorRtBackend::open(&library, move || Ok(transfers.clone())).unwrap()
}

/// A plan of the release that there is.
pub(crate) fn plan() -> Plan {
    Plan::new(adjoin_fake_nvinfer::major())
}

pub(crate) fn affine() -> Plan {
    Plan::affine(adjoin_fake_nvinfer::major())
}

pub(crate) fn source(directory: &Path, bytes: &[u8], parameters: &[(&str, &str)]) -> ModelSource {
    let path = directory.join("model.plan");
    std::fs::write(&path, bytes).unwrap();
    ModelSource {
        name: "m".into(),
        version: 1,
        path,
        intra_op_threads: 1,
        parameters: parameters
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()))
            .collect(),
        placement: Default::default(),
        rows_max: Default::default(),
    }
}

pub(crate) fn load_with(
    transfers: &Transfers,
    bytes: &[u8],
    parameters: &[(&str, &str)],
) -> Result<Box<dyn Model>, LoadError> {
    let directory = tempfile::tempdir().unwrap();
    backend(transfers).load(&source(directory.path(), bytes, parameters))
}

pub(crate) fn load(transfers: &Transfers, plan: Plan) -> Box<dyn Model> {
    load_with(transfers, &plan.into_bytes(), &[]).unwrap()
}

/// Why bytes are not loaded.
pub(crate) fn refusal(transfers: &Transfers, bytes: &[u8], parameters: &[(&str, &str)]) -> String {
    load_with(transfers, bytes, parameters)
        .map(drop)
        .unwrap_err()
        .to_string()
}

pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

pub(crate) fn values_of(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

/// Takes what has no room yet.
#[derive(Default)]
pub(crate) struct Taker(pub(crate) Vec<(usize, Vec<i64>, Vec<u8>)>);

impl OutputSink for Taker {
    fn accept(
        &mut self,
        index: usize,
        _: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError> {
        self.0.push((index, shape.into(), payload.to_vec()));
        Ok(())
    }
}

/// Runs requests together, each with its rows of four; what each gets.
pub(crate) fn run(
    instance: &mut dyn Instance,
    requests: &[Vec<f32>],
) -> Result<Vec<Vec<f32>>, ExecuteError> {
    let inputs: Vec<Vec<u8>> = requests.iter().map(|values| bytes_of(values)).collect();
    let mut rooms: Vec<Vec<u8>> = inputs.iter().map(|bytes| vec![0xa5; bytes.len()]).collect();
    let rows = requests
        .iter()
        .map(|values| values.len() / 4)
        .sum::<usize>();
    let shape = [i64::try_from(rows).unwrap(), 4];
    let pieces: Vec<Payload<'_>> = inputs
        .iter()
        .map(|bytes| Payload::from_slice(bytes))
        .collect();
    let input = Input {
        dtype: DataType::Fp32,
        shape: &shape,
        payload: pieces[0],
        rest: &pieces[1..],
    };
    let output = Output::Pieces {
        dtype: DataType::Fp32,
        shape: &shape,
        pieces: rooms
            .iter_mut()
            .map(|room| PayloadMut::from_slice(room))
            .collect(),
    };
    let execution = Execution {
        key: None,
        inputs: &[input],
        outputs: &mut [output],
    };
    let copied = instance.run(execution, &mut Taker::default())?;
    assert_eq!(copied, Copied::default());
    Ok(rooms.iter().map(|room| values_of(room)).collect())
}

pub(crate) fn doubled_plus_one(requests: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let each = |values: &Vec<f32>| values.iter().map(|value| 2.0 * value + 1.0).collect();
    requests.iter().map(each).collect()
}
