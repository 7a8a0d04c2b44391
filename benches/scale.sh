#!/bin/sh
# What a request and a session cost as sessions become more: 1, 4, 16, 64 and 256 of them in closed loop, mlp, a
# million requests and more in all. Writes benches/results/scale.json, one object a line: lines of adjoin-loadgen
# (see benches/loadgen/README.md), and a line of kind "summary" for each, with the memory of the server that each
# session takes: by how much its heaps and stacks are larger than after a few sessions that have ended. Regions are
# not counted in it, nor are the program's own pages, of which other processes may have a part.
#
# Needs: make models; cargo build --release -p adjoin -p adjoin-loadgen; ADJOIN_ONNXRUNTIME. Takes half a minute.
# Environment: ADJOIN, LOADGEN, MODELS, SECONDS_EACH (4), SESSIONS ("1 4 16 64 256").
set -eu
cd "$(dirname "$0")/.."
. benches/servers.sh
seconds=${SECONDS_EACH:-4}

# Heaps and stacks of the server, in bytes.
anonymous_bytes() {
    awk '/^Pss_Anon:/ { print $2 * 1024 }' "/proc/$server/smaps_rollup"
}

begin_results scale.json
requests=0
for sessions in ${SESSIONS:-1 4 16 64 256}; do
    # A server of its own each: memory that sessions leave behind must not count for the next.
    serve "scale-$sessions" mlp "[limits]
sessions = 512
[defaults]
intra_op_threads = 1"
    # Sessions that come and go: what the first ones need once, such as room for batches, is not what each one
    # needs.
    "$loadgen" run --target "adjoin:$home/scale-$sessions" --model mlp --input input:FP32:1,128 --clients 4 \
        --seconds 0.5 --warmup 0.1 > /dev/null
    without=$(anonymous_bytes)
    record run --target "adjoin:$home/scale-$sessions" --model mlp --input input:FP32:1,128 \
        --clients "$sessions" --threads-per-process 64 --server-pid "$server" --seconds "$seconds" \
        --note experiment=scale
    of() {
        printf '%s' "$lines" | number "$1"
    }
    with=$(of server_pss_anonymous_bytes)
    requests=$(calculate "$requests + $(of requests)")
    printf '{"kind":"summary","experiment":"scale","sessions":%s,"requests":%s,"requests_so_far":%s,"requests_per_s":%s,"server_cpu_us_per_request":%s,"client_cpu_us_per_request":%s,"server_wakeups_per_request":%s,"client_wakeups_per_request":%s,"server_bytes_per_session":%s,"region_bytes_per_session":%s}\n' \
        "$sessions" "$(of requests)" "$requests" "$(of requests_per_s)" "$(of server_cpu_us_per_request)" \
        "$(of client_cpu_us_per_request)" "$(of server_wakeups_per_request)" "$(of client_wakeups_per_request)" \
        "$(calculate "($with - $without) / $sessions")" "$(calculate "$(of region_bytes) / $sessions")" \
        >> "$out.part"
    kill "$server"
    wait "$server" || true
    servers=""
done
end_results
