//! `adjoin_tokenizer`: texts to token ids.

use std::sync::Arc;

use adjoin_backend::{Dimension, LoadError, ModelMetadata, strings};
use adjoin_schema::DataType;
use tokenizers::{
    PaddingDirection, PaddingParams, Tokenizer, TruncationDirection, TruncationParams,
};

use crate::model::{Step, batch, tensor};
use crate::parameters::Parameters;
use crate::value::{Elements, Tensor, Value, dimension};

const FILE: &str = "tokenizer.json";
const FILE_BYTES_MAX: u64 = 256 << 20;
const LENGTH_MAX: u32 = 1 << 20;
const LENGTH_DEFAULT: u32 = 512;
const TEXT_BYTES_DEFAULT: u32 = 1 << 20;
/// What the token that fills up is called, in the order of preference.
const PAD_TOKENS: [&str; 3] = ["[PAD]", "<pad>", "<|endoftext|>"];

/// Splits texts into tokens by a `tokenizer.json`, which lies in the version's directory or beside the versions.
///
/// Input `text` BYTES (batch, 1), UTF-8. Outputs `input_ids` and `attention_mask`, with `token_type_ids: "true"` also
/// `token_type_ids`, INT64 (batch, tokens).
///
/// | parameter | values | default |
/// |---|---|---|
/// | `max_length` | tokens of a text at most | that of the file, else 512 |
/// | `truncation` | `true`: longer texts are cut; `false`: refused | `true` |
/// | `padding` | `max_length`, or `longest`: as long as the longest text of the batch | `max_length` |
/// | `pad_token` | the token that fills up | that of the file, else `[PAD]`, `<pad>` or `<|endoftext|>` |
/// | `add_special_tokens` | `true`, `false` | `true` |
/// | `token_type_ids` | `true`, `false` | `false` |
/// | `text_bytes_max` | bytes of a text | 1048576 |
///
/// With `longest` the length depends on what else is in the batch, so requests are joined only where the
/// configuration asks for that.
#[derive(Clone, Debug)]
pub(crate) struct TokenizerStep {
    tokenizer: Arc<Tokenizer>,
    max_length: usize,
    truncation: bool,
    padding: Padding,
    add_special_tokens: bool,
    token_type_ids: bool,
    text_bytes_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Padding {
    is_fixed: bool,
    id: u32,
    type_id: u32,
    is_left: bool,
}

/// One of the outputs being filled.
#[derive(Clone, Copy, Debug)]
enum Column {
    Ids,
    Mask,
    Types,
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

impl Padding {
    fn read(
        p: &Parameters<'_>,
        tokenizer: &Tokenizer,
        of_file: Option<&PaddingParams>,
    ) -> Result<Self, LoadError> {
        let words = [("max_length", true), ("longest", false)];
        let named = p.text("pad_token");
        let id = match (named, of_file) {
            (Some(token), _) => tokenizer.token_to_id(token).ok_or_else(|| {
                p.refused(format!("{FILE} has no token {token:?} to fill up with"))
            })?,
            (None, Some(of_file)) => of_file.pad_id,
            (None, None) => {
                let found = PAD_TOKENS
                    .iter()
                    .find_map(|token| tokenizer.token_to_id(token));
                found.ok_or_else(|| {
                    let usual = PAD_TOKENS.join(", ");
                    p.refused(format!(
                        "{FILE} has none of {usual}; the parameter \"pad_token\" must name the token to fill up with"
                    ))
                })?
            }
        };
        Ok(Self {
            is_fixed: p.choice("padding", &words)?.unwrap_or(true),
            id,
            type_id: of_file.map_or(0, |of_file| of_file.pad_type_id),
            is_left: of_file
                .is_some_and(|of_file| matches!(of_file.direction, PaddingDirection::Left)),
        })
    }
}

impl Step for TokenizerStep {
    const NAME: &'static str = "adjoin_tokenizer";
    const PARAMETERS: &'static [&'static str] = &[
        "max_length",
        "truncation",
        "padding",
        "pad_token",
        "add_special_tokens",
        "token_type_ids",
        "text_bytes_max",
    ];

