//! A target: a protocol and where its server is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is driven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Target {
    /// adjoin's client library.
    Adjoin { socket_dir: PathBuf },
    /// Open Inference Protocol over gRPC.
    Grpc { address: String, is_shared: bool },
    /// msgpack bodies over HTTP.
    HttpMsgpack { url: HttpUrl, is_form: bool },
    /// Open Inference Protocol over HTTP, with binary tensors.
    HttpV2 { url: HttpUrl, is_shared: bool },
    /// ONNX Runtime in the client.
    InProcess { model: PathBuf },
    /// iceoryx2 request-response.
    Iceoryx2 { service: String },
}

const KINDS: &str = "adjoin:SOCKET_DIR, grpc:HOST:PORT, grpc-shm:HOST:PORT, http-msgpack:URL, http-multipart:URL, \
     http-v2:HOST:PORT, http-v2-shm:HOST:PORT, in-process:MODEL_FILE or iceoryx2:SERVICE";

/// An address of HTTP without encryption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HttpUrl {
    /// Host and port.
    pub(crate) authority: String,
    /// With its slash.
    pub(crate) path: String,
}

impl Target {
    /// Whether requests name a model.
    pub(crate) fn names_model(&self) -> bool {
        match self {
            Self::Adjoin { .. } | Self::Grpc { .. } | Self::HttpV2 { .. } => true,
            Self::HttpMsgpack { .. } | Self::InProcess { .. } | Self::Iceoryx2 { .. } => false,
        }
    }

    /// Whether a client can have one request under way only.
    pub(crate) fn is_one_by_one(&self) -> bool {
        matches!(self, Self::InProcess { .. } | Self::Iceoryx2 { .. })
    }

    /// Whether requests have one tensor without a name.
    pub(crate) fn is_one_tensor(&self) -> bool {
        matches!(self, Self::HttpMsgpack { .. })
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("it is {KINDS}");
        let (kind, place) = text.split_once(':').ok_or_else(wrong)?;
        if place.is_empty() {
            return Err(wrong());
        }
        Ok(match kind {
            "adjoin" => Self::Adjoin {
                socket_dir: place.into(),
            },
            "grpc" | "grpc-shm" => Self::Grpc {
                address: address(place)?,
                is_shared: kind == "grpc-shm",
            },
            "http-msgpack" | "http-multipart" => Self::HttpMsgpack {
                url: place.parse()?,
                is_form: kind == "http-multipart",
            },
            "http-v2" | "http-v2-shm" => Self::HttpV2 {
                url: HttpUrl {
                    authority: address(place)?,
                    path: String::new(),
                },
                is_shared: kind == "http-v2-shm",
            },
            "in-process" => Self::InProcess {
                model: place.into(),
            },
            "iceoryx2" => Self::Iceoryx2 {
                service: place.into(),
            },
            _ => return Err(wrong()),
        })
    }
}

/// A host and a port.
fn address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(text.into()),
        _ => Err(format!("{text:?} is not HOST:PORT")),
    }
}

impl FromStr for HttpUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(format!("{text:?} is not http://HOST:PORT/PATH"));
        };
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let authority = if place.contains(':') {
            address(place)?
        } else {
            address(&format!("{place}:80"))?
        };
        Ok(Self {
            authority,
            path: format!("/{path}"),
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shm = |is_shared: &bool| if *is_shared { "-shm" } else { "" };
        match self {
            Self::Adjoin { socket_dir } => write!(f, "adjoin:{}", socket_dir.display()),
            Self::Grpc { address, is_shared } => write!(f, "grpc{}:{address}", shm(is_shared)),
            Self::HttpMsgpack { url, is_form } => {
                let kind = if *is_form { "multipart" } else { "msgpack" };
                write!(f, "http-{kind}:http://{}{}", url.authority, url.path)
            }
            Self::HttpV2 { url, is_shared } => {
                write!(f, "http-v2{}:{}", shm(is_shared), url.authority)
            }
            Self::InProcess { model } => write!(f, "in-process:{}", model.display()),
            Self::Iceoryx2 { service } => write!(f, "iceoryx2:{service}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_as_they_are_written() {
        for text in [
            "adjoin:/run/adjoin",
            "grpc:127.0.0.1:8001",
            "grpc-shm:localhost:8001",
            "http-msgpack:http://127.0.0.1:8000/predict/mlp",
            "http-multipart:http://127.0.0.1:8000/predict",
            "http-v2:127.0.0.1:8000",
            "http-v2-shm:127.0.0.1:8000",
            "in-process:models/mlp/1/model.onnx",
            "iceoryx2:mlp",
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        let url: HttpUrl = "http://example.org".parse().unwrap();
        assert_eq!(
            (url.authority.as_str(), url.path.as_str()),
            ("example.org:80", "/")
        );
    }

    #[test]
    fn what_is_no_target_is_told_what_is() {
        for (text, reason) in [
            ("", "adjoin:SOCKET_DIR"),
            ("adjoin", "adjoin:SOCKET_DIR"),
            ("adjoin:", "adjoin:SOCKET_DIR"),
            ("tcp:127.0.0.1:1", "grpc:HOST:PORT"),
            ("grpc:127.0.0.1", "HOST:PORT"),
            ("grpc:127.0.0.1:99999", "HOST:PORT"),
            ("http-msgpack:https://x:1/", "http://"),
            ("http-msgpack:127.0.0.1:1", "http://"),
            ("http-v2:http://127.0.0.1", "HOST:PORT"),
        ] {
            let error = text.parse::<Target>().unwrap_err();
            assert!(error.contains(reason), "{text:?}: {error}");
        }
    }
}
