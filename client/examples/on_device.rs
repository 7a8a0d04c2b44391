//! Runs a model on inputs that lie on the GPU, with outputs that stay there:
//! `cargo run --features cuda --example on_device -- /run/adjoin MODEL [BYTES OF ALL OUTPUTS]`.
//!
//! The inputs are zeros that this program copies to the device, in the place of kernels that have something to say.
#![allow(clippy::print_stdout, reason = "an example prints")]

use adjoin_client::Client;
use adjoin_client::cuda::DeviceMemory;

/// Tensors begin at multiples of this.
const ALIGNMENT: u64 = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket_dir = arguments.next().unwrap_or_else(|| "/run/adjoin".into());
    let name = arguments.next().unwrap_or_else(|| "resnet50".into());
    let output_bytes: u64 = arguments
        .next()
        .map_or(Ok(1 << 20), |bytes| bytes.parse())?;

    let client = Client::connect(&socket_dir)?;
    let model = client.model(&name)?;
    let info = model.info();
    // One row of each input, one after the other, and then the same room for each output.
    let mut places = Vec::new();
    let mut end = 0;
    for input in &info.inputs {
        let shape: Vec<i64> = input.shape.iter().map(|&size| size.max(1)).collect();
        let byte_size = input.dtype.byte_size(&shape)?;
        places.push((&input.name, shape, end));
        end += byte_size.unwrap_or(0).next_multiple_of(ALIGNMENT);
    }
    let room = output_bytes.next_multiple_of(ALIGNMENT);
    let all = usize::try_from(end + room * info.outputs.len() as u64)?;
    let memory = DeviceMemory::allocate(0, all)?;
    memory.write(0, &vec![0; usize::try_from(end)?])?;
    let region = client.attach_device(memory.export()?)?;

    let mut request = model.request();
    for (name, shape, offset) in places {
        request = request.input_on_device(name, &shape, &region, offset)?;
    }
    for (index, output) in info.outputs.iter().enumerate() {
        let offset = end + room * index as u64;
        request = request.output_on_device(&output.name, &region, offset, room)?;
    }
    let mut request = request.build()?;
    let outputs = request.infer()?;
    for (index, output) in outputs.iter().enumerate() {
        let mut first = [0; 16];
        let at = usize::try_from(end + room * index as u64)?;
        let first = &mut first[..usize::try_from(output.byte_size.min(16))?];
        memory.read(at, first)?;
        println!(
            "{}: {} {:?}, {} bytes on the device, first {first:?}",
            output.name, output.dtype, output.shape, output.byte_size
        );
    }
    println!("{:?}", outputs.stats());
    Ok(())
}