    fn new(p: &Parameters<'_>) -> Result<Self, LoadError> {
        let bytes = p.read(FILE, FILE_BYTES_MAX)?;
        let wrong = |error: tokenizers::Error| p.refused(format!("{FILE} is wrong: {error}"));
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(wrong)?;
        let of_file = tokenizer.get_truncation().cloned();
        let default = of_file
            .as_ref()
            .and_then(|of_file| u32::try_from(of_file.max_length).ok())
            .unwrap_or(LENGTH_DEFAULT);
        let max_length = p.number("max_length", 1..=LENGTH_MAX)?.unwrap_or(default);
        let added = tokenizer.get_post_processor().map_or(0, |post| {
            tokenizers::PostProcessor::added_tokens(post, false)
        });
        if size(max_length) <= added {
            return Err(p.refused(format!(
                "a text has {max_length} tokens at most, and {added} are added to each; expected more than that"
            )));
        }
        let padding = Padding::read(p, &tokenizer, tokenizer.get_padding())?;
        let truncation = p.flag("truncation")?.unwrap_or(true);
        let direction = of_file.map_or(TruncationDirection::Right, |of_file| of_file.direction);
        let cut = truncation.then(|| TruncationParams {
            direction,
            max_length: size(max_length),
            ..TruncationParams::default()
        });
        tokenizer.with_truncation(cut).map_err(wrong)?;
        tokenizer.with_padding(None);
        let text_bytes_max = p.number("text_bytes_max", 1..=u32::MAX)?;
        Ok(Self {
            tokenizer: Arc::new(tokenizer),
            max_length: size(max_length),
            truncation,
            padding,
            add_special_tokens: p.flag("add_special_tokens")?.unwrap_or(true),
            token_type_ids: p.flag("token_type_ids")?.unwrap_or(false),
            text_bytes_max: size(text_bytes_max.unwrap_or(TEXT_BYTES_DEFAULT)),
        })
    }

    fn metadata(&self) -> ModelMetadata {
        let (first, length) = if self.padding.is_fixed {
            (batch(), Dimension::Fixed(dimension(self.max_length)))
        } else {
            // What has no name is joined only if the configuration says so.
            (Dimension::Unknown, Dimension::Unknown)
        };
        let shape = [first.clone(), length];
        let output = |name| tensor(name, DataType::Int64, &shape);
        let mut outputs = vec![output("input_ids"), output("attention_mask")];
        if self.token_type_ids {
            outputs.push(output("token_type_ids"));
        }
        let text = tensor("text", DataType::Bytes, &[first, Dimension::Fixed(1)]);
        ModelMetadata {
            inputs: vec![text],
            outputs,
        }
    }

    fn compute(&mut self, inputs: &[Tensor<'_>]) -> Result<Vec<Value>, String> {
        let texts = strings::split(inputs[0].bytes, inputs[0].rows())?;
        let mut encodings = Vec::with_capacity(texts.len());
        for (row, text) in texts.iter().enumerate() {
            let encoding = self.encode(text);
            encodings.push(encoding.map_err(|reason| format!("text {row}: {reason}"))?);
        }
        let length = if self.padding.is_fixed {
            self.max_length
        } else {
            encodings
                .iter()
                .map(tokenizers::Encoding::len)
                .max()
                .unwrap_or(0)
        };
        let mut columns = vec![Column::Ids, Column::Mask];
        if self.token_type_ids {
            columns.push(Column::Types);
        }
        let value = |column| Value {
            shape: vec![dimension(texts.len()), dimension(length)],
            elements: Elements::Int64(self.fill(column, &encodings, length)),
        };
        Ok(columns.into_iter().map(value).collect())
    }
}

impl TokenizerStep {
    fn encode(&self, text: &[u8]) -> Result<tokenizers::Encoding, String> {
        if text.len() > self.text_bytes_max {
            let (given, most) = (text.len(), self.text_bytes_max);
            return Err(format!("it has {given} bytes; the most is {most}"));
        }
        let text = std::str::from_utf8(text).map_err(|error| format!("not UTF-8: {error}"))?;
        let encoding = self.tokenizer.encode_fast(text, self.add_special_tokens);
        let encoding = encoding.map_err(|error| error.to_string())?;
        if !self.truncation && encoding.len() > self.max_length {
            let (given, most) = (encoding.len(), self.max_length);
            return Err(format!("it has {given} tokens; the most is {most}"));
        }
        Ok(encoding)
    }

    fn fill(&self, column: Column, encodings: &[tokenizers::Encoding], length: usize) -> Vec<i64> {
        let mut filled = Vec::with_capacity(encodings.len() * length);
        for encoding in encodings {
            let (values, pad) = match column {
                Column::Ids => (encoding.get_ids(), self.padding.id),
                Column::Mask => (encoding.get_attention_mask(), 0),
                Column::Types => (encoding.get_type_ids(), self.padding.type_id),
            };
            let pads = std::iter::repeat_n(i64::from(pad), length.saturating_sub(values.len()));
            let values = values.iter().map(|&value| i64::from(value)).take(length);
            if self.padding.is_left {
                filled.extend(pads.chain(values));
            } else {
                filled.extend(values.chain(pads));
            }
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use adjoin_backend::ModelSource;

    use super::*;

    /// Words by their spaces; `[CLS]` before each text.
    const WORDS: &str = r#"{
        "version": "1.0", "truncation": null, "padding": null, "normalizer": {"type": "Lowercase"},
        "added_tokens": [],
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}},
        "model": {"type": "WordLevel", "unk_token": "[UNK]",
            "vocab": {"[PAD]": 0, "[CLS]": 1, "[UNK]": 2, "zero": 3, "copy": 4, "inference": 5}}
    }"#;

