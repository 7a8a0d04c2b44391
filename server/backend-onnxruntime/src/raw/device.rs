//! Running a batch on a device: values over buffers there, and the work enqueued in a stream of the caller's.

use std::fmt;
use std::ptr;
use std::sync::Arc;

use adjoin_backend::{ExecuteError, ModelMetadata, OutputSink, SinkError};
use adjoin_cuda::{DeviceBuffer, Stream};
use adjoin_schema::{DataType, Shape};
use adjoin_shm::Payload;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider, ExecutionProviderDispatch};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{NoSelectedOutputs, RunOptions, Session};
use smallvec::SmallVec;

use super::binding::{Arrays, FEW};
use super::names::Names;
use super::runner::{deliver, run_session, take_made};
use super::value::Value;
use crate::instance::failed;

/// The key of a run's options for the graph that it is captured in or replayed from.
const GRAPH: &str = "gpu_graph_id";
/// The value of that for a run without a graph.
const NO_GRAPH: i32 = -1;

/// What a provider is told: its own keys and values.
pub(crate) type ProviderOptions = [(&'static str, String)];

/// The provider of CUDA, which enqueues its work in `stream`. The stream has to outlive the session.
pub(crate) fn cuda(
    device: i32,
    stream: &Stream,
    options: &ProviderOptions,
) -> ExecutionProviderDispatch {
    let provider = ep::CUDA::default().with_device_id(device);
    // SAFETY: the session is dropped before the stream, as `DeviceSession` holds both.
    let provider = unsafe { provider.with_compute_stream(stream.as_ptr().cast()) };
    configured(provider, options).build().error_on_failure()
}

/// The provider of TensorRT, on the same terms.
pub(crate) fn tensorrt(
    device: i32,
    stream: &Stream,
    options: &ProviderOptions,
) -> ExecutionProviderDispatch {
    let provider = ep::TensorRT::default().with_device_id(device);
    // SAFETY: as in `cuda`.
    let provider = unsafe { provider.with_compute_stream(stream.as_ptr().cast()) };
    configured(provider, options).build().error_on_failure()
}

fn configured<P: ArbitrarilyConfigurableExecutionProvider>(
    provider: P,
    options: &ProviderOptions,
) -> P {
    options.iter().fold(provider, |provider, (key, value)| {
        provider.with_arbitrary_config(key, value)
    })
}

/// A session on a device, with all that its runs have in common.
pub(crate) struct DeviceRunner {
    session: Session,
    memory: MemoryInfo<'static>,
    options: RunOptions<NoSelectedOutputs>,
    names: Arc<Names>,
    /// Whether runs are captured as graphs.
    has_graphs: bool,
    /// The graph that the options name.
    graph: Option<i32>,
}

impl fmt::Debug for DeviceRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceRunner")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// A tensor of a batch in a buffer of the device, from its start on.
#[derive(Clone, Debug)]
pub(crate) struct DeviceTensor {
    pub(crate) dtype: DataType,
    pub(crate) shape: Shape,
    /// What type and shape make.
    pub(crate) byte_size: usize,
    pub(crate) buffer: DeviceBuffer,
}

/// What is wanted of an output.
#[derive(Clone, Debug)]
pub(crate) enum DeviceOutput {
    /// It is written there.
    Bound(DeviceTensor),
    /// The engine makes it, in memory of the host.
    Made,
    /// It is not computed, unless something else needs it.
    Skipped,
}

/// Outputs that the engine has made, with their numbers.
#[derive(Debug, Default)]
pub(crate) struct Made(SmallVec<[(usize, Option<Value>); FEW]>);

impl DeviceRunner {
    /// A session whose work goes to device number `device`, and that captures graphs if `has_graphs`.
    pub(crate) fn new(
        session: Session,
        device: i32,
        metadata: &ModelMetadata,
        has_graphs: bool,
    ) -> ort::Result<Self> {
        let mut options = RunOptions::new()?;
        // Who runs a batch waits for the event behind its copies, not here.
        options.disable_device_sync()?;
        Ok(Self {
            session,
            memory: MemoryInfo::new(
                AllocationDevice::CUDA,
                device,
                AllocatorType::Device,
                MemoryType::Default,
            )?,
            options,
            names: Arc::new(Names::of(metadata)?),
            has_graphs,
            graph: None,
        })
    }

    /// Whether runs may have been captured as graphs.
    pub(crate) fn has_graphs(&self) -> bool {
        self.has_graphs
    }

    /// For each output, the input of the same name.
    pub(crate) fn handed_out(&self) -> &[Option<usize>] {
        &self.names.handed_out
    }

    /// Enqueues a batch in the session's stream; what it reads and writes has to stay until the work there is done.
    ///
    /// A session that captures graphs captures the first run with a `graph`, and replays that in all further ones, over
    /// the buffers of the first: so a graph is for one set of buffers and shapes.
    ///
    /// There has to be an output that is not skipped.
    ///
    /// # Errors
    /// What the engine reports; some of the work may be under way then.
    pub(crate) fn enqueue(
        &mut self,
        inputs: &[DeviceTensor],
        outputs: &[DeviceOutput],
        graph: Option<i32>,
    ) -> Result<Made, String> {
        self.name_graph(graph).map_err(|error| error.to_string())?;
        self.run(inputs, outputs).map_err(|error| error.to_string())
    }

    fn name_graph(&mut self, graph: Option<i32>) -> ort::Result<()> {
        let graph = graph.unwrap_or(NO_GRAPH);
        if self.has_graphs && self.graph != Some(graph) {
            self.options.set(GRAPH, graph.to_string())?;
            self.graph = Some(graph);
        }
        Ok(())
    }

    fn run(&mut self, inputs: &[DeviceTensor], outputs: &[DeviceOutput]) -> ort::Result<Made> {
        let mut arrays = Arrays::default();
        let mut values: SmallVec<[Value; 2 * FEW]> = SmallVec::new();
        for input in inputs {
            let value = self.value(input)?;
            arrays.inputs.push(value.as_ptr());
            values.push(value);
        }
        let names = Arc::clone(&self.names);
        for (index, (output, &name)) in outputs.iter().zip(names.outputs.pointers()).enumerate() {
            let value = match output {
                DeviceOutput::Bound(tensor) => {
                    let value = self.value(tensor)?;
                    values.push(value);
                    values.last().map_or(ptr::null_mut(), Value::as_ptr)
                }
                DeviceOutput::Made => {
                    arrays.unbound.push(arrays.wanted.len());
                    ptr::null_mut()
                }
                DeviceOutput::Skipped => continue,
            };
            arrays.wanted.push(index);
            arrays.output_names.push(name);
            arrays.outputs.push(value);
        }
        if arrays.inputs.len() != names.inputs.pointers().len() {
            return Err(ort::Error::new("not as many inputs as the model has"));
        }
        // SAFETY:
        // - `&mut self` keeps a second run of the session away;
        // - the arrays were filled above, a name and a value for each; the values live until the end of this function, and
        //   the engine keeps what it needs of them;
        // - below the values are buffers of the device, each as large as its tensor says (`value`). Whoever enqueues keeps
        //   them until the work is done, and the driver itself frees memory of the device only after that.
        let ran = unsafe { run_session(&self.session, &self.options, &names, &mut arrays) };
        let made = take_made(&mut arrays);
        ran?;
        Ok(Made(made))
    }

    /// A value over the start of a buffer that is large enough for it.
    fn value(&self, tensor: &DeviceTensor) -> ort::Result<Value> {
        let capacity = tensor.buffer.byte_size();
        if tensor.byte_size > capacity {
            return Err(ort::Error::new(format!(
                "a tensor of {} bytes does not fit a buffer of {capacity}",
                tensor.byte_size
            )));
        }
        let address = usize::try_from(tensor.buffer.device_address()).unwrap_or(0);
        Value::over(
            &self.memory,
            ptr::without_provenance_mut(address),
            tensor.byte_size,
            tensor.dtype,
            &tensor.shape,
        )
    }
}

impl Made {
    /// Hands an output to a sink, when all work of the batch is done. Returns its bytes, which a processor has copied from
    /// the device.
    ///
    /// # Errors
    /// If the engine has not made it, or not brought it to the host; or the sink's refusal.
    pub(crate) fn deliver(
        &self,
        index: usize,
        sink: &mut dyn OutputSink,
    ) -> Result<usize, ExecuteError> {
        let value = self.0.iter().find(|(made, _)| *made == index);
        let value = value.and_then(|(_, value)| value.as_ref());
        if let Some(value) = value
            && !value.is_on_host().map_err(failed)?
        {
            return Err(failed(format!("output {index} was left on the device")));
        }
        let mut counted = Counted { sink, byte_size: 0 };
        // There is no input in memory of the host that a result could be.
        deliver(value, index, &[], &mut counted)?;
        Ok(counted.byte_size)
    }
}

/// A sink that counts what goes to it.
struct Counted<'s> {
    sink: &'s mut dyn OutputSink,
    byte_size: usize,
}

impl OutputSink for Counted<'_> {
    fn accept(
        &mut self,
        index: usize,
        dtype: DataType,
        shape: &[i64],
        payload: Payload<'_>,
    ) -> Result<(), SinkError> {
        self.byte_size += payload.byte_size();
        self.sink.accept(index, dtype, shape, payload)
    }
}
