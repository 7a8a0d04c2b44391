//! Messages of the protocol as JSON, in the form that its HTTP clients know: names as in the protocol files, 64-bit
//! integers as numbers, fields at their defaults not left out.

use std::sync::LazyLock;

use adjoin_control_api::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use crate::{Fault, Kind};

static POOL: LazyLock<Result<DescriptorPool, String>> = LazyLock::new(|| {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).map_err(|error| error.to_string())
});

/// A message of package `inference` as JSON; `name` is that of its type.
///
/// # Errors
/// If there is no such type, which is a fault of the server.
pub fn to_value(name: &str, message: &impl Message) -> Result<serde_json::Value, Fault> {
    let internal = |reason: String| Fault::new(Kind::Internal, reason);
    let pool = POOL.as_ref().map_err(|reason| internal(reason.clone()))?;
    let descriptor = pool
        .get_message_by_name(&format!("inference.{name}"))
        .ok_or_else(|| internal(format!("no message {name}")))?;
    let mut dynamic = DynamicMessage::new(descriptor);
    dynamic
        .transcode_from(message)
        .map_err(|error| internal(error.to_string()))?;
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .map_err(|error| internal(error.to_string()))
}
