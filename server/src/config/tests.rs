use super::*;

fn parse(text: &str) -> Result<CheckedFile, ConfigError> {
    CheckedFile::parse(text, Path::new("adjoin.toml"))
}

#[test]
fn engines_are_kept_where_the_file_says_or_in_a_cache_directory() {
    let text = "[cuda]\nengine_cache_dir = \"/var/engines\"\ndevice = 2";
    let file = parse(text).unwrap();
    assert_eq!(file.engine_cache, Some("/var/engines".into()));
    assert_eq!((file.device(), parse("").unwrap().device()), (2, 0));
    let from = |variables: &[(&str, &str)]| {
        let found = engine_cache(|name| {
            let mut pairs = variables.iter();
            let pair = pairs.find(|(key, _)| *key == name);
            pair.map(|(_, value)| (*value).into())
        });
        found.map(|path| path.to_string_lossy().into_owned())
    };
    let user = [("XDG_CACHE_HOME", "/c"), ("HOME", "/h")];
    assert_eq!(from(&user).unwrap(), "/c/adjoin/engines");
    assert_eq!(from(&user[1..]).unwrap(), "/h/.cache/adjoin/engines");
    let service = [("CACHE_DIRECTORY", "/var/cache/adjoin:/x"), ("HOME", "/h")];
    assert_eq!(from(&service).unwrap(), "/var/cache/adjoin/engines");
    // A relative one would be somewhere else at each start.
    assert_eq!(from(&[("HOME", "h")]), None);
}

#[test]
fn a_models_section_stands_over_the_defaults() {
    let text = r#"
            [defaults]
            instances = 2
            max_queue_delay_us = 500
            [models.digits]
            max_batch_size = 16
            preferred_batch_sizes = [8, 4]
            version_policy = { specific = [3] }
            labels = { stable = 3 }
        "#;
    let file = parse(text).unwrap();
    let digits = file.model("digits").unwrap();
    let settings = digits.settings(16);
    assert_eq!((settings.instances, digits.max_batch_size), (2, Some(16)));
    assert_eq!(settings.policy.preferred_batch_sizes.as_slice(), [4, 8]);
    assert_eq!(settings.policy.max_queue_delay_ns, 500_000);
    assert_eq!(
        digits.version_policy,
        VersionPolicy::Specific { versions: vec![3] }
    );
    assert_eq!(file.model("other").unwrap().max_batch_size, None);
    let single = file.model("other").unwrap().settings(0);
    assert_eq!(
        (single.max_batch_size, single.policy),
        (0, BatchPolicy::single())
    );
}

#[test]
fn every_documented_limit_is_one() {
    let page = include_str!("../../../docs/configuration.md");
    let table = page.split("### `[limits]`").nth(1).unwrap();
    let table = table.split("\n### ").next().unwrap();
    let keys = table.lines().filter_map(|line| {
        let (key, _) = line.strip_prefix("| `")?.split_once('`')?;
        Some(key)
    });
    let text = keys.fold("[limits]\n".to_owned(), |text, key| text + key + " = 7\n");
    assert!(text.lines().count() >= 9, "{text}");
    let file = CheckedFile::parse(&text, Path::new("limits")).unwrap();
    let regions = file.region_limits;
    assert_eq!(
        (
            regions.count_max,
            regions.owner_count_max,
            regions.call_bytes_max
        ),
        (7, 7, 7)
    );
}

#[test]
fn wrong_values_and_unknown_keys_are_named() {
    for (text, word) in [
        ("[models.a]\ninstances = 0", "models.a.instances is 0"),
        (
            "[models.a]\npreferred_batch_sizes = [99]",
            "preferred_batch_sizes is [99]",
        ),
        (
            "[models.a]\nversion_policy = { latest = 0 }",
            "version_policy",
        ),
        ("[models.\"a/b\"]\n", "models is a/b"),
        ("[server]\nsocket_mode = \"9\"", "socket_mode is 9"),
        ("[models.a]\nmax_batch = 3", "unknown field `max_batch`"),
        ("[limits]\nsessions = 0", "limits.sessions is 0"),
        (
            "[limits]\nmemory_percent = 101",
            "limits.memory_percent is 101",
        ),
        ("[limits]\nmemory_percent = 300", "memory_percent"),
        ("[limits]\nmemory_percent = -1", "memory_percent"),
        ("[limits]\nconnections = 0", "limits.connections is 0"),
        ("[limits]\nmessage_bytes = 0", "limits.message_bytes is 0"),
        (
            "[access]\ntls_key = \"k\"",
            "access.tls_certificate is not there; tls_key and tls_client_ca need it",
        ),
        (
            "[access]\ntls_certificate = \"c\"",
            "access.tls_key is not there",
        ),
        (
            "[access]\ntls_client_ca = \"a\"",
            "access.tls_certificate is not there",
        ),
        (
            "[access]\ntls_client_rights = [\"infer\"]",
            "access.tls_client_ca is not there",
        ),
        (
            "[access]\ntls_certificate = \"c\"\ntls_key = \"k\"\ntls_client_ca = \"a\"\ntls_client_rights = [\"infer\", \"all\"]",
            "access.tls_client_rights is \"all\"",
        ),
        (
            "[trace]\notlp_endpoint = \"https://a:4317\"",
            "trace.otlp_endpoint is \"https://a:4317\"",
        ),
        (
            "[trace]\notlp_endpoint = \"http://\"",
            "trace.otlp_endpoint",
        ),
        ("[trace]\notlp_endpoint = \"a:4317\"", "trace.otlp_endpoint"),
        ("[trace]\nrate = -1", "-1"),
        ("[access]\ntokens = \"t\"", "unknown field `tokens`"),
        ("[defaults]\nqueue_limit = 0", "queue_limit is 0"),
        ("[models.a]\ndefault_priority = 2", "default_priority is 2"),
        ("[models.a]\nengine = \"foo\"", "engine is foo"),
    ] {
        let message = parse(text).unwrap_err().to_string();
        assert!(
            message.contains(word),
            "{message:?} should contain {word:?}"
        );
    }
}
