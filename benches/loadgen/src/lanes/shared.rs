//! Registering segments over gRPC: two calls of Triton's extension, which the protocol itself does not have.

use adjoin_cli_kit::Failure;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::segment::Segment;

const REGISTER: &str = "/inference.GRPCInferenceService/SystemSharedMemoryRegister";
const UNREGISTER: &str = "/inference.GRPCInferenceService/SystemSharedMemoryUnregister";

#[derive(Clone, PartialEq, prost::Message)]
struct RegisterRequest {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(uint64, tag = "3")]
    offset: u64,
    #[prost(uint64, tag = "4")]
    byte_size: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UnregisterRequest {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

/// Has the server open a segment, whose name is not needed any more then.
pub(super) async fn register(channel: &Channel, segment: &mut Segment) -> Result<(), Failure> {
    let request = RegisterRequest {
        name: segment.name().into(),
        key: segment.key(),
        offset: 0,
        byte_size: segment.byte_size(),
    };
    let registered = call(channel, REGISTER, request).await;
    segment.unlink();
    registered
}

/// Has the server forget a segment.
pub(super) async fn unregister(channel: &Channel, segment: &Segment) -> Result<(), Failure> {
    let name = segment.name().into();
    call(channel, UNREGISTER, UnregisterRequest { name }).await
}

async fn call<M: prost::Message + 'static>(
    channel: &Channel,
    path: &'static str,
    message: M,
) -> Result<(), Failure> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let codec = ProstCodec::<M, Empty>::default();
    let answer = grpc
        .unary(
            Request::new(message),
            PathAndQuery::from_static(path),
            codec,
        )
        .await;
    match answer {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::Unimplemented => {
            Err("the server has no system shared memory".into())
        }
        Err(status) => Err(status.message().into()),
    }
}
