//! Memory of the device that a session shares, and which tensors of a request lie there.
//!
//! A request keeps the regions that it names, so one that is detached stays mapped until the last request that was
//! taken before is over. What is in such a region is only ever copied by the device: no processor looks at it.

use std::ops::Range;
use std::sync::Arc;

use adjoin_schema::descriptor::{OutputRoom, Regions, Rejection, RequestDescriptor};
use adjoin_schema::status::Status;
use adjoin_shm::{Payload, PayloadMut};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Session;
use crate::devices::DeviceRegion;
use crate::model::{ModelVersion, Resolved};

/// The regions of a session by number.
#[derive(Debug, Default)]
pub(super) struct SharedRegions {
    last: u32,
    regions: FxHashMap<u32, Arc<DeviceRegion>>,
}

impl SharedRegions {
    /// Adds a region; its number, which was never another's in this session.
    pub(super) fn add(&mut self, region: DeviceRegion) -> Option<u32> {
        self.last = self.last.checked_add(1)?;
        self.regions.insert(self.last, Arc::new(region));
        Some(self.last)
    }

    pub(super) fn get(&self, number: u32) -> Option<&Arc<DeviceRegion>> {
        self.regions.get(&number)
    }

    /// Takes a region out; what drops it is the last request that names it.
    pub(super) fn remove(&mut self, number: u32) -> Option<Arc<DeviceRegion>> {
        self.regions.remove(&number)
    }

    /// Whether all regions that a request names are still attached.
    pub(super) fn has_all(&self, tensors: &DeviceTensors) -> bool {
        tensors
            .places()
            .all(|place| self.regions.contains_key(&place.number))
    }
}

/// Where a tensor lies on the device.
#[derive(Clone, Debug)]
struct DevicePlace {
    region: Arc<DeviceRegion>,
    number: u32,
    offset: u64,
    /// Bytes of the tensor.
    byte_size: u64,
}

/// The tensors of a request that lie on the device. Both lists are in the model's order.
#[derive(Clone, Debug, Default)]
pub struct DeviceTensors {
    inputs: SmallVec<[Option<DevicePlace>; 4]>,
    outputs: SmallVec<[Option<DevicePlace>; 4]>,
}

impl DevicePlace {
    /// A place in a region of the session, for a tensor that counts as `index` in the request.
    fn new(
        session: &Session,
        index: usize,
        number: u32,
        (offset, byte_size): (u64, u64),
    ) -> Result<Self, Rejection> {
        let reject = |status| Rejection::new(status, [index as u64, u64::from(number)]);
        let region = session.device_region(number);
        let region = region.ok_or_else(|| reject(Status::DeviceRegionUnknown))?;
        if region.is_lost() {
            return Err(reject(Status::DeviceRegionLost));
        }
        Ok(Self {
            region,
            number,
            offset,
            byte_size,
        })
    }
}

impl DeviceTensors {
    /// The tensors of a request that lie on the device, if any do. Extents were checked when the descriptor was read.
    ///
    /// # Errors
    /// If the model does not take or give one of them there, or a region is not there any more.
    pub fn of_request(
        session: &Session,
        version: &ModelVersion,
        descriptor: &RequestDescriptor<'_>,
        resolved: &Resolved,
    ) -> Result<Option<Box<Self>>, Rejection> {
        let is_on_device = |&index: &usize| descriptor.inputs[index].region != 0;
        if descriptor.rooms.is_empty() && !resolved.inputs.iter().any(is_on_device) {
            return Ok(None);
        }
        let mut tensors = Self::default();
        for (model_index, &index) in resolved.inputs.iter().enumerate() {
            let input = &descriptor.inputs[index];
            if input.region == 0 {
                tensors.inputs.push(None);
                continue;
            }
            if !version.takes_on_device(model_index) {
                return not_taken(index, input.region);
            }
            let extent = (input.offset, input.byte_size);
            let place = DevicePlace::new(session, index, input.region, extent)?;
            tensors.inputs.push(Some(place));
        }
        tensors.outputs.resize_with(resolved.outputs.len(), || None);
        for (at, room) in descriptor.rooms.iter().enumerate() {
            tensors.add_room(session, version, descriptor, resolved, (at, room))?;
        }
        Ok(Some(Box::new(tensors)))
    }

