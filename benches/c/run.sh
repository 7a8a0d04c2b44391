#!/bin/sh
# A call through the C library beside one through the Rust client, on one server, in turns: `benches/c/run.sh`.
# Needs target/release (cargo build --release -p adjoin -p adjoin-c), target/models (make models), ONNX Runtime and a C compiler.
set -eu
cd "$(dirname "$0")/../.."
rounds=${ROUNDS:-5}
seconds=${SECONDS_EACH:-2}
model=${MODEL:-mlp}
work=$(mktemp -d)
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT

cc -std=c11 -O2 -D_GNU_SOURCE -Iclient/c/include benches/c/infer.c target/release/libadjoin.a \
    -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc -o "$work/infer"
mkdir "$work/models"
ln -s "$PWD/target/models/$model" "$work/models/$model"
printf '[defaults]\nintra_op_threads = 1\n' >"$work/adjoin.toml"
target/release/adjoin serve --model-repository "$work/models" --socket-dir "$work/run" --config "$work/adjoin.toml" \
    2>"$work/log" &
server=$!
until target/release/adjoin health --socket-dir "$work/run" >/dev/null 2>&1; do
    kill -0 $server || { cat "$work/log" >&2; exit 1; }
    sleep 0.1
done

echo "$model, one client, one request at a time; medians in us"
echo "C      Rust"
for _ in $(seq "$rounds"); do
    c=$("$work/infer" "$work/run" "$model" "$seconds" | cut -d' ' -f1)
    rust=$(target/release/adjoin bench "$model" --socket-dir "$work/run" --threads 1 --seconds "$seconds" --json |
        sed -n 's/.*"p50_us": *\([0-9.]*\).*/\1/p' | head -1)
    echo "$c   $rust"
done
