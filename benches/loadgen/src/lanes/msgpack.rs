//! Bodies of msgpack over HTTP: `{"shape": [..], "data": bin}`, as they are or as a field of a form.

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::tensor::Tensor;
use bytes::Bytes;
use rmp::decode::{read_array_len, read_bin_len, read_int, read_map_len, read_str_len};

use super::grpc::rewrite;
use super::http::Connection;
use super::{Answer, CallError, Lane};
use crate::arguments::HttpUrl;
use crate::job::Job;

const BOUNDARY: &str = "adjoin-loadgen-boundary";

/// A connection, with the body of its requests in parts: what comes before the payload, the payload, what
/// comes after.
#[derive(Debug)]
pub(super) struct MsgpackLane {
    connection: Connection,
    path: String,
    parts: [Bytes; 3],
    /// Answers do not name it; so it is the input's.
    data_type: String,
}

/// The lanes of a client.
pub(super) async fn lanes(
    job: &Job,
    url: &HttpUrl,
    is_form: bool,
) -> Result<Vec<MsgpackLane>, Failure> {
    let input = job.inputs.first().ok_or("a request has an input")?;
    let content_type = if is_form {
        "multipart/form-data; boundary=adjoin-loadgen-boundary"
    } else {
        "application/msgpack"
    };
    let (before, after) = around(input, is_form)?;
    let mut lanes = Vec::new();
    for _ in 0..job.lanes {
        lanes.push(MsgpackLane {
            connection: Connection::new(url, content_type),
            path: url.path.clone(),
            parts: [before.clone(), Bytes::new(), after.clone()],
            data_type: input.data_type.clone(),
        });
    }
    Ok(lanes)
}

/// The bytes before and after the payload.
fn around(input: &Tensor, is_form: bool) -> Result<(Bytes, Bytes), Failure> {
    let mut before = Vec::new();
    let mut after = String::new();
    if is_form {
        let heading = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"data\"; filename=\"x\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        before.extend(heading.into_bytes());
        after = format!("\r\n--{BOUNDARY}--\r\n");
    }
    rmp::encode::write_map_len(&mut before, 2)?;
    rmp::encode::write_str(&mut before, "shape")?;
    rmp::encode::write_array_len(&mut before, u32::try_from(input.shape.len())?)?;
    for &size in &input.shape {
        rmp::encode::write_sint(&mut before, size)?;
    }
    rmp::encode::write_str(&mut before, "data")?;
    rmp::encode::write_bin_len(&mut before, u32::try_from(input.bytes())?)?;
    Ok((before.into(), after.into()))
}

/// Finds shape and data in a body; the data is not copied.
fn parse(body: &Bytes) -> Result<(Vec<i64>, Bytes), CallError> {
    let wrong = |what: &str| CallError::Failed(format!("the answer's msgpack {what}"));
    let mut rest: &[u8] = body;
    let keys = read_map_len(&mut rest).map_err(|_| wrong("is no map"))?;
    let (mut shape, mut data) = (None, None);
    for _ in 0..keys {
        let size = read_str_len(&mut rest).map_err(|_| wrong("has a key that is no text"))?;
        let key = take(&mut rest, size).ok_or_else(|| wrong("ends early"))?;
        match key {
            b"shape" => {
                let count = read_array_len(&mut rest).map_err(|_| wrong("has no list as shape"))?;
                let size = |_| read_int(&mut rest).map_err(|_| wrong("has a shape of no numbers"));
                shape = Some((0..count).map(size).collect::<Result<Vec<i64>, _>>()?);
            }
            b"data" => {
                let size = read_bin_len(&mut rest).map_err(|_| wrong("has no bytes as data"))?;
                let bytes = take(&mut rest, size).ok_or_else(|| wrong("ends early"))?;
                data = Some(body.slice_ref(bytes));
            }
            other => {
                let other = String::from_utf8_lossy(other).into_owned();
                return Err(wrong(&format!("has the key {other:?}, not shape or data")));
            }
        }
    }
    shape
        .zip(data)
        .ok_or_else(|| wrong("has no shape or no data"))
}

fn take<'a>(rest: &mut &'a [u8], size: u32) -> Option<&'a [u8]> {
    rest.split_off(..usize::try_from(size).ok()?)
}

impl MsgpackLane {
    async fn infer(&mut self) -> Result<(Vec<i64>, Bytes), CallError> {
        let answer = self.connection.post(&self.path, &self.parts, None).await?;
        parse(&answer.body)
    }
}

impl Lane for MsgpackLane {
    fn write(&mut self, contents: &[Vec<u8>]) -> Result<(), Failure> {
        if let Some(content) = contents.first() {
            rewrite(&mut self.parts[1], content);
        }
        Ok(())
    }

    async fn call(&mut self, _: Option<u64>) -> Result<(), CallError> {
        self.infer().await.map(drop)
    }

    async fn ask(&mut self) -> Result<Vec<Answer>, CallError> {
        let (shape, data) = self.infer().await?;
        let tensor = Tensor {
            name: String::new(),
            data_type: self.data_type.clone(),
            shape,
            byte_size: Some(data.len() as u64),
        };
        Ok(vec![Answer {
            tensor,
            bytes: data.to_vec(),
        }])
    }

    fn reconnects(&self) -> u64 {
        self.connection.reconnects()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(shape: &[i64], byte_size: u64) -> Tensor {
        Tensor {
            name: "x".into(),
            data_type: "FP32".into(),
            shape: shape.to_vec(),
            byte_size: Some(byte_size),
        }
    }

    #[test]
    fn bodies_read_as_they_are_written() {
        for (shape, byte_size) in [(&[2, 3][..], 24), (&[1, 150_528], 602_112), (&[0], 0)] {
            let (before, after) = around(&input(shape, byte_size), false).unwrap();
            assert!(after.is_empty());
            let data = vec![7; usize::try_from(byte_size).unwrap()];
            let body = Bytes::from([&before[..], &data].concat());
            let (read_shape, read_data) = parse(&body).unwrap();
            assert_eq!((read_shape.as_slice(), &read_data[..]), (shape, &data[..]));
        }
    }

    #[test]
    fn a_form_is_put_around_the_body() {
        let (before, after) = around(&input(&[1], 4), true).unwrap();
        let text = String::from_utf8_lossy(&before).into_owned();
        assert!(text.starts_with("--adjoin-loadgen-boundary\r\n"));
        assert!(text.contains("name=\"data\"; filename=\"x\"") && text.contains("\r\n\r\n"));
        assert_eq!(&after[..], b"\r\n--adjoin-loadgen-boundary--\r\n");
    }

    #[test]
    fn other_bodies_are_refused() {
        let mut cut = b"\x82\xa5shape\x91\x01\xa4data\xc4\x04abc".to_vec();
        let error = |body: &[u8]| {
            let parsed = parse(&Bytes::copy_from_slice(body));
            parsed.unwrap_err().to_string()
        };
        assert!(error(&cut).contains("ends early"));
        cut.push(b'd');
        assert!(parse(&cut.into()).is_ok());
        assert!(error(b"not found").contains("no map"));
        assert!(error(b"\x80").contains("no shape"));
        assert!(error(b"\x81\xa1x\x01").contains("\"x\""));
        assert!(error(b"\x81\xa5shape\xa1x").contains("list"));
    }
}
