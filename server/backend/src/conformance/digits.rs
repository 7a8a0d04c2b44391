//! A network with weights, on images that it was not trained on.

use std::collections::BTreeMap;
use std::path::Path;

use super::memory::{Placed, Tensor};
use super::suite::{Suite, unbound};
use crate::ModelSource;

const SIDE: usize = 8;

/// The least part of the images to be recognised; the model has 0.99 on them.
const ACCURACY_MIN: f64 = 0.97;

pub(super) fn accuracy(suite: &Suite<'_>) {
    let directory = &suite.options.digits;
    let images = npy(&directory.join("test_images.npy"));
    let labels = npy(&directory.join("test_labels.npy"));
    assert_eq!(images.len(), labels.len() * SIDE * SIDE);
    let source = ModelSource {
        name: "digits".into(),
        version: 1,
        path: directory.join("model.onnx"),
        intra_op_threads: 2,
        parameters: BTreeMap::new(),
        placement: suite.options.placement.clone(),
        rows_max: Default::default(),
    };
    let mut instance = suite.load(&source).unwrap().instance().unwrap();
    for batch in [1, 32, labels.len()] {
        let mut right = 0_u32;
        for (images, labels) in images.chunks(batch * SIDE * SIDE).zip(labels.chunks(batch)) {
            let pixels: Vec<f32> = images.iter().map(|&pixel| pixel.into()).collect();
            let shape = [labels.len(), 1, SIDE, SIDE].map(|size| i64::try_from(size).unwrap());
            let image = Placed::new(&Tensor::new(&shape, &pixels));
            let scores = unbound(&mut *instance, &[image.input()], 1).unwrap();
            assert_eq!(scores[0].shape, [shape[0], 10]);
            for (scores, label) in scores[0].f32s().chunks(10).zip(labels) {
                let best = (0_u8..).zip(scores).max_by(|a, b| a.1.total_cmp(b.1));
                right += u32::from(best.map(|(digit, _)| digit) == Some(*label));
            }
        }
        let count = u32::try_from(labels.len()).unwrap();
        let accuracy = f64::from(right) / f64::from(count);
        assert!(accuracy >= ACCURACY_MIN, "{accuracy} in batches of {batch}");
    }
}

/// The bytes of an array of bytes in numpy's file format, version 1.
fn npy(path: &Path) -> Vec<u8> {
    let file = std::fs::read(path).unwrap();
    let header = file.strip_prefix(b"\x93NUMPY\x01\0").unwrap();
    let (byte_size, rest) = header.split_first_chunk().unwrap();
    let (header, data) = rest.split_at(u16::from_le_bytes(*byte_size).into());
    assert!(String::from_utf8_lossy(header).contains("'|u1'"));
    data.to_vec()
}
