//! The kernels of adjoin, as Rust functions over the device's memory, and modules that have them.
//!
//! `server/cuda/kernels/adjoin.cu` is what runs on a device. A kernel is known here by its name and by the types of its
//! arguments, which are read when it is launched, as a driver does.

use std::ffi::c_void;

use half::{bf16, f16};

use super::host_memory::{Kind, read_host, write_host};
use super::state::Driver;
use super::status::{ILLEGAL_ADDRESS, INVALID_IMAGE, INVALID_VALUE, NOT_FOUND, Status};
use super::work::Way;

/// Kernels that are played here.
const NAMES: [&str; 4] = [
    "adjoin_copy_rows",
    "adjoin_normalize_f32",
    "adjoin_normalize_f16",
    "adjoin_normalize_bf16",
];

/// A loaded module: the kernels that its PTX has.
#[derive(Debug)]
pub(crate) struct Module {
    entries: Vec<&'static str>,
}

impl Module {
    /// Reads PTX. What is none is refused, as is what has no kernel that is known.
    pub(crate) fn load(ptx: &str) -> Result<Self, Status> {
        if !ptx.contains(".version") || !ptx.contains(".target") {
            return Err(INVALID_IMAGE);
        }
        let has = |name: &&&'static str| ptx.contains(&format!(".entry {name}("));
        let entries: Vec<&'static str> = NAMES.iter().filter(has).copied().collect();
        if entries.is_empty() {
            return Err(INVALID_IMAGE);
        }
        Ok(Self { entries })
    }

    pub(crate) fn function(&self, name: &str) -> Result<&'static str, Status> {
        let found = self.entries.iter().find(|entry| **entry == name);
        found.copied().ok_or(NOT_FOUND)
    }
}

/// A launch with its arguments.
#[derive(Clone, Debug)]
pub(crate) enum Launch {
    CopyRows {
        table: u64,
        count: u32,
    },
    Normalize {
        source: u64,
        destination: u64,
        images: u32,
        pixels: u32,
        channels: u32,
        numbers: Numbers,
        to: Element,
    },
}

/// What a normalisation computes with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    scale: f32,
    /// By channel.
    mean: [f32; 4],
    /// By channel.
    deviation: [f32; 4],
}

/// What it makes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Element {
    Bf16,
    F16,
    F32,
}

/// Addresses of a launch's arguments.
struct Arguments<'a>(&'a [*mut c_void]);

impl Arguments<'_> {
    /// Argument `index`, of a type that the kernel with this name has there.
    fn get<T: Copy>(&self, index: usize) -> Result<T, Status> {
        let address = self.0.get(index).copied().ok_or(INVALID_VALUE)?;
        if address.is_null() {
            return Err(INVALID_VALUE);
        }
        // SAFETY: whoever launches a kernel gives the address of a value of the type that the kernel takes.
        Ok(unsafe { address.cast::<T>().read_unaligned() })
    }
}

impl Launch {
    /// How many arguments a kernel has.
    pub(crate) fn argument_count(name: &str) -> usize {
        if name == "adjoin_copy_rows" { 2 } else { 14 }
    }

    pub(crate) fn new(name: &str, arguments: &[*mut c_void]) -> Result<Self, Status> {
        let arguments = Arguments(arguments);
        if name == "adjoin_copy_rows" {
            return Ok(Self::CopyRows {
                table: arguments.get(0)?,
                count: arguments.get(1)?,
            });
        }
        let floats = |first: usize| -> Result<[f32; 4], Status> {
            let mut floats = [0.0; 4];
            for (index, float) in floats.iter_mut().enumerate() {
                *float = arguments.get(first + index)?;
            }
            Ok(floats)
        };
        Ok(Self::Normalize {
            source: arguments.get(0)?,
            destination: arguments.get(1)?,
            images: arguments.get(2)?,
            pixels: arguments.get(3)?,
            channels: arguments.get(4)?,
            numbers: Numbers {
                scale: arguments.get(5)?,
                mean: floats(6)?,
                deviation: floats(10)?,
            },
            to: match name {
                "adjoin_normalize_bf16" => Element::Bf16,
                "adjoin_normalize_f16" => Element::F16,
                _ => Element::F32,
            },
        })
    }

    pub(super) fn run(&self, driver: &Driver) -> Result<(), Status> {
        driver.report.lock().kernels += 1;
        match *self {
            Self::CopyRows { table, count } => copy_rows(driver, table, count),
            Self::Normalize {
                source,
                destination,
                images,
                pixels,
                channels,
                numbers,
                to,
            } => {
                let elements = images as usize * pixels as usize * channels as usize;
                let (bytes, _) = load(driver, source, elements)?;
                let planes = normalize(&bytes, pixels as usize, channels as usize, numbers);
                store(driver, destination, &to.bytes_of(&planes)).map(|_| ())
            }
        }
    }
}

