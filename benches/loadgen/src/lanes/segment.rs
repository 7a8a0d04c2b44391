//! Segments of system shared memory, as Triton's extension has them: found by name.
//!
//! A name outlives its maker, so it is taken away as soon as the server has opened it, and by the command
//! when its clients have ended, however they did.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use adjoin_cli_kit::Failure;
use adjoin_cli_kit::tensor::Tensor;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::process::{getpid, getppid};

/// Where the system keeps them.
const DIRECTORY: &str = "/dev/shm";
const PREFIX: &str = "adjoin-loadgen";

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A segment with places for the tensors of a request.
#[derive(Debug)]
pub(super) struct Segment {
    name: String,
    file: File,
    /// Until the name is taken away.
    path: Option<PathBuf>,
    pub(super) inputs: Vec<Place>,
    pub(super) outputs: Vec<Place>,
    byte_size: u64,
}

/// Where a tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) byte_size: u64,
}

impl Segment {
    /// A segment whose memory is there from the start.
    pub(super) fn new(inputs: &[Tensor], outputs: &[Tensor]) -> Result<Self, Failure> {
        let mut byte_size = 0;
        let mut places = |tensors: &[Tensor]| -> Vec<Place> {
            let place = |tensor: &Tensor| {
                let place = Place {
                    offset: byte_size,
                    byte_size: tensor.byte_size.unwrap_or(0),
                };
                byte_size += place.byte_size.next_multiple_of(64);
                place
            };
            tensors.iter().map(place).collect()
        };
        let (inputs, outputs) = (places(inputs), places(outputs));
        let byte_size = byte_size.max(64);
        let parent = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{parent}-{}-{number}", getpid().as_raw_nonzero());
        let path = Path::new(DIRECTORY).join(&name);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        let segment = Self {
            file: file.map_err(|error| format!("cannot make {}: {error}", path.display()))?,
            name,
            path: Some(path),
            inputs,
            outputs,
            byte_size,
        };
        let allocated = fallocate(&segment.file, FallocateFlags::empty(), 0, byte_size);
        allocated.map_err(|error| format!("{DIRECTORY} has no {byte_size} bytes: {error}"))?;
        Ok(segment)
    }

    /// What the region is called at the server.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the server opens.
    pub(super) fn key(&self) -> String {
        format!("/{}", self.name)
    }

    pub(super) fn byte_size(&self) -> u64 {
        self.byte_size
    }

    /// Takes the name away: who has opened the segment keeps it.
    pub(super) fn unlink(&mut self) {
        if let Some(path) = self.path.take() {
            // One that is gone already is as it should be.
            let _ = fs::remove_file(path);
        }
    }

    /// Writes the inputs.
    pub(super) fn write(&self, contents: &[Vec<u8>]) -> io::Result<()> {
        let mut pairs = self.inputs.iter().zip(contents);
        pairs.try_for_each(|(place, content)| self.file.write_all_at(content, place.offset))
    }

    /// Copies the outputs.
    pub(super) fn outputs(&self) -> io::Result<Vec<Vec<u8>>> {
        self.outputs.iter().map(|place| self.read(*place)).collect()
    }

    fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(place.byte_size).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, place.offset)?;
        Ok(bytes)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.unlink();
    }
}

/// Takes away what clients of this process left behind, for example because they were killed.
pub(crate) fn sweep() {
    let prefix = format!("{PREFIX}-{}-", getpid().as_raw_nonzero());
    for entry in fs::read_dir(DIRECTORY).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(byte_size: u64) -> Tensor {
        Tensor {
            name: "x".into(),
            data_type: "UINT8".into(),
            shape: Vec::new(),
            byte_size: Some(byte_size),
        }
    }

    #[test]
    fn places_do_not_overlap_and_hold_what_was_written() {
        let segment = Segment::new(&[tensor(100), tensor(4)], &[tensor(7)]).unwrap();
        let offsets: Vec<_> = segment.inputs.iter().chain(&segment.outputs).collect();
        assert_eq!(
            offsets.iter().map(|place| place.offset).collect::<Vec<_>>(),
            [0, 128, 192]
        );
        assert_eq!(segment.byte_size(), 256);
        segment.write(&[vec![1; 100], vec![2; 4]]).unwrap();
        assert_eq!(segment.read(segment.inputs[1]).unwrap(), [2; 4]);
        assert_eq!(segment.read(segment.outputs[0]).unwrap(), [0; 7]);
    }

    #[test]
    fn names_go_with_their_makers() {
        let mut segment = Segment::new(&[tensor(1)], &[]).unwrap();
        let path = segment.path.clone().unwrap();
        assert!(path.exists() && segment.key().ends_with(segment.name()));
        segment.unlink();
        assert!(!path.exists());
        // As a client of this process would have left it.
        let left = Path::new(DIRECTORY).join(format!("{PREFIX}-{}-1-0", std::process::id()));
        File::create(&left).unwrap();
        sweep();
        assert!(!left.exists());
        drop(segment);
    }
}