    fn step_of(file: &str, parameters: &[(&str, &str)]) -> Result<TokenizerStep, LoadError> {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), file).unwrap();
        let pairs = parameters.iter();
        let source = ModelSource {
            name: "m".into(),
            version: 1,
            path: directory.path().into(),
            intra_op_threads: 1,
            parameters: pairs
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            placement: Default::default(),
            rows_max: Default::default(),
        };
        let names = TokenizerStep::PARAMETERS;
        TokenizerStep::new(&Parameters::new(&source, TokenizerStep::NAME, names)?)
    }

    fn step(parameters: &[(&str, &str)]) -> TokenizerStep {
        step_of(WORDS, parameters).unwrap()
    }

    /// Shape and elements of each output.
    type Parts = Vec<(Vec<i64>, Vec<i64>)>;

    fn run(step: &mut TokenizerStep, texts: &[&[u8]]) -> Result<Parts, String> {
        let mut bytes = Vec::new();
        for text in texts {
            strings::push(&mut bytes, text).unwrap();
        }
        let input = Tensor {
            dtype: DataType::Bytes,
            shape: &[dimension(texts.len()), 1],
            bytes: &bytes,
        };
        let parts = |value: Value| match value.elements {
            Elements::Int64(values) => (value.shape, values),
            other => panic!("{other:?}"),
        };
        let results = step.compute(&[input])?;
        Ok(results.into_iter().map(parts).collect())
    }

    #[test]
    fn texts_are_filled_up_to_one_length() {
        let mut fixed = step(&[("max_length", "4"), ("token_type_ids", "true")]);
        let results = run(
            &mut fixed,
            &[b"Zero copy", b"", b"zero copy inference zero"],
        )
        .unwrap();
        let shape = vec![3, 4];
        assert_eq!(
            results[0],
            (shape.clone(), vec![1, 3, 4, 0, 1, 0, 0, 0, 1, 3, 4, 5])
        );
        assert_eq!(
            results[1],
            (shape.clone(), vec![1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 1, 1])
        );
        assert_eq!(results[2], (shape, vec![0; 12]));
        assert!(fixed.metadata().has_batch_dimension());

        let mut longest = step(&[("padding", "longest"), ("add_special_tokens", "false")]);
        let results = run(&mut longest, &[b"zero", b"copy what"]).unwrap();
        assert_eq!(results[0], (vec![2, 2], vec![3, 0, 4, 2]));
        assert!(!longest.metadata().has_batch_dimension());
    }

    #[test]
    fn what_is_no_text_or_too_long_is_refused_and_named() {
        let mut strict = step(&[
            ("max_length", "3"),
            ("truncation", "false"),
            ("text_bytes_max", "20"),
        ]);
        let mut error = |text: &[u8]| run(&mut strict, &[b"zero", text]).unwrap_err();
        let text = error(b"zero copy inference");
        assert!(
            text.contains("text 1") && text.contains("4 tokens"),
            "{text}"
        );
        assert!(error(&[b'a'; 21]).contains("21 bytes"));
        assert!(error(b"\xff").contains("UTF-8"));
        run(&mut strict, &[b"zero copy"]).unwrap();
    }

    #[test]
    fn wrong_files_and_parameters_are_refused() {
        let nameless = WORDS.replace("[PAD]", "[HOLE]");
        let reason =
            |file, parameters: &[(&str, &str)]| step_of(file, parameters).unwrap_err().to_string();
        assert!(reason("{}", &[]).contains(FILE));
        assert!(reason(WORDS, &[("max_length", "1")]).contains('1'));
        assert!(reason(WORDS, &[("pad_token", "[FILL]")]).contains("[FILL]"));
        assert!(reason(&nameless, &[]).contains("pad_token"));
        assert!(reason(WORDS, &[("padding", "none")]).contains("longest"));
        let file = std::env::temp_dir().join("there-is-no-such-model/1");
        let source = ModelSource {
            name: "m".into(),
            version: 1,
            path: file,
            intra_op_threads: 1,
            parameters: BTreeMap::new(),
            placement: Default::default(),
            rows_max: Default::default(),
        };
        let parameters = Parameters::new(&source, TokenizerStep::NAME, &[]).unwrap();
        let error = TokenizerStep::new(&parameters).unwrap_err();
        assert!(matches!(error, LoadError::Unreadable { .. }), "{error}");
    }
}
