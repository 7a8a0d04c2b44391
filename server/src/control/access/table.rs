//! What each gRPC method and each HTTP route needs: the one place that says so. What is not here is refused, so a new
//! method or route is closed until it has a line.

use rustc_hash::FxHashMap;

use super::Right;

/// Methods of a gRPC service that need a right.
const METHODS: &[(Right, &str, &[&str])] = &[
    (
        Right::Infer,
        "inference.GRPCInferenceService",
        &["ModelInfer", "ModelStreamInfer"],
    ),
    (
        Right::Infer,
        "adjoin.control.v1.Control",
        &["OpenSession", "CloseSession", "Doorbell"],
    ),
    (
        Right::Inspect,
        "inference.GRPCInferenceService",
        &[
            "ServerMetadata",
            "ModelMetadata",
            "ModelConfig",
            "ModelStatistics",
            "RepositoryIndex",
        ],
    ),
    (
        Right::Inspect,
        "adjoin.control.v1.Control",
        &["ListModels", "ListSessions", "ServerStatus"],
    ),
    (
        Right::Inspect,
        "grpc.reflection.v1.ServerReflection",
        &["ServerReflectionInfo"],
    ),
    (
        Right::Inspect,
        "grpc.reflection.v1alpha.ServerReflection",
        &["ServerReflectionInfo"],
    ),
    (
        Right::Health,
        "inference.GRPCInferenceService",
        &["ServerLive", "ServerReady", "ModelReady"],
    ),
    (Right::Health, "grpc.health.v1.Health", &["Check", "Watch"]),
    (
        Right::Control,
        "inference.GRPCInferenceService",
        &["RepositoryModelLoad", "RepositoryModelUnload"],
    ),
    (
        Right::Control,
        "adjoin.control.v1.Admin",
        &[
            "Drain",
            "HandOver",
            "LoadModel",
            "UnloadModel",
            "SetLabel",
            "SetSplit",
        ],
    ),
    (
        Right::Regions,
        "inference.GRPCInferenceService",
        &[
            "SystemSharedMemoryStatus",
            "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister",
            "CudaSharedMemoryStatus",
            "CudaSharedMemoryRegister",
            "CudaSharedMemoryUnregister",
        ],
    ),
    (
        Right::Settings,
        "inference.GRPCInferenceService",
        &["TraceSetting", "LogSettings"],
    ),
];

/// Routes that need a right, whatever the HTTP method: templates of the router, with a part in brackets that is
/// there or not.
const ROUTES: &[(Right, &[&str])] = &[
    (
        Right::Infer,
        &[
            "/v2/models/{model}[/versions/{version}]/infer",
            "/v2/models/{model}[/versions/{version}]/generate",
            "/v2/models/{model}[/versions/{version}]/generate_stream",
        ],
    ),
    (
        Right::Inspect,
        &[
            "/v2[/]",
            "/v2/models/{model}[/versions/{version}]",
            "/v2/models/{model}[/versions/{version}]/config",
            "/v2/models/{model}[/versions/{version}]/stats",
            "/v2/models/stats",
            "/v2/repository[/{repository}]/index",
            "/metrics",
        ],
    ),
    (
        Right::Health,
        &[
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/{model}[/versions/{version}]/ready",
            "/healthz",
        ],
    ),
    (
        Right::Control,
        &[
            "/v2/repository[/{repository}]/models/{model}/load",
            "/v2/repository[/{repository}]/models/{model}/unload",
        ],
    ),
    (
        Right::Regions,
        &[
            "/v2/systemsharedmemory[/region/{region}]/status",
            "/v2/systemsharedmemory[/region/{region}]/register",
            "/v2/systemsharedmemory[/region/{region}]/unregister",
            "/v2/cudasharedmemory[/region/{region}]/status",
            "/v2/cudasharedmemory[/region/{region}]/register",
            "/v2/cudasharedmemory[/region/{region}]/unregister",
        ],
    ),
    (
        Right::Settings,
        &[
            "/v2/models/{model}[/versions/{version}]/trace/setting",
            "/v2/trace/setting",
            "/v2/logging",
        ],
    ),
];

/// The rights that paths need.
pub(super) type Needs = FxHashMap<String, Right>;

/// What gRPC methods need, by the path of a request.
pub(super) fn methods() -> Needs {
    let paths = METHODS.iter().flat_map(|(right, service, methods)| {
        methods
            .iter()
            .map(move |method| (format!("/{service}/{method}"), *right))
    });
    paths.collect()
}

/// What HTTP routes need, by the template that the router matched.
pub(super) fn routes() -> Needs {
    let templates = ROUTES.iter().flat_map(|(right, templates)| {
        let templates = templates.iter().flat_map(|template| expand(template));
        templates.map(move |template| (template, *right))
    });
    templates.collect()
}

/// A template without its optional part, and with it.
fn expand(template: &str) -> Vec<String> {
    let parts = template.split_once('[').and_then(|(before, rest)| {
        rest.split_once(']')
            .map(|(part, after)| (before, part, after))
    });
    match parts {
        Some((before, part, after)) => {
            vec![format!("{before}{after}"), format!("{before}{part}{after}")]
        }
        None => vec![template.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_path_has_one_right() {
        let methods: usize = METHODS.iter().map(|(_, _, methods)| methods.len()).sum();
        assert_eq!(super::methods().len(), methods);
        let all = ROUTES.iter().flat_map(|(_, templates)| *templates);
        let expanded: usize = all.map(|template| expand(template).len()).sum();
        assert_eq!(routes().len(), expanded);
        assert_eq!(
            routes().get("/v2/models/{model}/versions/{version}/infer"),
            Some(&Right::Infer)
        );
        assert_eq!(routes().get("/v2/"), Some(&Right::Inspect));
        assert!(routes().keys().all(|route| !route.contains(['[', ']'])));
    }

    /// The whole-system tests walk the methods and routes of the document.
    #[test]
    fn the_document_has_the_same_table() {
        let mut expected = String::new();
        for right in Right::ALL {
            let quoted = |names: &[&str]| {
                let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
                names.join(", ")
            };
            let methods = METHODS.iter().filter(|(of, _, _)| *of == right);
            let methods: Vec<_> = methods
                .map(|(_, service, methods)| format!("`{service}`: {}", quoted(methods)))
                .collect();
            let routes = ROUTES.iter().find(|(of, _)| *of == right);
            let routes = routes.map_or_else(String::new, |(_, routes)| quoted(routes));
            let methods = methods.join("; ");
            writeln!(expected, "| `{right}` | {methods} | {routes} |").unwrap();
        }
        let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/threat-model.md");
        let text = std::fs::read_to_string(document).unwrap();
        assert!(
            text.contains(&expected),
            "docs/threat-model.md should have these lines:\n{expected}"
        );
    }
}
