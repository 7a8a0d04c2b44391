//! Building and reading the descriptor of a request that is not prepared.

#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::hint::black_box;

use adjoin_schema::descriptor::{
    DescriptorWriter, RequestDescriptor, TensorDescriptor, parse_request,
};
use adjoin_schema::{DataType, Shape};
use criterion::{Criterion, criterion_group, criterion_main};

fn request(count: u64) -> RequestDescriptor<'static> {
    let input = |index| TensorDescriptor {
        name: "input",
        dtype: DataType::Fp32,
        shape: Shape::from_slice(&[1, 128]),
        region: 0,
        offset: 65_536 + 512 * index,
        byte_size: 512,
    };
    RequestDescriptor {
        model: "mlp",
        version: 0,
        label: "",
        inputs: (0..count).map(input).collect(),
        outputs: Default::default(),
        rooms: Default::default(),
    }
}

fn descriptor(c: &mut Criterion) {
    for count in [1, 4, 16] {
        let (mut writer, mut reader) = (DescriptorWriter::new(), DescriptorWriter::new());
        let request = request(count);
        c.bench_function(&format!("descriptor/write/{count}"), |b| {
            b.iter(|| black_box(writer.request(black_box(&request)).expect("it fits").len()));
        });
        let bytes = reader.request(&request).expect("it fits").to_vec();
        c.bench_function(&format!("descriptor/parse/{count}"), |b| {
            b.iter(|| {
                black_box(parse_request(black_box(&bytes), &(0..1 << 20)).map(|r| r.inputs.len()))
            });
        });
    }
}

criterion_group!(benches, descriptor);
criterion_main!(benches);
