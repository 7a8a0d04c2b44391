//! Names of inputs and outputs as the C API takes them.

use std::ffi::{CString, c_char};

use adjoin_backend::{ModelMetadata, TensorMetadata};

/// Prepared once, so that no run does any work on texts.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) inputs: NameList,
    pub(super) outputs: NameList,
    /// For each output, the input of the same name: the model hands that out as it is.
    pub(super) handed_out: Vec<Option<usize>>,
}

/// Pointers to texts that end with a zero byte and live as long as this.
#[derive(Debug)]
pub(super) struct NameList {
    pointers: Vec<*const c_char>,
    _texts: Vec<CString>,
}

// SAFETY: the pointers lead to texts that are owned beside them and never change.
unsafe impl Send for NameList {}
// SAFETY: as for Send.
unsafe impl Sync for NameList {}

impl Names {
    pub(super) fn of(metadata: &ModelMetadata) -> ort::Result<Self> {
        Ok(Self {
            inputs: NameList::of(&metadata.inputs)?,
            outputs: NameList::of(&metadata.outputs)?,
            handed_out: metadata
                .outputs
                .iter()
                .map(|output| {
                    metadata
                        .inputs
                        .iter()
                        .position(|input| input.name == output.name)
                })
                .collect(),
        })
    }
}

impl NameList {
    fn of(tensors: &[TensorMetadata]) -> ort::Result<Self> {
        let texts = tensors
            .iter()
            .map(|tensor| CString::new(tensor.name.as_str()));
        let texts: Vec<_> = texts.collect::<Result<_, _>>().map_err(ort::Error::wrap)?;
        Ok(Self {
            pointers: texts.iter().map(|text| text.as_ptr()).collect(),
            _texts: texts,
        })
    }

    pub(super) fn pointers(&self) -> &[*const c_char] {
        &self.pointers
    }
}
