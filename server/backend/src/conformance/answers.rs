//! Right answers.

use adjoin_schema::DataType;

use super::memory::{Placed, Tensor};
use super::suite::{Suite, add_case, expect, unbound};
use crate::{Dimension, ExecuteError};

pub(super) fn metadata(suite: &Suite<'_>) {
    let model = suite.model("add").unwrap();
    let metadata = model.metadata();
    let names: Vec<_> = metadata.inputs.iter().map(|t| t.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(metadata.outputs[0].name, "sum");
    assert_eq!(metadata.outputs[0].dtype, DataType::Fp32);
    assert_eq!(
        metadata.inputs[0].dimensions,
        [Dimension::Named("batch".into()), Dimension::Fixed(4)]
    );
    assert!(metadata.has_batch_dimension());
}

pub(super) fn add(suite: &Suite<'_>) {
    let mut instance = suite.add();
    for batch in (1..10).chain([64]) {
        let (inputs, sum) = add_case(batch, batch);
        expect(&mut *instance, &inputs, &sum);
    }
}

pub(super) fn scale(suite: &Suite<'_>) {
    let Some(mut instance) = suite.instance("scale_u8") else {
        return;
    };
    for batch in 1..5_i64 {
        let values: Vec<u8> = (0..16 * batch)
            .map(|n| (n * 37 % 256).try_into().unwrap())
            .collect();
        let halves: Vec<f32> = values.iter().map(|&value| f32::from(value) * 0.5).collect();
        let shape = [batch, 16];
        expect(
            &mut *instance,
            &[Tensor::new(&shape, &values)],
            &Tensor::new(&shape, &halves),
        );
    }
}

pub(super) fn fixed(suite: &Suite<'_>) {
    let mut instance = suite.instance("fixed").unwrap();
    let x = Tensor::new(&[2, 3], &[-1.0_f32, 0.0, 1.0, 2.5, -0.5, 7.0]);
    let y = Tensor::new(&[2, 3], &[0.0_f32, 0.0, 1.0, 2.5, 0.0, 7.0]);
    expect(&mut *instance, &[x], &y);
}

pub(super) fn gather(suite: &Suite<'_>) {
    let Some(mut instance) = suite.instance("gather") else {
        return;
    };
    let table: Vec<f32> = (0_u8..32).map(f32::from).collect();
    let table = Tensor::new(&[8, 4], &table);
    for index in [vec![7_i64], vec![0, 7, 3, 3, 1]] {
        let count = i64::try_from(index.len()).unwrap();
        let rows: Vec<f32> = index
            .iter()
            .flat_map(|&row| {
                let first = f32::from(u8::try_from(row * 4).unwrap());
                [first, first + 1.0, first + 2.0, first + 3.0]
            })
            .collect();
        expect(
            &mut *instance,
            &[table.clone(), Tensor::new(&[count], &index)],
            &Tensor::new(&[count, 4], &rows),
        );
    }
}

pub(super) fn ints(suite: &Suite<'_>) {
    let Some(mut instance) = suite.instance("ints") else {
        return;
    };
    let a = Tensor::new(&[1, 4], &[1_i32, -1, i32::MAX, i32::MIN]);
    let small = Tensor::new(&[1, 4], &[2_i64, -2, -3, 3]);
    let sum = Tensor::new(&[1, 4], &[3_i64, -3, 0x7fff_fffc, -0x7fff_fffd]);
    expect(&mut *instance, &[a.clone(), small], &sum);

    let large = Tensor::new(&[1, 4], &[1_i64 << 40, 0, 0, -(1_i64 << 40)]);
    if suite.options.has_narrow_int64 {
        let placed = [a, large].map(|tensor| Placed::new(&tensor));
        let inputs = placed.each_ref().map(Placed::input);
        let error = unbound(&mut *instance, &inputs, 1).unwrap_err();
        assert!(matches!(error, ExecuteError::Failed { .. }), "{error}");
    } else {
        let sum = [
            (1_i64 << 40) + 1,
            -1,
            i32::MAX.into(),
            i64::from(i32::MIN) - (1_i64 << 40),
        ];
        expect(&mut *instance, &[a, large], &Tensor::new(&[1, 4], &sum));
    }
}

pub(super) fn half(suite: &Suite<'_>) {
    let Some(mut instance) = suite.instance("half") else {
        return;
    };
    // 1, -1, 0.5, 2, 0, -0, the least subnormal, 32752; doubled, the last is 65504, the largest.
    let bits = [
        0x3c00_u16, 0xbc00, 0x3800, 0x4000, 0, 0x8000, 0x0001, 0x77ff,
    ];
    let doubled = [
        0x4000_u16, 0xc000, 0x3c00, 0x4400, 0, 0x8000, 0x0002, 0x7bff,
    ];
    let tensor = |bits: [u16; 8]| Tensor {
        dtype: DataType::Fp16,
        shape: vec![1, 8],
        bytes: bits.iter().flat_map(|bits| bits.to_le_bytes()).collect(),
    };
    expect(&mut *instance, &[tensor(bits)], &tensor(doubled));
}

pub(super) fn slow(suite: &Suite<'_>) {
    let Some(mut instance) = suite.instance("slow") else {
        return;
    };
    // The answer is x - 2 mean(x), exact for integers.
    let x: Vec<f32> = (0_u8..128).map(f32::from).collect();
    let y: Vec<f32> = x
        .chunks(64)
        .flat_map(|row| {
            let mean = row.iter().sum::<f32>() / 64.0;
            row.iter().map(move |x| x - 2.0 * mean)
        })
        .collect();
    expect(
        &mut *instance,
        &[Tensor::new(&[2, 64], &x)],
        &Tensor::new(&[2, 64], &y),
    );
}

pub(super) fn nonzero(suite: &Suite<'_>) {
    let Some(mut instance) = suite.instance("nonzero") else {
        return;
    };
    let cases: [(&[f32], &[i64]); 4] = [
        (&[0.0, 3.0, 0.0, -1.0, 0.0], &[1, 3]),
        (&[0.0, 0.0], &[]),
        (&[1.0, 2.0], &[0, 1]),
        (&[], &[]),
    ];
    for (values, indices) in cases {
        let x = Placed::new(&Tensor::new(
            &[i64::try_from(values.len()).unwrap()],
            values,
        ));
        let results = unbound(&mut *instance, &[x.input()], 1).unwrap();
        let count = i64::try_from(indices.len()).unwrap();
        assert_eq!(results, [Tensor::new(&[1, count], indices)]);
    }
}
