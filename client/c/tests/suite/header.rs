//! `include/adjoin.h` is what cbindgen makes of the sources.

use crate::stage::crate_dir;

fn generated() -> String {
    let config = cbindgen::Config::from_file(crate_dir().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new()
        .with_crate(crate_dir())
        .with_config(config)
        .generate();
    let mut header = Vec::new();
    bindings.unwrap().write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn header_is_what_the_sources_say() {
    let path = crate_dir().join("include/adjoin.h");
    let generated = generated();
    if std::env::var_os("ADJOIN_WRITE_HEADER").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let checked_in = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == generated,
        "client/c/include/adjoin.h is stale: run `make header`"
    );
}
