#!/usr/bin/env bash
# Fetches the headers of TensorRT 11 into DIRECTORY, for the feature `tensorrt`: tools/tensorrt-headers.sh DIRECTORY
#
# NVIDIA publishes them under the Apache licence, and the crate trtx-sys carries them. Cargo downloads that one crate and
# checks it against the registry's index; nothing of it is built. Headers of another release come with that release's own
# packages (ADJOIN_TENSORRT_INCLUDE).
set -euo pipefail

crate=trtx-sys version=0.9.1+rtx1.7 headers=TRT-Enterprise-11.4
directory=${1:?directory}
# Of NvInferRuntime.h, NvInferImpl.h and NvInferVersion.h: what the shim is compiled against does not change unseen.
expected=cf56d2e94dabef024880f6eced20b14f94aace6865c503e81e0ccfd5bc2f0be4

if [ -f "$directory/NvInferRuntime.h" ]; then
	exit 0
fi
home=${CARGO_HOME:-$HOME/.cargo}
find_source() {
	# Before the first download there is no such directory.
	find "$home/registry/src" -maxdepth 2 -type d -name "$crate-$version" 2>/dev/null | head -n 1 || true
}
source=$(find_source)
if [ -z "$source" ]; then
	cargo info --registry crates-io "$crate@$version" >/dev/null
	source=$(find_source)
fi
if [ -z "$source" ]; then
	echo "tensorrt-headers: cargo did not fetch $crate $version; is there a network?" >&2
	exit 1
fi
from=$source/TensorRT-Headers
sum=$(cd "$from/$headers" && cat NvInferRuntime.h NvInferImpl.h NvInferVersion.h | sha256sum | cut -d' ' -f1)
if [ "$sum" != "$expected" ]; then
	echo "tensorrt-headers: the headers in $from have the sum $sum, expected $expected" >&2
	exit 1
fi
mkdir -p "$directory"
cp -R "$from/$headers/." "$from/cuda_runtime_api.h" "$directory/"
