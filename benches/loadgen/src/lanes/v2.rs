//! The Open Inference Protocol over HTTP, with the extension for binary tensors: a header of JSON, then the
//! bytes of all tensors. Or nothing but the header, where the tensors lie in a segment of shared memory.

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::tensor::Tensor;
use adjoin_shm::clock::now_ns;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::grpc::rewrite;
use super::http::{Connection, HttpAnswer};
use super::segment::{Place, Segment};
use super::{Answer, CallError, Lane};
use crate::arguments::HttpUrl;
use crate::job::Job;

/// How long the JSON is before the bytes begin.
const HEADER_LENGTH: &str = "Inference-Header-Content-Length";

/// A connection, and the header of its requests.
#[derive(Debug)]
pub(super) struct V2Lane {
    connection: Connection,
    path: String,
    header: Value,
    /// The header as text, where it is always the same.
    fixed: Option<Bytes>,
    /// Bytes of the inputs; none where they are shared.
    payload: Vec<Bytes>,
    segment: Option<Segment>,
}

/// The header of an answer.
#[derive(Debug, Deserialize)]
struct Heading {
    outputs: Vec<Output>,
}

#[derive(Debug, Deserialize)]
struct Output {
    name: String,
    datatype: String,
    shape: Vec<i64>,
    #[serde(default)]
    parameters: Parameters,
}

#[derive(Debug, Default, Deserialize)]
struct Parameters {
    binary_data_size: Option<usize>,
}

/// The lanes of a client.
pub(super) async fn lanes(
    job: &Job,
    url: &HttpUrl,
    is_shared: bool,
) -> Result<Vec<V2Lane>, Failure> {
    let mut lanes = Vec::new();
    for _ in 0..job.lanes {
        let mut connection = Connection::new(url, "application/octet-stream");
        // How large outputs are shows in the first answer, which therefore has them in its body.
        let segment = if is_shared && !job.outputs.is_empty() {
            let mut segment = Segment::new(&job.inputs, &job.outputs)?;
            let registered = register(&mut connection, &segment).await;
            segment.unlink();
            registered?;
            Some(segment)
        } else {
            None
        };
        let header = match &segment {
            Some(segment) => shared_header(job, segment),
            None => header(job),
        };
        let fixed = match job.deadline_us {
            Some(_) => None,
            None => Some(Bytes::from(serde_json::to_vec(&header)?)),
        };
        let payloads = if segment.is_some() {
            0
        } else {
            job.inputs.len()
        };
        lanes.push(V2Lane {
            connection,
            path: format!("/v2/models/{}/infer", job.model),
            header,
            fixed,
            payload: vec![Bytes::new(); payloads],
            segment,
        });
    }
    Ok(lanes)
}

async fn register(connection: &mut Connection, segment: &Segment) -> Result<(), CallError> {
    let path = format!("/v2/systemsharedmemory/region/{}/register", segment.name());
    let body = json!({"key": segment.key(), "offset": 0, "byte_size": segment.byte_size()});
    let body = serde_json::to_vec(&body).map_err(CallError::failed)?;
    connection.post(&path, &[body.into()], None).await.map(drop)
}

/// The header of requests whose tensors lie in a segment.
fn shared_header(job: &Job, segment: &Segment) -> Value {
    let reference = |place: &Place| {
        json!({
            "shared_memory_region": segment.name(),
            "shared_memory_offset": place.offset,
            "shared_memory_byte_size": place.byte_size,
        })
    };
    let input = |(tensor, place): (&Tensor, &Place)| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.data_type,
            "parameters": reference(place),
        })
    };
    let output = |(tensor, place): (&Tensor, &Place)| json!({"name": tensor.name, "parameters": reference(place)});
    let inputs: Vec<Value> = job.inputs.iter().zip(&segment.inputs).map(input).collect();
    let outputs: Vec<Value> = job
        .outputs
        .iter()
        .zip(&segment.outputs)
        .map(output)
        .collect();
    json!({"inputs": inputs, "outputs": outputs})
}

/// The header of requests whose tensors follow it.
fn header(job: &Job) -> Value {
    let input = |tensor: &Tensor| {
        json!({
            "name": tensor.name,
            "shape": tensor.shape,
            "datatype": tensor.data_type,
            "parameters": {"binary_data_size": tensor.bytes()},
        })
    };
    let output = |name: &String| json!({"name": name, "parameters": {"binary_data": true}});
    let inputs: Vec<Value> = job.inputs.iter().map(input).collect();
    let mut header = json!({"inputs": inputs});
    if job.wanted.is_empty() {
        header["parameters"] = json!({"binary_data_output": true});
    } else {
        header["outputs"] = job.wanted.iter().map(output).collect();
    }
    header
}

