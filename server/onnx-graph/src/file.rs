//! Reading a model's file, once.

use std::io;

use adjoin_backend::{LoadError, ModelSource};

use crate::{OnnxModel, describe};

/// A model's file with what it says.
#[derive(Debug)]
pub struct OnnxFile {
    /// All of the file. An engine should load these bytes and not read the file again: then what it runs
    /// is what was described.
    pub bytes: Vec<u8>,
    /// What it says.
    pub model: OnnxModel,
}

impl OnnxFile {
    /// Reads the file of `source` for `engine`, whose name goes into errors.
    ///
    /// # Errors
    /// If the file cannot be read, is no ONNX model, or has inputs or outputs that adjoin does not serve.
    pub fn read(engine: &'static str, source: &ModelSource) -> Result<Self, LoadError> {
        let bytes = read_regular(source).map_err(|error| LoadError::Unreadable {
            path: source.path.clone(),
            source: error,
        })?;
        match describe(&bytes) {
            Ok(model) => Ok(Self { bytes, model }),
            Err(error) => Err(error.into_load_error(engine, source)),
        }
    }
}

/// Opening a pipe would wait for a writer, so only a regular file is opened at all.
fn read_regular(source: &ModelSource) -> io::Result<Vec<u8>> {
    let kind = std::fs::metadata(&source.path)?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    std::fs::read(&source.path)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn source(path: &Path) -> ModelSource {
        ModelSource {
            name: "m".into(),
            version: 1,
            path: path.into(),
            intra_op_threads: 1,
            parameters: BTreeMap::new(),
            placement: Default::default(),
            rows_max: Default::default(),
        }
    }

    #[test]
    fn what_is_no_file_is_unreadable() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("missing.onnx"), dir.path().into()] {
            let error = OnnxFile::read("test", &source(&path)).unwrap_err();
            assert!(matches!(error, LoadError::Unreadable { .. }), "{error}");
        }
        let error = OnnxFile::read("test", &source(Path::new("/dev/null"))).unwrap_err();
        assert!(matches!(error, LoadError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn damaged_file_is_refused_by_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("damaged.onnx");
        std::fs::write(&path, b"not a model").unwrap();
        let error = OnnxFile::read("test", &source(&path)).unwrap_err();
        assert!(
            matches!(&error, LoadError::Refused { path: p, engine: "test", .. } if *p == path),
            "{error}"
        );
    }
}
