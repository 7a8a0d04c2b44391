use std::collections::HashMap;

use prost::Message;
use prost::bytes::Bytes;

use super::*;
use crate::inference::infer_parameter::ParameterChoice;
use crate::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::inference::{InferParameter, InferTensorContents, ModelInferRequest};

const MANY: usize = 4097;
/// So many elements of eight bytes are more than a message may have.
const TOO_LONG: usize = MESSAGE_BYTES_MAX / 8 + 1;

fn check(request: &ModelInferRequest) -> Result<(), Excess> {
    check_infer_request(&request.encode_to_vec())
}

fn parameters(count: usize) -> HashMap<String, InferParameter> {
    let parameter = InferParameter {
        parameter_choice: Some(ParameterChoice::Int64Param(1)),
    };
    (0..count)
        .map(|number| (number.to_string(), parameter.clone()))
        .collect()
}

fn of_input(input: InferInputTensor) -> ModelInferRequest {
    ModelInferRequest {
        inputs: vec![input],
        ..ModelInferRequest::default()
    }
}

fn of_contents(contents: InferTensorContents) -> ModelInferRequest {
    of_input(InferInputTensor {
        contents: Some(contents),
        ..InferInputTensor::default()
    })
}

#[test]
fn each_list_that_costs_more_in_memory_than_on_the_wire_is_bounded() {
    let input = InferInputTensor::default();
    let output = InferRequestedOutputTensor::default();
    let cases = [
        ModelInferRequest {
            inputs: vec![input.clone(); MANY],
            ..ModelInferRequest::default()
        },
        ModelInferRequest {
            outputs: vec![output.clone(); MANY],
            ..ModelInferRequest::default()
        },
        ModelInferRequest {
            raw_input_contents: vec![Bytes::new(); MANY],
            ..ModelInferRequest::default()
        },
        ModelInferRequest {
            parameters: parameters(MANY),
            ..ModelInferRequest::default()
        },
        ModelInferRequest {
            outputs: vec![InferRequestedOutputTensor {
                parameters: parameters(MANY),
                ..output
            }],
            ..ModelInferRequest::default()
        },
        of_input(InferInputTensor {
            parameters: parameters(MANY),
            ..input.clone()
        }),
        of_input(InferInputTensor {
            shape: vec![1; MANY],
            ..input.clone()
        }),
        // They add up.
        ModelInferRequest {
            inputs: vec![
                InferInputTensor {
                    shape: vec![1 << 40; 80],
                    ..input
                };
                60
            ],
            ..ModelInferRequest::default()
        },
    ];
    for (index, request) in cases.iter().enumerate() {
        let excess = check(request).unwrap_err();
        assert!(matches!(excess, Excess::Items(_)), "case {index}: {excess}");
    }
}

#[test]
fn typed_contents_are_bounded_by_what_they_take_in_memory() {
    // As they come on the wire: the lists themselves would be gigabytes.
    let of = |field: u8, packed: &[u8]| {
        let mut contents = vec![field << 3 | 2];
        prost::encode_length_delimiter(packed.len(), &mut contents).unwrap();
        contents.extend_from_slice(packed);
        contents
    };
    let cases = [
        of(3, &vec![0; TOO_LONG]),
        of(5, &vec![0; TOO_LONG]),
        of(2, &vec![0; 2 * TOO_LONG]),
        of(8, &[]).repeat(TOO_LONG / 3),
    ];
    for (index, contents) in cases.iter().enumerate() {
        let excess = Count::default().contents(contents).unwrap_err();
        assert!(matches!(excess, Excess::Bytes(_)), "case {index}: {excess}");
    }
    let most = of_contents(InferTensorContents {
        fp64_contents: vec![0.0; MESSAGE_BYTES_MAX / 8],
        ..InferTensorContents::default()
    });
    check(&most).unwrap();
}

#[test]
fn what_models_take_passes_and_numbers_that_are_not_packed_count_as_well() {
    let input = InferInputTensor {
        shape: vec![-1; 8],
        parameters: parameters(3),
        ..InferInputTensor::default()
    };
    let largest = ModelInferRequest {
        inputs: vec![input; 64],
        outputs: vec![InferRequestedOutputTensor::default(); 64],
        raw_input_contents: vec![Bytes::from_static(&[0; 64]); 64],
        parameters: parameters(64),
        ..ModelInferRequest::default()
    };
    check(&largest).unwrap();

    // Field 3 of an input, a number each time.
    let shape = [0x18, 1].repeat(MANY);
    let mut message = vec![0x2a];
    prost::encode_length_delimiter(shape.len(), &mut message).unwrap();
    message.extend(&shape);
    assert_eq!(
        check_infer_request(&message),
        Err(Excess::Items(ITEMS_MAX + 1))
    );
    // Inside of a group nothing hides.
    let grouped = [&[0x0b][..], &message, &[0x0c]].concat();
    assert_eq!(
        check_infer_request(&grouped),
        Err(Excess::Items(ITEMS_MAX + 1))
    );
}

#[test]
fn the_decoder_never_reads_more_than_was_counted_of_damaged_messages() {
    let request = ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            shape: vec![300, 2],
            parameters: parameters(2),
            ..InferInputTensor::default()
        }],
        parameters: parameters(1),
        ..ModelInferRequest::default()
    };
    let good = request.encode_to_vec();
    for place in 0..good.len() {
        for value in 0..=u8::MAX {
            let mut damaged = good.clone();
            damaged[place] = value;
            let Ok(decoded) = ModelInferRequest::decode(&damaged[..]) else {
                continue;
            };
            let mut count = Count::default();
            for (number, payload) in Fields(&damaged) {
                if let (field::INPUTS, Payload::Many(input)) = (number, payload) {
                    count.items(1).unwrap();
                    count.input(input).unwrap();
                }
            }
            let inputs = decoded.inputs.iter();
            let items: usize = inputs
                .map(|input| 1 + input.shape.len() + input.parameters.len())
                .sum();
            assert!(count.items >= items as u64, "byte {place} is {value}");
        }
    }
}