impl V2Lane {
    async fn infer(&mut self, until_ns: Option<u64>) -> Result<Vec<(Output, Bytes)>, CallError> {
        let header = match &self.fixed {
            Some(header) => header.clone(),
            None => self.header_until(until_ns)?,
        };
        let length = header.len().to_string();
        let parts: Vec<Bytes> = std::iter::once(header)
            .chain(self.payload.iter().cloned())
            .collect();
        let answer = self
            .connection
            .post(&self.path, &parts, Some((HEADER_LENGTH, &length)))
            .await?;
        match &self.segment {
            None => outputs(&answer),
            Some(_) => {
                let heading: Heading =
                    serde_json::from_slice(&answer.body).map_err(CallError::failed)?;
                let outputs = heading.outputs.into_iter();
                Ok(outputs.map(|output| (output, Bytes::new())).collect())
            }
        }
    }

    /// The header with the rest of the time, in microseconds.
    fn header_until(&mut self, until_ns: Option<u64>) -> Result<Bytes, CallError> {
        if let Some(until_ns) = until_ns {
            let rest_us = (until_ns.saturating_sub(now_ns()) / 1000).max(1);
            self.header["parameters"]["timeout"] = rest_us.into();
        }
        let header = serde_json::to_vec(&self.header).map_err(CallError::failed)?;
        Ok(header.into())
    }
}

/// The outputs of an answer with their bytes, which are not copied.
fn outputs(answer: &HttpAnswer) -> Result<Vec<(Output, Bytes)>, CallError> {
    let length = answer.head.headers.get(HEADER_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let body = &answer.body;
    let length = length.filter(|&length| length <= body.len());
    let Some(length) = length else {
        let text = "the answer has no binary tensors: its header does not say how long the JSON is";
        return Err(CallError::failed(text));
    };
    parse(&body.slice(..length), &body.slice(length..))
}

fn parse(heading: &[u8], bytes: &Bytes) -> Result<Vec<(Output, Bytes)>, CallError> {
    let heading: Heading = serde_json::from_slice(heading).map_err(CallError::failed)?;
    let mut at = 0usize;
    let pair = |output: Output| {
        let size = output.parameters.binary_data_size;
        let end = size.and_then(|size| at.checked_add(size));
        let end = end.filter(|&end| end <= bytes.len()).ok_or_else(|| {
            CallError::Failed(format!(
                "output {:?} has no bytes in the answer",
                output.name
            ))
        })?;
        let data = bytes.slice(at..end);
        at = end;
        Ok((output, data))
    };
    heading.outputs.into_iter().map(pair).collect()
}

impl Lane for V2Lane {
    fn write(&mut self, contents: &[Vec<u8>]) -> Result<(), Failure> {
        match &self.segment {
            Some(segment) => segment.write(contents)?,
            None => {
                for (payload, content) in self.payload.iter_mut().zip(contents) {
                    rewrite(payload, content);
                }
            }
        }
        Ok(())
    }

    async fn call(&mut self, until_ns: Option<u64>) -> Result<(), CallError> {
        self.infer(until_ns).await.map(drop)
    }

    async fn ask(&mut self) -> Result<Vec<Answer>, CallError> {
        let mut outputs = self.infer(None).await?;
        if let Some(segment) = &self.segment {
            let shared = segment.outputs().map_err(CallError::failed)?;
            for ((_, bytes), shared) in outputs.iter_mut().zip(shared) {
                *bytes = shared.into();
            }
        }
        let answer = outputs.into_iter().map(|(output, bytes)| Answer {
            tensor: Tensor {
                name: output.name,
                data_type: output.datatype,
                shape: output.shape,
                byte_size: Some(bytes.len() as u64),
            },
            bytes: bytes.to_vec(),
        });
        Ok(answer.collect())
    }

    async fn close(&mut self) -> Result<(), Failure> {
        let Some(segment) = &self.segment else {
            return Ok(());
        };
        let path = format!(
            "/v2/systemsharedmemory/region/{}/unregister",
            segment.name()
        );
        self.connection.post(&path, &[], None).await?;
        Ok(())
    }

    fn reconnects(&self) -> u64 {
        self.connection.reconnects()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_lie_one_after_the_other() {
        let heading = r#"{"model_name": "m", "outputs": [
            {"name": "a", "datatype": "FP32", "shape": [1], "parameters": {"binary_data_size": 4}},
            {"name": "b", "datatype": "INT8", "shape": [2], "parameters": {"binary_data_size": 2}}
        ]}"#;
        let bytes = Bytes::from_static(b"abcdef");
        let outputs = parse(heading.as_bytes(), &bytes).unwrap();
        let seen: Vec<_> = outputs
            .iter()
            .map(|(output, bytes)| (output.name.as_str(), &bytes[..]))
            .collect();
        assert_eq!(seen, [("a", &b"abcd"[..]), ("b", b"ef")]);
        let short = parse(heading.as_bytes(), &bytes.slice(..5)).unwrap_err();
        assert!(short.to_string().contains("\"b\""));
        let in_text =
            r#"{"outputs": [{"name": "a", "datatype": "FP32", "shape": [1], "data": [1.0]}]}"#;
        assert!(parse(in_text.as_bytes(), &bytes).is_err());
    }
}
