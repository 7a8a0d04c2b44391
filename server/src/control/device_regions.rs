//! Memory of the device that clients attach to their sessions, and take back.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use adjoin_schema::attach::{
    AttachMessage, DeviceAttach, DeviceAttached, DeviceDetach, DeviceDetached, Refusal,
};
use adjoin_schema::descriptor::Rejection;
use adjoin_schema::status::Status;

use super::Shared;
use crate::devices::{DeviceError, Sharer};
use crate::session::Session;

/// Maps what came with the message, on a thread that may wait for the driver; the answer to the client.
pub(super) async fn attach(
    shared: &Shared,
    session: &Arc<Session>,
    attach: DeviceAttach,
    descriptors: Vec<OwnedFd>,
) -> AttachMessage {
    let query_id = attach.query_id;
    let attached = match <[OwnedFd; 1]>::try_from(descriptors) {
        Ok([descriptor]) => map(shared, session, attach, descriptor).await,
        Err(_) => Err(invalid(attach.byte_size)),
    };
    match attached {
        Ok(region) => AttachMessage::DeviceAttached(DeviceAttached { query_id, region }),
        Err(rejection) => refusal(query_id, rejection),
    }
}

async fn map(
    shared: &Shared,
    session: &Arc<Session>,
    attach: DeviceAttach,
    descriptor: OwnedFd,
) -> Result<u32, Rejection> {
    let unavailable = || Rejection::from(Status::DeviceUnavailable);
    let devices = shared.engine.devices().ok_or_else(unavailable)?.clone();
    let sharer = Sharer {
        uid: session.peer().uid,
        session: session.id(),
    };
    let byte_size = attach.byte_size;
    let import = move || {
        let region = devices.import(sharer, &attach.device_uuid, &descriptor, byte_size);
        let is_lost = devices.is_lost();
        region.map_err(|error| (error, is_lost))
    };
    let imported = tokio::task::spawn_blocking(import).await;
    let region = imported
        .map_err(|_| unavailable())?
        .map_err(|(error, is_lost)| {
            tracing::debug!(session = session.id(), %error, "refused a region on the device");
            rejection(&error, byte_size, is_lost)
        })?;
    session.share(region).ok_or_else(unavailable)
}

/// What an error is to the client.
fn rejection(error: &DeviceError, byte_size: u64, is_lost: bool) -> Rejection {
    match *error {
        DeviceError::OtherUuid | DeviceError::Other { .. } => Status::DeviceMismatch.into(),
        DeviceError::TooManyRegions { limit } => {
            Rejection::new(Status::TooManyDeviceRegions, [u64::from(limit), 0])
        }
        DeviceError::Quota { wanted, left } => {
            Rejection::new(Status::DeviceQuotaExceeded, [wanted, left])
        }
        DeviceError::NotInUse | DeviceError::NotBuilt | DeviceError::Before(_) => {
            Status::DeviceUnavailable.into()
        }
        // In the driver's words, of which some are about a device that does not work.
        _ if is_lost => Status::DeviceUnavailable.into(),
        _ => invalid(byte_size),
    }
}

fn invalid(byte_size: u64) -> Rejection {
    Rejection::new(Status::DeviceMemoryInvalid, [byte_size, 0])
}

/// Takes a region out of a session; the answer to the client.
pub(super) fn detach(session: &Session, detach: DeviceDetach) -> AttachMessage {
    let DeviceDetach { query_id, region } = detach;
    if session.unshare(region) {
        return AttachMessage::DeviceDetached(DeviceDetached { query_id });
    }
    let detail = [0, u64::from(region)];
    refusal(
        query_id,
        Rejection::new(Status::DeviceRegionUnknown, detail),
    )
}

fn refusal(query_id: u64, rejection: Rejection) -> AttachMessage {
    AttachMessage::Refusal(Refusal {
        query_id,
        status: rejection.status as u16,
        detail: rejection.detail,
    })
}