    fn add_room(
        &mut self,
        session: &Session,
        version: &ModelVersion,
        descriptor: &RequestDescriptor<'_>,
        resolved: &Resolved,
        (at, room): (usize, &OutputRoom<'_>),
    ) -> Result<(), Rejection> {
        // Rooms count behind the inputs where tensors are counted, and behind the wanted outputs where names are.
        let index = descriptor.inputs.len() + at;
        let outputs = &version.signature().metadata().outputs;
        let output = outputs.iter().position(|output| output.name == room.name);
        let Some(output) = output.filter(|&output| resolved.outputs[output].wanted) else {
            let name = descriptor.outputs.len() + at;
            return Err(Rejection::new(Status::OutputUnknown, [name as u64, 0]));
        };
        if self.outputs[output].is_some() {
            return Err(Status::DescriptorInvalid.into());
        }
        if !version.gives_on_device(output) {
            return not_taken(index, room.region);
        }
        let Some((_, byte_size)) = &resolved.outputs[output].known else {
            return Err(Rejection::new(Status::OutputSizeUnknown, [index as u64, 0]));
        };
        if *byte_size > room.byte_size {
            return Err(Rejection::new(
                Status::OutputRoomTooSmall,
                [index as u64, *byte_size],
            ));
        }
        let extent = (room.offset, *byte_size);
        let place = DevicePlace::new(session, index, room.region, extent)?;
        self.outputs[output] = Some(place);
        Ok(())
    }

    /// What stands for an input on the device; `None` if it lies elsewhere.
    ///
    /// # Panics
    /// Never: its extent was compared with the region.
    #[must_use]
    pub fn input(&self, index: usize) -> Option<Payload<'_>> {
        let place = self.inputs.get(index)?.as_ref()?;
        let payload = place.region.payload(place.offset, place.byte_size);
        Some(payload.expect("extents were checked against the region"))
    }

    /// Room for an output on the device; `None` if it goes elsewhere.
    ///
    /// # Panics
    /// As [`DeviceTensors::input`].
    #[must_use]
    pub fn output(&self, index: usize) -> Option<PayloadMut<'_>> {
        let place = self.outputs.get(index)?.as_ref()?;
        let payload = place.region.payload_mut(place.offset, place.byte_size);
        Some(payload.expect("extents were checked against the region"))
    }

    /// Number, offset and bytes of an output on the device.
    #[must_use]
    pub fn output_extent(&self, index: usize) -> Option<(u32, u64, u64)> {
        let place = self.outputs.get(index)?.as_ref()?;
        Some((place.number, place.offset, place.byte_size))
    }

    /// Whether any tensor lies in that region.
    #[must_use]
    pub fn names(&self, number: u32) -> bool {
        self.places().any(|place| place.number == number)
    }

    fn places(&self) -> impl Iterator<Item = &DevicePlace> {
        self.inputs.iter().chain(&self.outputs).flatten()
    }
}

fn not_taken<T>(index: usize, number: u32) -> Result<T, Rejection> {
    Err(Rejection::new(
        Status::DeviceRegionNotTaken,
        [index as u64, u64::from(number)],
    ))
}

/// Where tensors of a request of this session may lie.
#[derive(Debug)]
pub struct SessionRegions<'s> {
    /// The session.
    pub session: &'s Session,
    /// Payload of its request region.
    pub own: Range<u64>,
}

impl Regions for SessionRegions<'_> {
    fn payload(&self, region: u32) -> Option<Range<u64>> {
        match region {
            0 => Some(self.own.clone()),
            number => Some(0..self.session.device_region(number)?.byte_size()),
        }
    }
}
