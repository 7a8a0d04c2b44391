#!/bin/sh
# Builds the images with podman, offline but for Debian's packages of the onnxruntime image:
#   k8s/image/build.sh [PREFIX [TAG]]     PREFIX/adjoin, adjoin-onnxruntime, adjoin-csi and what the demo has
# PREFIX is localhost unless given, TAG the release. Needs `make image-binaries` before, as the Makefile does, and
# mmdebstrap for the base of the onnxruntime image, unless BASE names an image with glibc and libstdc++.
set -eu
cd "$(dirname "$0")/../.."
prefix=${1:-localhost}
tag=${2:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)}
target=${CARGO_TARGET_DIR:-target}
static=$target/x86_64-unknown-linux-gnu/release-image
dynamic=$target/release-image
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT

mkdir -p "$context/static" "$context/dynamic" "$context/models/digits/1"
cp "$static/adjoin" "$static/adjoin-csi" "$static/examples/digits" "$context/static/"
cp demo/digits/model.onnx "$context/models/digits/1/"
build() {
    podman build --quiet --network none --pull-never --file k8s/image/Containerfile --target "$1" \
        --build-arg "BASE=${3:-scratch}" --tag "$prefix/$2:$tag" "$context" >/dev/null
}
build static adjoin
build csi adjoin-csi
build client adjoin-demo-client
build models adjoin-demo-models

if [ -x "$dynamic/adjoin" ]; then
    base=${BASE:-localhost/adjoin-base:$tag}
    if [ -z "${BASE:-}" ] && ! podman image exists "$base"; then
        # Of the system that the command was built on: its C library is at least as new as the command needs.
        suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
        mmdebstrap --quiet --variant=extract --include=libc6,libgcc-s1,libstdc++6 "$suite" "$context/base.tar"
        podman import --quiet "$context/base.tar" "$base" >/dev/null
        rm "$context/base.tar"
    fi
    cp "$dynamic/adjoin" "$context/dynamic/"
    cp -L "${ADJOIN_ONNXRUNTIME:-target/tools/onnxruntime/libonnxruntime.so}" "$context/dynamic/libonnxruntime.so"
    build onnxruntime adjoin-onnxruntime "$base"
fi
podman images --filter "reference=$prefix/adjoin*:$tag" --format '{{.Repository}}:{{.Tag}} {{.Size}}'
