//! `--input NAME:DTYPE:1,128`.

use adjoin_cli_kit::tensor::Tensor;
use adjoin_schema::DataType;

/// Parses an input of the requests.
pub(crate) fn parse_input(text: &str) -> Result<Tensor, String> {
    let wrong = || "it is NAME:DTYPE:1,128, such as input:FP32:1,128".to_owned();
    let (rest, sizes) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (name, data_type) = rest.rsplit_once(':').ok_or_else(wrong)?;
    let data_type = data_type.to_ascii_uppercase();
    let dtype = DataType::from_name(&data_type)
        .filter(|&dtype| dtype != DataType::Bytes)
        .ok_or_else(|| format!("{data_type:?} is no data type that is measured, such as FP32"))?;
    let size = |size: &str| size.trim().parse().ok().filter(|&size: &i64| size >= 0);
    let shape = sizes
        .split(',')
        .map(size)
        .collect::<Option<Vec<i64>>>()
        .ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    let byte_size = dtype.byte_size(&shape).map_err(|error| error.to_string())?;
    Ok(Tensor {
        name: name.to_owned(),
        data_type,
        shape,
        byte_size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_parsed_and_wrong_ones_refused() {
        let input = parse_input("a:b:fp32:1, 128").unwrap();
        assert_eq!(
            (input.name.as_str(), input.data_type.as_str()),
            ("a:b", "FP32")
        );
        assert_eq!(
            (input.shape.as_slice(), input.byte_size),
            (&[1, 128][..], Some(512))
        );
        for (text, reason) in [
            ("x", "NAME:DTYPE"),
            ("x:FP32", "NAME:DTYPE"),
            (":FP32:1", "NAME:DTYPE"),
            ("x:FP32:", "NAME:DTYPE"),
            ("x:FP32:1,-1", "NAME:DTYPE"),
            ("x:F32:1", "no data type"),
            ("x:BYTES:1", "no data type"),
            ("x:FP64:9223372036854775807,2", "bytes"),
        ] {
            let error = parse_input(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
