//! Where engines that the provider of TensorRT builds are kept: building takes minutes, loading seconds.
//!
//! The provider names its files by the structure of a graph, not by its weights, and does not look whether they were made
//! by the same libraries. So each model has a directory of its own here, named by a digest of all that its engines depend
//! on; what nobody uses any more is the operator's to remove.

use std::path::{Path, PathBuf};

use adjoin_backend::ModelSource;
use ring::digest::{Context, SHA256};

/// Bytes of the digest that name a directory.
const DIGEST_BYTES: usize = 12;

/// The directory for the engines of a model below `root`, made if it is not there, and tried. `parts` are what engines
/// depend on beside the files of the model: libraries, device, options.
///
/// # Errors
/// The directory that cannot be written, with the system's reason, and what to do.
pub(crate) fn directory(
    root: &Path,
    source: &ModelSource,
    model: &[u8],
    parts: &[&str],
) -> Result<PathBuf, String> {
    let directory = root.join(format!(
        "{}-{}-{}",
        source.name,
        source.version,
        digest(source, model, parts)
    ));
    let made = std::fs::create_dir_all(&directory).and_then(|()| {
        let trial = directory.join(format!(".trial-{}", std::process::id()));
        std::fs::write(&trial, b"")?;
        std::fs::remove_file(&trial)
    });
    match made {
        Ok(()) => Ok(directory),
        Err(error) => Err(format!(
            "engines cannot be kept in {}: {error}; let the server write there, name another directory in \
             cuda.engine_cache_dir, or set trt_engine_cache_enable and trt_timing_cache_enable to 0 to build them at each \
             start",
            directory.display()
        )),
    }
}

fn digest(source: &ModelSource, model: &[u8], parts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    let mut add = |bytes: &[u8]| {
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(bytes);
    };
    add(model);
    for part in parts {
        add(part.as_bytes());
    }
    for file in beside(&source.path) {
        add(file.as_bytes());
    }
    let digest = context.finish();
    let bytes = digest.as_ref().iter().take(DIGEST_BYTES);
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// Names, sizes and times of the files beside the model's: weights may be there, gigabytes that are not read for a name.
fn beside(path: &Path) -> Vec<String> {
    let own = path.file_name();
    let entries = path
        .parent()
        .and_then(|parent| std::fs::read_dir(parent).ok());
    let describe = |entry: std::fs::DirEntry| {
        let facts = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let changed = facts.modified().ok()?;
        Some(format!(
            "{:?} {} {changed:?}",
            entry.file_name(),
            facts.len()
        ))
    };
    let mut files: Vec<String> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| Some(entry.file_name().as_os_str()) != own)
        .filter_map(describe)
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use adjoin_backend::Placement;

    use super::*;

    fn source(directory: &Path) -> ModelSource {
        let path = directory.join("model.onnx");
        std::fs::write(&path, b"model").unwrap();
        ModelSource {
            name: "m".into(),
            version: 3,
            path,
            intra_op_threads: 1,
            parameters: BTreeMap::new(),
            placement: Placement::default(),
            rows_max: Default::default(),
        }
    }

    #[test]
    fn whatever_engines_depend_on_makes_another_directory() {
        let models = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        let source = source(models.path());
        let of =
            |model: &[u8], parts: &[&str]| directory(root.path(), &source, model, parts).unwrap();
        let first = of(b"model", &["1.31", "fp16"]);
        assert!(first.is_dir());
        let name = first.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("m-3-"), "{name}");
        assert_eq!(first, of(b"model", &["1.31", "fp16"]));
        assert_ne!(first, of(b"other", &["1.31", "fp16"]));
        assert_ne!(first, of(b"model", &["1.32", "fp16"]));
        assert_ne!(first, of(b"model", &["1.31f", "p16"]));
        std::fs::write(models.path().join("weights"), b"w").unwrap();
        assert_ne!(first, of(b"model", &["1.31", "fp16"]));
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_an_error_that_says_what_to_do() {
        let models = tempfile::tempdir().unwrap();
        let file = models.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let refused = directory(&file, &source(models.path()), b"model", &[]).unwrap_err();
        for word in [file.to_str().unwrap(), "cuda.engine_cache_dir"] {
            assert!(
                refused.contains(word),
                "{refused:?} should contain {word:?}"
            );
        }
    }
}
