//! Runs a model once on zeros and prints what came: `cargo run --example infer -- /run/adjoin digits`.
#![allow(clippy::print_stdout, reason = "an example prints")]

use adjoin_client::Client;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let socket_dir = arguments.next().unwrap_or_else(|| "/run/adjoin".into());
    let name = arguments.next().unwrap_or_else(|| "digits".into());

    let client = Client::connect(&socket_dir)?;
    let model = client.model(&name)?;
    let mut request = model.request_batch(1)?.build()?;
    for index in 0..request.input_count() {
        request.input_bytes_mut_at(index)?.fill(0);
    }
    let outputs = request.infer()?;
    for output in outputs.iter() {
        let bytes = outputs.bytes(output.name)?;
        println!(
            "{}: {} {:?}, {} bytes, first {:?}",
            output.name,
            output.dtype,
            output.shape,
            output.byte_size,
            &bytes[..bytes.len().min(16)]
        );
    }
    println!("{:?}", outputs.stats());
    Ok(())
}
