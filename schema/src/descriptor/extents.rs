//! Extents: where a tensor lies, checked against the regions that there are.

use std::ops::Range;

use smallvec::SmallVec;

use super::Rejection;
use crate::limits::ALIGNMENT;
use crate::status::Status;

/// The regions of a session, as whoever checks an extent knows them privately.
pub trait Regions {
    /// Where tensors may lie in a region; `None` if there is none of that number.
    fn payload(&self, region: u32) -> Option<Range<u64>>;
}

/// A session with no region but its own.
impl Regions for Range<u64> {
    fn payload(&self, region: u32) -> Option<Range<u64>> {
        (region == 0).then(|| self.clone())
    }
}

/// Bytes of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// 0: the session's own region. Otherwise the number of a device region.
    pub region: u32,
    /// Bytes from the start of the region.
    pub offset: u64,
    /// Bytes from there on.
    pub byte_size: u64,
}

impl Extent {
    /// Whether tensor `index` may lie there.
    pub(super) fn check(self, index: u64, regions: &impl Regions) -> Result<(), Rejection> {
        let reject = |status, second| Err(Rejection::new(status, [index, second]));
        let Some(payload) = regions.payload(self.region) else {
            return reject(Status::DeviceRegionUnknown, u64::from(self.region));
        };
        if !self.offset.is_multiple_of(ALIGNMENT) {
            return reject(Status::ExtentMisaligned, self.offset);
        }
        match self.offset.checked_add(self.byte_size) {
            Some(end) if self.offset >= payload.start && end <= payload.end => Ok(()),
            _ => reject(Status::ExtentOutOfRegion, payload.end),
        }
    }
}

/// Extents of one request must not share bytes: a client that wants the same data twice names two copies.
/// Ends cannot overflow: they were compared with the region's.
pub(super) fn check_overlap(extents: impl Iterator<Item = Extent>) -> Result<(), Rejection> {
    let mut by_offset: SmallVec<[(u32, u64, u64, u64); 8]> = extents
        .enumerate()
        .filter(|(_, extent)| extent.byte_size > 0)
        .map(|(index, extent)| {
            let end = extent.offset + extent.byte_size;
            (extent.region, extent.offset, end, index as u64)
        })
        .collect();
    by_offset.sort_unstable();
    let shares = |pair: &&[(u32, u64, u64, u64)]| pair[0].0 == pair[1].0 && pair[0].2 > pair[1].1;
    match by_offset.windows(2).find(shares) {
        Some(pair) => Err(Rejection::new(
            Status::ExtentsOverlap,
            [pair[0].3, pair[1].3],
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Range<u64> = 4096..8192;

    struct Two;

    impl Regions for Two {
        fn payload(&self, region: u32) -> Option<Range<u64>> {
            match region {
                0 => Some(OWN),
                7 => Some(0..1024),
                _ => None,
            }
        }
    }

    fn extent(region: u32, offset: u64, byte_size: u64) -> Extent {
        Extent {
            region,
            offset,
            byte_size,
        }
    }

    #[test]
    fn an_extent_is_checked_against_the_region_that_it_names() {
        let check = |region, offset, byte_size| extent(region, offset, byte_size).check(3, &Two);
        assert_eq!(check(7, 0, 1024), Ok(()));
        assert_eq!(check(7, 960, 64), Ok(()));
        let reject = |status, second| Err(Rejection::new(status, [3, second]));
        let outside = reject(Status::ExtentOutOfRegion, 1024);
        for (offset, byte_size) in [
            (0, 1025),
            (1024, 1),
            (4096, 64),
            (u64::MAX - 63, 64),
            (64, u64::MAX),
        ] {
            assert_eq!(check(7, offset, byte_size), outside, "{offset} {byte_size}");
        }
        assert_eq!(check(0, 0, 64), reject(Status::ExtentOutOfRegion, 8192));
        assert_eq!(check(7, 32, 64), reject(Status::ExtentMisaligned, 32));
        for region in [1, 8, u32::MAX] {
            let unknown = reject(Status::DeviceRegionUnknown, u64::from(region));
            assert_eq!(check(region, 0, 64), unknown);
        }
        let alone = extent(7, 4096, 64).check(0, &OWN).unwrap_err();
        assert_eq!(alone.status, Status::DeviceRegionUnknown);
    }

    #[test]
    fn bytes_are_shared_within_a_region_only() {
        let overlap = |extents: &[Extent]| check_overlap(extents.iter().copied());
        assert_eq!(overlap(&[extent(0, 64, 64), extent(7, 64, 64)]), Ok(()));
        assert_eq!(overlap(&[extent(7, 128, 64), extent(7, 64, 64)]), Ok(()));
        assert_eq!(
            overlap(&[extent(7, 64, 65), extent(0, 0, 9), extent(7, 128, 64)]),
            Err(Rejection::new(Status::ExtentsOverlap, [0, 2]))
        );
    }
}
