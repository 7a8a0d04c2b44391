//! Models on the GPU as the server loads them from a repository: on a CUDA driver and providers of ours (tests/fake-cuda,
//! tests/fake-onnxruntime), in a process of its own for each test.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::sync::Arc;

use adjoin_backend_onnxruntime::OnnxRuntimeBackend;
use adjoin_server::config::{CheckedFile, ModelControl};
use adjoin_server::devices::Devices;
use adjoin_server::engine::{Engine, EngineOptions};
use adjoin_server::metrics::Metrics;
use adjoin_server::repository::{
    EngineLibraries, Loader, Manager, ManagerParts, Repository, engines,
};
use adjoin_server::session::budget::MemoryBudget;
use fake_cuda::harness::FakeCuda;
use fake_onnxruntime::harness::{self, REAL};

/// A machine with one device, whose providers run what the real library runs on the processor.
fn fake() -> FakeCuda {
    let named = std::env::var_os("ADJOIN_ONNXRUNTIME")
        .expect("ADJOIN_ONNXRUNTIME names libonnxruntime.so; `make test` fetches one");
    let real = OnnxRuntimeBackend::find(Some(Path::new(&named))).unwrap();
    FakeCuda::new().set(REAL, real.display())
}

fn put(repository: &Path, name: &str, config: &str) {
    let version = repository.join(name).join("1");
    std::fs::create_dir_all(&version).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/models/add.onnx");
    std::fs::copy(file, version.join("model.onnx")).unwrap();
    std::fs::write(repository.join(name).join("config.pbtxt"), config).unwrap();
}

/// The models of a repository as a server has them after its start: name, state, reason.
fn serve(repository: &Path, libraries: &EngineLibraries) -> Vec<[String; 3]> {
    let file = CheckedFile::parse("", Path::new("")).unwrap();
    let metrics = Arc::new(Metrics::new("test"));
    let options = EngineOptions {
        spin_ns: 0,
        limits: file.limits,
        memory: MemoryBudget::default(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let engine = Engine::new(Arc::default(), Arc::clone(&metrics), options).unwrap();
        let (backends, missing) = engines(libraries, &Devices::default()).unwrap();
        assert!(missing.is_none(), "{missing:?}");
        let parts = ManagerParts {
            repository: Repository {
                path: repository.to_owned(),
                model_name: None,
            },
            control: ModelControl::default(),
            loader: Loader::new(backends, file, metrics),
            engine,
        };
        let (manager, started) = Manager::start(parts).unwrap();
        started.await.unwrap().unwrap();
        let entries = manager.index(false).await.unwrap();
        let line = |entry: adjoin_server::repository::IndexEntry| {
            [
                entry.name.to_string(),
                entry.state.as_str().to_owned(),
                entry.reason.clone(),
            ]
        };
        entries.into_iter().map(line).collect()
    })
}

#[test]
fn models_go_where_their_configuration_says_and_what_cannot_be_is_told() {
    let test = "models_go_where_their_configuration_says_and_what_cannot_be_is_told";
    fake().run(test, || {
        let repository = tempfile::tempdir().unwrap();
        let gpu = "backend: 'onnxruntime' max_batch_size: 16 instance_group { kind: KIND_GPU }";
        let tensorrt = "optimization { execution_accelerators { gpu_execution_accelerator {
            name: 'tensorrt' parameters { key: 'precision_mode' value: 'FP16' } } } }";
        put(repository.path(), "auto", "backend: 'onnxruntime'");
        put(repository.path(), "gpu", gpu);
        put(
            repository.path(),
            "other",
            &gpu.replace("KIND_GPU", "KIND_GPU gpus: 3"),
        );
        put(
            repository.path(),
            "rten",
            &gpu.replace("onnxruntime", "adjoin_rten"),
        );
        put(repository.path(), "trt", &format!("{gpu} {tensorrt}"));
        put(
            repository.path(),
            "wrong",
            &format!("{gpu} {}", tensorrt.replace("precision_mode", "precision")),
        );
        let engines = tempfile::tempdir().unwrap();
        let engine_cache = engines.path().to_owned();
        let libraries = EngineLibraries {
            onnxruntime: Some(harness::library()),
            engine_cache: Some(engine_cache.clone()),
            ..EngineLibraries::default()
        };
        let models = serve(repository.path(), &libraries);
        let expected = [
            ("auto", "READY", ""),
            ("gpu", "READY", ""),
            ("other", "UNAVAILABLE", "instance_group.gpus is 3"),
            ("rten", "UNAVAILABLE", "KIND_GPU"),
            ("trt", "READY", ""),
            ("wrong", "UNAVAILABLE", "\"precision\""),
        ];
        assert_eq!(models.len(), expected.len(), "{models:#?}");
        for ([name, state, reason], (wanted_name, wanted_state, word)) in
            models.iter().zip(expected)
        {
            assert_eq!((&**name, &**state), (wanted_name, wanted_state), "{reason}");
            assert!(
                reason.contains(word),
                "{name}: {reason:?} should contain {word:?}"
            );
        }
        let report = harness::report();
        let providers: Vec<Vec<&str>> = (report.sessions.iter())
            .map(|session| session.iter().map(|provider| &*provider.name).collect())
            .collect();
        assert_eq!(
            providers,
            [vec!["cuda"], vec!["tensorrt", "cuda"]],
            "{report:#?}"
        );
        // Warm-up ran on the device, and the profile is the rows that are configured.
        assert!(report.runs > 0, "{report:#?}");
        let told = &report.sessions[1][0].options;
        assert_eq!(told["trt_profile_max_shapes"], "a:16x4,b:16x4");
        assert_eq!(std::fs::read_dir(engine_cache).unwrap().count(), 1);
        assert_eq!(report.violations, Vec::<String>::new());
    });
}

#[test]
fn without_a_driver_models_of_the_processor_are_served_and_others_say_why_not() {
    let test = "without_a_driver_models_of_the_processor_are_served_and_others_say_why_not";
    let named =
        std::env::var_os("ADJOIN_ONNXRUNTIME").expect("ADJOIN_ONNXRUNTIME names libonnxruntime.so");
    FakeCuda::absent().run(test, || {
        let repository = tempfile::tempdir().unwrap();
        put(repository.path(), "cpu", "backend: 'onnxruntime'");
        put(
            repository.path(),
            "gpu",
            "backend: 'onnxruntime' instance_group { kind: KIND_GPU }",
        );
        let libraries = EngineLibraries {
            onnxruntime: Some(named.clone().into()),
            ..EngineLibraries::default()
        };
        let models = serve(repository.path(), &libraries);
        let [[_, cpu, _], [_, gpu, reason]] = models.as_slice() else {
            panic!("{models:#?}");
        };
        assert_eq!((&**cpu, &**gpu), ("READY", "UNAVAILABLE"));
        for word in ["KIND_GPU", "no CUDA driver"] {
            assert!(reason.contains(word), "{reason:?} should contain {word:?}");
        }
    });
}
