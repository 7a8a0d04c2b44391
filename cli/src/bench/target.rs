//! The server that is measured: one that runs, or one that is started with the model alone.

use std::path::PathBuf;

use adjoin_control_api::control::ModelVersion;
use adjoin_server::config::CheckedFile;
use adjoin_server::repository::Repository;

use super::BenchArguments;
use super::job::InProcess;
use crate::child::{ServerHome, ServerProcess};
use crate::{Failure, serve};

/// The server that is measured.
pub(super) struct Target {
    /// If it was started for this.
    process: Option<ServerProcess>,
    pub(super) socket_dir: PathBuf,
    /// What it was started with.
    pub(super) config: Option<CheckedFile>,
}

impl Target {
    pub(super) async fn open(arguments: &BenchArguments) -> Result<Self, Failure> {
        if let Some(socket_dir) = &arguments.socket_dir {
            return Ok(Self {
                process: None,
                socket_dir: socket_dir.clone(),
                config: None,
            });
        }
        let table = config_table(arguments)?;
        let path = arguments.config.clone().unwrap_or_default();
        let config = CheckedFile::parse(&table.to_string(), &path)?;
        let home = ServerHome::new()?;
        let model = model_directory(arguments)?;
        std::os::unix::fs::symlink(model, home.models().join(&arguments.model))?;
        let process = ServerProcess::start(home, &table, arguments.onnxruntime.as_deref()).await?;
        Ok(Self {
            socket_dir: process.socket_dir(),
            process: Some(process),
            config: Some(config),
        })
    }

    /// How the same call is made in-process; `None` without the model's file.
    pub(super) fn in_process(
        &self,
        arguments: &BenchArguments,
        model: &ModelVersion,
    ) -> Option<InProcess> {
        let repository = arguments.model_repository.as_ref()?;
        let own = self
            .config
            .as_ref()
            .and_then(|config| config.model(&model.name).ok());
        let usual = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = arguments
            .threads
            .and_then(|threads| usize::try_from(threads).ok());
        Some(InProcess {
            engine: model.engine.clone(),
            onnxruntime: arguments.onnxruntime.clone(),
            path: repository
                .join(&model.name)
                .join(model.version.to_string())
                .join("model.onnx"),
            threads: own
                .map(|config| config.intra_op_threads)
                .or(threads)
                .unwrap_or_else(usual),
        })
    }

    pub(super) async fn close(self) -> Result<(), Failure> {
        match self.process {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }
}

/// The directory of the model alone: others in its repository need not be loaded.
fn model_directory(arguments: &BenchArguments) -> Result<PathBuf, Failure> {
    let repository = arguments
        .model_repository
        .as_deref()
        .ok_or("--model-repository is missing")?;
    let all = Repository {
        path: repository.to_owned(),
        model_name: None,
    };
    let models = all.scan()?.models;
    if models.iter().any(|model| model.name == arguments.model) {
        return Ok(repository.join(&arguments.model).canonicalize()?);
    }
    let names: Vec<_> = models.iter().map(|model| model.name.as_str()).collect();
    let text = format!(
        "{} has no model {:?}; it has {}",
        repository.display(),
        arguments.model,
        names.join(", ")
    );
    Err(text.into())
}

/// The server's configuration: the file's, with what the flags say over it.
fn config_table(arguments: &BenchArguments) -> Result<toml::Table, Failure> {
    // Whatever is wrong with the file is said in its own terms.
    serve::read_config(arguments.config.as_deref())?;
    let text = arguments
        .config
        .as_ref()
        .map(std::fs::read_to_string)
        .transpose()?;
    let mut table: toml::Table = text.unwrap_or_default().parse()?;
    let mut set = |path: &[&str], value: toml::Value| {
        let (last, sections) = path.split_last().ok_or("a setting has a name")?;
        let mut table = &mut table;
        for section in sections {
            let entry = table
                .entry(*section)
                .or_insert_with(|| toml::Table::new().into());
            table = entry
                .as_table_mut()
                .ok_or("a section of the configuration is a table")?;
        }
        table.insert((*last).to_owned(), value);
        Ok::<(), Failure>(())
    };
    if let Some(spin_us) = arguments.server_spin_us {
        set(&["server", "spin_us"], i64::try_from(spin_us)?.into())?;
    }
    if let Some(engine) = &arguments.engine {
        set(
            &["models", &arguments.model, "engine"],
            engine.as_str().into(),
        )?;
    }
    if let Some(threads) = arguments.threads {
        set(
            &["models", &arguments.model, "intra_op_threads"],
            i64::from(threads).into(),
        )?;
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn arguments(flags: &str) -> BenchArguments {
        Line::parse_from(format!("adjoin mlp {flags}").split(' ')).bench
    }

    #[test]
    fn flags_stand_over_the_configuration_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "[server]\nspin_us = 5\n[models.mlp]\ninstances = 2\n",
        )
        .unwrap();
        let flags = format!(
            "--model-repository m --config {} --threads 3 --server-spin-us 7 --engine rten",
            file.path().display()
        );
        let table = config_table(&arguments(&flags)).unwrap();
        let config = CheckedFile::parse(&table.to_string(), std::path::Path::new("")).unwrap();
        let model = config.model("mlp").unwrap();
        assert_eq!(config.spin, std::time::Duration::from_micros(7));
        assert_eq!(
            (model.intra_op_threads, model.engine.as_deref()),
            (3, Some("rten"))
        );
        assert_eq!(model.settings(0).instances, 2);
    }
}
