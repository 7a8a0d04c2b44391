//! The same requests on either engine; what each copies is told.

use adjoin_tests::root;
use adjoin_tests::server::{Setup, TestServer};

/// The data behind the header of a `.npy` file of bytes.
fn npy_bytes(name: &str) -> Vec<u8> {
    let bytes = std::fs::read(root().join("demo/digits").join(name)).unwrap();
    let header = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    bytes[10 + header..].to_vec()
}

fn digits_accuracy(server: &TestServer) -> f64 {
    let (images, labels) = (npy_bytes("test_images.npy"), npy_bytes("test_labels.npy"));
    let client = server.client();
    let model = client.model("digits").unwrap();
    let mut right = 0;
    let mut request = model
        .request()
        .input("image", &[20, 1, 8, 8])
        .unwrap()
        .build()
        .unwrap();
    for (images, labels) in images.chunks(20 * 64).zip(labels.chunks(20)) {
        let pixels = request.input_mut::<f32>("image").unwrap();
        pixels
            .iter_mut()
            .zip(images)
            .for_each(|(to, from)| *to = f32::from(*from));
        let outputs = request.infer().unwrap();
        for (scores, label) in outputs.get::<f32>("scores").unwrap().chunks(10).zip(labels) {
            let best = scores
                .iter()
                .enumerate()
                .max_by(|a, b| a.1.total_cmp(b.1))
                .unwrap()
                .0;
            right += usize::from(best == usize::from(*label));
        }
    }
    right as f64 / labels.len() as f64
}

#[test]
fn onnxruntime_reads_digits_where_the_client_wrote_them() {
    let server = Setup::new(&["digits"]).start();
    assert!(digits_accuracy(&server) >= 0.97);
    let model = server.control().models().remove(0);
    assert_eq!(model.engine, "onnxruntime");
    let statistics = model.statistics.unwrap();
    assert_eq!(statistics.in_place_count, statistics.request_count);
    assert_eq!(statistics.engine_copied_bytes, 0);
}

#[test]
fn the_built_in_engine_reads_them_as_well_and_says_what_it_copied() {
    let server = Setup::new(&["digits"]).on_rten().start();
    assert!(digits_accuracy(&server) >= 0.97);
    let model = server.control().models().remove(0);
    assert_eq!(model.engine, "rten");
    let statistics = model.statistics.unwrap();
    assert_eq!(statistics.in_place_count, 0);
    assert_eq!(statistics.engine_copied_bytes, 360 * (64 + 10) * 4);
}
