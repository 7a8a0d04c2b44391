#!/bin/sh
# Makes adjoin.ptx of adjoin.cu, with the CUDA compiler from PyPI: no CUDA toolkit is needed.
#
#   build.sh OUT [TOOLS]     writes OUT/adjoin.ptx; TOOLS (default: target/kernels) keeps the compiler between runs
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${1:?"usage: build.sh OUT [TOOLS]"}
tools=${2:-target/kernels}
python=${PYTHON:-python3}

if ! cmp -s "$here/requirements.txt" "$tools/requirements.txt"; then
    rm -rf "$tools"
    mkdir -p "$tools"
    "$python" -m venv "$tools/venv"
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$tools/requirements.txt"
fi

prefix=$("$tools/venv/bin/python" -c 'import nvidia, os; print(os.path.join(list(nvidia.__path__)[0], "cu13"))')
mkdir -p "$out"
# compute_75 is the oldest architecture that this compiler knows. It writes PTX of its own version, which only drivers
# of its age read. The kernels use nothing of it that version 8.0 (driver 525) lacks; ptxas checks that. The line that
# names the compiler's build is no part of the kernels.
CUDA_HOME=$prefix "$prefix/bin/nvcc" -ptx -arch=compute_75 -O3 -std=c++17 -o "$tools/adjoin.ptx" "$here/adjoin.cu"
sed -e '/^\/\/ Compiler Build ID/d' -e 's/^\.version .*/.version 8.0/' "$tools/adjoin.ptx" >"$out/adjoin.ptx"
for architecture in sm_75 sm_90; do
    "$prefix/bin/ptxas" -arch="$architecture" -o "$tools/adjoin.cubin" "$out/adjoin.ptx"
done
