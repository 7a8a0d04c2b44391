#!/bin/sh
# Runs the pods of k8s/ on podman: `make test-pods`, after the images are built. What it needs from Debian is installed where
# it is missing and the user is root. A machine that cannot run pods is a reason to skip, said in one line, unless
# ADJOIN_PODS_REQUIRED is set, as in .ci/run.
set -eu
cd "$(dirname "$0")/../../.."

cannot() {
    echo "make: pods cannot be run here: $1" >&2
    [ -n "${ADJOIN_PODS_REQUIRED:-}" ] && exit 1
    echo "make: test-pods is SKIPPED" >&2
    exit 0
}

[ "$(uname -sm)" = "Linux x86_64" ] || cannot "the images are for Linux on x86-64"
[ "$(id -u)" = 0 ] || cannot "it takes root: volumes are mounted, users are switched"
if ! command -v podman >/dev/null || ! command -v runc >/dev/null || ! command -v mmdebstrap >/dev/null; then
    command -v apt-get >/dev/null || cannot "install podman, runc and mmdebstrap"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        podman runc conmon catatonit netavark aardvark-dns uidmap iptables nftables fuse-overlayfs mmdebstrap >/dev/null ||
        cannot "apt-get could not install podman, runc and mmdebstrap"
fi

${MAKE:-make} images
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
static=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/release-image
cp "$static/adjoin-test-client" "$context/"
podman build --quiet --network none --pull-never --file k8s/test/pods/Containerfile \
    --tag localhost/adjoin-test-client:test "$context" >/dev/null

tools=${ADJOIN_K8S_TOOLS:-$PWD/target/k8s}
export ADJOIN_K8S_TOOLS="$tools"
"$tools/venv/bin/python" -m pytest --quiet "$@" k8s/test/pods
