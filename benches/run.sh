#!/bin/sh
# The figures of README: `make bench`. Writes benches/results/main.json (an object for each run) and prints what it ran.
# Each run interleaves requests through the server with the same call in-process.
set -eu
cd "$(dirname "$0")/.."
adjoin=${ADJOIN:-target/release/adjoin}
models=${MODELS:-target/models}
seconds=${SECONDS_EACH:-8}
out=benches/results/main.json
: > "$out.part"
run() {
    echo "adjoin bench $*"
    # shellcheck disable=SC2068
    "$adjoin" bench $@ --model-repository "$models" --threads 1 --seconds "$seconds" --json >> "$out.part"
}
full="--shape input=1,150528"
# Where a server's memory happens to lie makes it some hundred nanoseconds faster or slower, for as long as it lives.
for _ in 1 2 3 4 5; do run mlp; done
run mlp --spin-us 0 --server-spin-us 0
run mlp --transport grpc-signal
run mlp --transport grpc-body
run mlp --clients 4
run mlp --clients 16
run mlp --clients 16 --transport grpc-body
run identity $full --untouched
run identity $full
run identity $full --transport grpc-body
run resnet50
mv "$out.part" "$out"
echo "written: $out"
