#!/bin/sh
# Makes DIR/venv with the pinned packages, and DIR/onnxruntime/libonnxruntime.so, a link into it.
set -eu
dir=$1
here=$(dirname "$0")
python=${PYTHON:-python3}

[ -x "$dir/venv/bin/python" ] || "$python" -m venv "$dir/venv"
"$dir/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" || {
    echo "tools/fetch.sh: pip could not install tools/requirements.txt; is PyPI, or a mirror of it, within reach?" >&2
    exit 1
}

library=$("$dir/venv/bin/python" - <<'PYTHON'
import glob, importlib.util, os
root = os.path.dirname(importlib.util.find_spec("onnxruntime").origin)
found = sorted(glob.glob(os.path.join(root, "capi", "libonnxruntime.so*")))
print(found[-1] if found else "")
PYTHON
)
[ -n "$library" ] || { echo "tools/fetch.sh: the onnxruntime package holds no libonnxruntime.so" >&2; exit 1; }
mkdir -p "$dir/onnxruntime"
ln -sf "$library" "$dir/onnxruntime/libonnxruntime.so"
