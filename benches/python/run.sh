#!/bin/sh
# The figures of client/python/README.md: builds package and server in release and runs bench.py with its options.
set -eu
cd "$(dirname "$0")/../.."
venv=target/python/bench
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r benches/python/requirements.txt
cargo build --release --locked -p adjoin
VIRTUAL_ENV=$PWD/$venv "$venv/bin/maturin" develop --release --quiet -m client/python/Cargo.toml
mkdir -p benches/results
exec "$venv/bin/python" benches/python/bench.py --out benches/results/python.json "$@"
