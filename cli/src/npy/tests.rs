use super::header::Header;
use super::*;

/// A file with that dictionary and those bytes.
fn file(dictionary: &str, bytes: &[u8]) -> Vec<u8> {
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend(u16::try_from(dictionary.len()).unwrap().to_le_bytes());
    file.extend(dictionary.as_bytes());
    file.extend(bytes);
    file
}

fn error(dictionary: &str, bytes: &[u8]) -> String {
    read(&mut file(dictionary, bytes).as_slice())
        .unwrap_err()
        .to_string()
}

#[test]
fn every_data_type_survives_writing_and_reading() {
    for dtype in DataType::ALL {
        let bytes = match dtype {
            DataType::Bytes => b"\x02\0\0\0hi\0\0\0\0\x05\0\0\0w\xc3\xb6ld".to_vec(),
            _ => vec![1; 3 * usize::try_from(dtype.element_bytes().unwrap()).unwrap()],
        };
        let array = Array {
            dtype,
            shape: vec![1, 3],
            bytes,
        };
        let mut file = Vec::new();
        write(&mut file, dtype, &array.shape, &array.bytes).unwrap();
        let data = file.iter().position(|&byte| byte == b'\n').unwrap() + 1;
        assert_eq!(data % 64, 0, "{dtype}");
        assert_eq!(read(&mut file.as_slice()).unwrap(), array, "{dtype}");
    }
}

#[test]
fn headers_as_numpy_writes_them_are_read() {
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (360, 8, 8), }          \n";
    let expected = Header {
        descr: "<f4".into(),
        is_fortran_order: false,
        shape: vec![360, 8, 8],
    };
    assert_eq!(Header::parse(text).unwrap(), expected);
    let old = r#"{"shape": (3L,), "descr": "|u1", "fortran_order": True}"#;
    assert_eq!(Header::parse(old).unwrap().shape, [3]);
    let scalar = "{'descr': '<i8', 'fortran_order': False, 'shape': ()}";
    let array = read(&mut file(scalar, &[7; 8]).as_slice()).unwrap();
    assert_eq!(
        (array.dtype, array.shape, array.bytes),
        (DataType::Int64, vec![], vec![7; 8])
    );
}

#[test]
fn later_versions_have_a_longer_size() {
    let text = "{'descr': '|b1', 'fortran_order': False, 'shape': (2,)}";
    let mut file = b"\x93NUMPY\x03\x00".to_vec();
    file.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
    file.extend(text.as_bytes());
    file.extend([1, 0]);
    assert_eq!(read(&mut file.as_slice()).unwrap().dtype, DataType::Bool);
}

#[test]
fn strings_become_elements_with_their_lengths() {
    let text = "{'descr': '|S3', 'fortran_order': False, 'shape': (2,)}";
    let array = read(&mut file(text, b"ab\0\0\0\0").as_slice()).unwrap();
    assert_eq!(array.bytes, b"\x02\0\0\0ab\0\0\0\0");
    let text = "{'descr': '<U2', 'fortran_order': False, 'shape': (1,)}";
    let array = read(&mut file(text, b"\xf6\0\0\0\0\0\0\0").as_slice()).unwrap();
    assert_eq!(array.bytes, b"\x02\0\0\0\xc3\xb6");
}

#[test]
fn what_cannot_be_used_says_what_to_do() {
    let with = |descr: &str, order: &str, shape: &str| {
        error(
            &format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"),
            &[0; 24],
        )
    };
    assert!(with("'>f4'", "False", "(6,)").contains("newbyteorder"));
    assert!(with("'<f4'", "True", "(2, 3)").contains("ascontiguousarray"));
    assert!(with("'|O'", "False", "(6,)").contains("Python objects"));
    assert!(with("'<c8'", "False", "(3,)").contains("<c8"));
    assert!(with("[('a', '<f4'), ('b', '<i4', (2,))]", "False", "(3,)").contains("structure"));
    assert!(with("'<f4'", "False", "(7,)").contains("24 of 28"));
    assert!(with("'<f4'", "False", "(5,)").contains("20 bytes"));
    assert!(with("'<f4'", "False", "(4611686018427387904, 4)").contains("addressed"));
    assert!(with("'<f4'", "Maybe", "(6,)").contains("Maybe"));
    assert!(with("'<f4'", "False", "(-1,)").contains("dimension"));
    assert!(error("{'descr': '<f4', 'shape': (1,)}", &[]).contains("\"fortran_order\" is missing"));
    assert!(error("{'descr': '<f4'", &[]).contains("ends"));
}

#[test]
fn one_dimension_in_fortran_order_is_the_same_in_c_order() {
    let text = "{'descr': '|u1', 'fortran_order': True, 'shape': (1, 3)}";
    assert_eq!(
        read(&mut file(text, &[1, 2, 3]).as_slice()).unwrap().bytes,
        [1, 2, 3]
    );
}

#[test]
fn other_files_are_no_arrays() {
    for bytes in [
        &b""[..],
        b"\x93NUMP",
        b"PK\x03\x04........",
        b"\x93NUMPY\x01\x00\xff",
    ] {
        let error = read(&mut &bytes[..]).unwrap_err();
        assert!(
            matches!(error, NpyError::NotNpy | NpyError::Header(_)),
            "{error}"
        );
    }
}
