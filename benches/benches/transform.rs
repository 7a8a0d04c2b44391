//! Pixels to a model's float input, beside a copy of as many bytes as are written: how near the transform is to the memory.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use adjoin_input_transform::InputTransform;
use adjoin_schema::DataType;
use adjoin_shm::{AlignedBuffer, Payload};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// An image of 224 x 224 pixels, as bytes.
const IMAGE_BYTES: usize = 224 * 224 * 3;

fn transform(c: &mut Criterion) {
    let transform: InputTransform = "mean=0.485,0.456,0.406 std=0.229,0.224,0.225"
        .parse()
        .expect("a transform");
    for images in [1, 32] {
        let pixels: Vec<u8> = (0..=u8::MAX).cycle().take(images * IMAGE_BYTES).collect();
        let mut group = c.benchmark_group(format!("transform/{images}_images"));
        for (dtype, element_bytes) in [(DataType::Fp32, 4), (DataType::Fp16, 2)] {
            let byte_size = pixels.len() * element_bytes;
            group.throughput(Throughput::Bytes(byte_size as u64));
            let mut normaliser = transform.normaliser(3, dtype).expect("a float type");
            let mut buffer = AlignedBuffer::new(byte_size).expect("memory for a batch");
            group.bench_function(format!("{dtype}"), |b| {
                b.iter(|| normaliser.run([Payload::from_slice(&pixels)], IMAGE_BYTES, &mut buffer));
            });
            let from = AlignedBuffer::new(byte_size).expect("memory for a batch");
            group.bench_function(format!("{dtype}_copy"), |b| {
                b.iter(|| {
                    from.payload(byte_size)
                        .copy_to(&mut buffer.payload_mut(byte_size))
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, transform);
criterion_main!(benches);
