//! What the tests begin with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adjoin_backend::conformance::memory::Taker;
use adjoin_backend::conformance::onnx::Graph;
use adjoin_backend::{
    Accelerator, Backend, Copied, DevicePlacement, ExecuteError, Execution, Input, Instance,
    LoadError, Model, ModelSource, Output, Placement, RowsMax,
};
use adjoin_backend_onnxruntime::{DeviceAccess, OnnxRuntimeBackend};
use adjoin_cuda::{Driver, TransferSettings, Transfers};
use adjoin_schema::DataType;
use adjoin_shm::{Payload, PayloadMut};
use fake_cuda::harness::FakeCuda;
use fake_onnxruntime::harness;

/// A machine with one device, whose providers run what the real library runs on the processor.
pub(crate) fn fake() -> FakeCuda {
    let named = std::env::var_os("ADJOIN_ONNXRUNTIME")
        .expect("ADJOIN_ONNXRUNTIME names libonnxruntime.so; `make gpu` fetches one");
    let real = OnnxRuntimeBackend::find(Some(Path::new(&named))).unwrap();
    FakeCuda::new().set(harness::REAL, real.display())
}

/// The device, and places for files.
pub(crate) struct Machine {
    pub(crate) transfers: Transfers,
    pub(crate) files: tempfile::TempDir,
}

impl Machine {
    pub(crate) fn new() -> Self {
        let device = Driver::find().unwrap().device(0).unwrap();
        let settings = TransferSettings {
            registered_bytes: 64 << 20,
            staging_bytes: 64 << 20,
            thresholds: Some(Default::default()),
            spin: Duration::from_micros(50),
        };
        Self {
            transfers: Transfers::start(&device, settings).unwrap(),
            files: tempfile::tempdir().unwrap(),
        }
    }

    /// Where engines are kept.
    pub(crate) fn engines(&self) -> PathBuf {
        self.files.path().join("engines")
    }

    pub(crate) fn backend(&self) -> OnnxRuntimeBackend {
        self.backend_with(Some(self.engines()))
    }

    pub(crate) fn backend_with(&self, engine_cache: Option<PathBuf>) -> OnnxRuntimeBackend {
        let transfers = self.transfers.clone();
        let access = DeviceAccess {
            open: Arc::new(move || Ok(transfers.clone())),
            engine_cache,
        };
        OnnxRuntimeBackend::open(&harness::library())
            .unwrap()
            .with_device(access)
    }

    /// A source for a model that was written as a file.
    pub(crate) fn source(
        &self,
        graph: &[u8],
        placement: DevicePlacement,
        rows_max: u32,
    ) -> ModelSource {
        let path = self.files.path().join("model.onnx");
        std::fs::write(&path, graph).unwrap();
        ModelSource {
            name: "m".into(),
            version: 1,
            path,
            intra_op_threads: 1,
            parameters: BTreeMap::new(),
            placement: Placement::Device(placement),
            rows_max: RowsMax::Configured(rows_max),
        }
    }

    pub(crate) fn load(&self, graph: &[u8], rows_max: u32) -> Box<dyn Model> {
        self.try_load(graph, plain(), rows_max).unwrap()
    }

    pub(crate) fn try_load(
        &self,
        graph: &[u8],
        placement: DevicePlacement,
        rows_max: u32,
    ) -> Result<Box<dyn Model>, LoadError> {
        self.backend()
            .load(&self.source(graph, placement, rows_max))
    }

    /// Why a model is not loaded.
    pub(crate) fn refusal(
        &self,
        graph: &[u8],
        placement: DevicePlacement,
        rows_max: u32,
    ) -> String {
        let loaded = self.try_load(graph, placement, rows_max);
        loaded.map(drop).unwrap_err().to_string()
    }

    /// To be called at the end, when all models are dropped: nothing is left, and nothing was wrong.
    pub(crate) fn end(self) {
        harness::report().assert_clean();
    }
}

/// Without graphs.
pub(crate) fn plain() -> DevicePlacement {
    DevicePlacement {
        graphs: Some(false),
        ..DevicePlacement::default()
    }
}

/// An accelerator with what it is told, without graphs.
pub(crate) fn accelerated(name: &str, parameters: &[(&str, &str)]) -> DevicePlacement {
    let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    DevicePlacement {
        graphs: Some(false),
        accelerators: vec![Accelerator {
            name: name.to_owned(),
            parameters: parameters.iter().map(pair).collect(),
        }],
    }
}

const FP32: u64 = 1;

/// `sum = a + b` over rows of any width.
pub(crate) fn add(dimensions: &[&str]) -> Vec<u8> {
    Graph::default()
        .node("Add", &["a", "b"], &["sum"])
        .input("a", FP32, dimensions)
        .input("b", FP32, dimensions)
        .output("sum", FP32, dimensions)
        .model()
}

/// The checked-in `add`: rows of four.
pub(crate) fn add_of_rows() -> Vec<u8> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/add.onnx");
    std::fs::read(path).unwrap()
}

pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    bytes.collect()
}

pub(crate) fn values_of(bytes: &[u8]) -> Vec<f32> {
    let values = bytes.as_chunks().0.iter();
    values.map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

/// Values of a request with so many rows of four, different in every turn.
pub(crate) fn request(turn: usize, rows: usize) -> Vec<f32> {
    (0..rows * 4)
        .map(|value| (turn * 1000 + value) as f32)
        .collect()
}

/// Runs requests together, each `a + a` of its rows of four; what each gets.
pub(crate) fn double(
    instance: &mut dyn Instance,
    requests: &[Vec<f32>],
) -> Result<Vec<Vec<f32>>, ExecuteError> {
    let inputs: Vec<Vec<u8>> = requests.iter().map(|values| bytes_of(values)).collect();
    let mut rooms: Vec<Vec<u8>> = inputs.iter().map(|bytes| vec![0xa5; bytes.len()]).collect();
    let rows: usize = requests.iter().map(|values| values.len() / 4).sum();
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
        inputs: &[input, input],
        outputs: &mut [output],
    };
    let copied = instance.run(execution, &mut Taker::default())?;
    assert_eq!(copied, Copied::default());
    Ok(rooms.iter().map(|room| values_of(room)).collect())
}

/// The right answer to [`double`].
pub(crate) fn doubled(requests: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let each = |values: &Vec<f32>| values.iter().map(|value| 2.0 * value).collect();
    requests.iter().map(each).collect()
}

/// Runs [`double`], and expects the right answer.
pub(crate) fn expect(instance: &mut dyn Instance, turn: usize, rows: &[usize]) {
    let requests: Vec<_> = (rows.iter().enumerate())
        .map(|(index, &rows)| request(turn * 10 + index, rows))
        .collect();
    let answers = double(instance, &requests).unwrap();
    assert_eq!(answers, doubled(&requests), "turn {turn}, rows {rows:?}");
}