impl Element {
    fn bytes_of(self, planes: &[f32]) -> Vec<u8> {
        let values = planes.iter().copied();
        match self {
            Self::Bf16 => values
                .flat_map(|value| bf16::from_f32(value).to_ne_bytes())
                .collect(),
            Self::F16 => values
                .flat_map(|value| f16::from_f32(value).to_ne_bytes())
                .collect(),
            Self::F32 => values.flat_map(f32::to_ne_bytes).collect(),
        }
    }
}

fn normalize(bytes: &[u8], pixels: usize, channels: usize, numbers: Numbers) -> Vec<f32> {
    let Numbers {
        scale,
        mean,
        deviation,
    } = numbers;
    let mut planes = vec![0.0; bytes.len()];
    let images = bytes.chunks_exact(pixels * channels);
    for (image, plane) in images.zip(planes.chunks_exact_mut(pixels * channels)) {
        for (index, &byte) in image.iter().enumerate() {
            let (pixel, channel) = (index / channels, index % channels);
            plane[channel * pixels + pixel] =
                (f32::from(byte) * scale - mean[channel]) / deviation[channel];
        }
    }
    planes
}

/// Bytes of an entry of the copy kernel's table.
const ROW_BYTES: usize = 24;

fn copy_rows(driver: &Driver, table: u64, count: u32) -> Result<(), Status> {
    let (table, _) = load(driver, table, count as usize * ROW_BYTES)?;
    for row in table.chunks_exact(ROW_BYTES) {
        let word = |at: usize| {
            let bytes: [u8; 8] = row[at..at + 8].try_into().expect("a row has three words");
            u64::from_ne_bytes(bytes)
        };
        let (source, destination) = (word(0), word(8));
        let byte_size = usize::try_from(word(16)).map_err(|_| ILLEGAL_ADDRESS)?;
        if byte_size == 0 {
            continue;
        }
        let (bytes, from) = load(driver, source, byte_size)?;
        let to = store(driver, destination, &bytes)?;
        match (from, to) {
            (Some(kind), None) => driver.count(Way::ToDevice, Some(kind), byte_size),
            (None, Some(kind)) => driver.count(Way::ToHost, Some(kind), byte_size),
            _ => driver.report.lock().on_device += byte_size as u64,
        }
    }
    Ok(())
}

/// Where an address of the device's view leads.
enum Reached {
    Device(super::device_memory::DeviceRange),
    Host(usize, Kind),
}

fn reach(
    driver: &Driver,
    address: u64,
    byte_size: usize,
    is_written: bool,
) -> Result<Reached, Status> {
    let device = usize::try_from(address).ok();
    let range = device.and_then(|address| driver.memory.lock().range(address, byte_size));
    if let Some(range) = range {
        return Ok(Reached::Device(range));
    }
    let mapped = driver.host.lock().by_device_address(address, byte_size);
    let Some((pinned, host)) = mapped else {
        driver.violation(format!(
            "a kernel reaches {byte_size} bytes at {address:#x}, which are neither in an allocation nor in \
             mapped memory of the host"
        ));
        return Err(ILLEGAL_ADDRESS);
    };
    driver.check_pinned(&pinned, is_written)?;
    Ok(Reached::Host(host, pinned.kind))
}

fn load(
    driver: &Driver,
    address: u64,
    byte_size: usize,
) -> Result<(Vec<u8>, Option<Kind>), Status> {
    let mut bytes = vec![0_u8; byte_size];
    match reach(driver, address, byte_size, false)? {
        Reached::Device(range) => {
            // SAFETY: both have that many bytes; the device's threads alone reach the range.
            unsafe { std::ptr::copy_nonoverlapping(range.start(), bytes.as_mut_ptr(), byte_size) };
            Ok((bytes, None))
        }
        Reached::Host(host, kind) => {
            if !read_host(host, bytes.as_mut_ptr(), byte_size) {
                return Err(driver.unmapped(host, byte_size));
            }
            Ok((bytes, Some(kind)))
        }
    }
}

fn store(driver: &Driver, address: u64, bytes: &[u8]) -> Result<Option<Kind>, Status> {
    match reach(driver, address, bytes.len(), true)? {
        Reached::Device(range) => {
            // SAFETY: as in `load`.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), range.start(), bytes.len()) };
            Ok(None)
        }
        Reached::Host(host, kind) => {
            if !write_host(host, bytes.as_ptr().cast_mut(), bytes.len()) {
                return Err(driver.unmapped(host, bytes.len()));
            }
            Ok(Some(kind))
        }
    }
}
