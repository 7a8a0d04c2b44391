#!/bin/sh
# What batching does that a remote server cannot. Writes benches/results/batching.json, one object a line: lines of
# adjoin-loadgen (see benches/loadgen/README.md; `notes.experiment` says which experiment they belong to), and
# lines of kind "summary".
#
#   delay     mlp, closed loop, 1, 2, 4 and 8 clients, one request each: a server whose max_queue_delay is 5 ms,
#             compared with one of delay 0 in the same rounds. Medians, and rows of the mean batch.
#   overload  heavy, whose batch takes some milliseconds. Its capacity in closed loop, then 1.5 times as many
#             requests, in Poisson's way, each with a deadline of 60 ms, then its capacity again. Summary: part of the
#             admitted requests (those that were not refused) that met their deadline, answers in time as part of the
#             capacity, time to refusal.
#   fairness  heavy, three clients with one request each, alone and beside a client with 64 at once, in turn. Summary:
#             the 99th percentile of the three in times that one batch takes in the engine.
#
# Needs: make models; cargo build --release -p adjoin -p adjoin-loadgen; ADJOIN_ONNXRUNTIME. Takes two to three
# minutes. Environment: ADJOIN, LOADGEN, MODELS, SECONDS_EACH (5), ROUNDS (25), EXPERIMENTS ("delay overload fairness").
set -eu
cd "$(dirname "$0")/.."
. benches/servers.sh
seconds=${SECONDS_EACH:-5}
rounds=${ROUNDS:-25}
experiments=${EXPERIMENTS:-delay overload fairness}
one_thread="[defaults]
intra_op_threads = 1"
heavy_input=input:FP32:1,1024

delay() {
    serve now mlp "$one_thread"
    serve later mlp "$one_thread
max_queue_delay_us = 5000"
    for clients in 1 2 4 8; do
        record compare --model mlp --input input:FP32:1,128 --clients "$clients" --rounds "$rounds" \
            --note experiment=delay -- "adjoin:$home/now" --label delay-0 \
            -- "adjoin:$home/later" --label delay-5-ms
    done
}

serve_heavy() {
    [ -e "$home/heavy" ] || serve heavy heavy "$one_thread
max_batch_size = 16"
}

# Good answers a second of heavy under as much load as it can have, in $capacity.
measure_capacity() {
    record run --target "adjoin:$home/heavy" --model heavy --input "$heavy_input" --label capacity --clients 2 \
        --pipeline 32 --untouched --seconds "$seconds" --note experiment=overload
    capacity=$(printf '%s' "$lines" | number requests_per_s)
}

overload() {
    serve_heavy
    measure_capacity
    before=$capacity
    rate=$(calculate "1.5 * $before")
    record run --target "adjoin:$home/heavy" --model heavy --input "$heavy_input" --label overload --clients 2 \
        --mode poisson --rate "$rate" --deadline-us 60000 --in-flight-max 512 --untouched \
        --seconds "$(calculate "2 * $seconds")" --note experiment=overload
    overloaded=$lines
    of() {
        value=$(printf '%s' "$overloaded" | number "$1")
        echo "${value:-0}"
    }
    measure_capacity
    after=$capacity
    capacity=$(calculate "($before + $after) / 2")
    in_time=$(of ok_in_time)
    admitted=$(calculate "$in_time + $(of ok_late) + $(of failed)")
    printf '{"kind":"summary","experiment":"overload","capacity_per_s":%s,"capacity_before_per_s":%s,"capacity_after_per_s":%s,"rate_per_s":%s,"deadline_us":60000,"requests":%s,"refused":%s,"admitted_in_time_share":%s,"goodput_over_capacity":%s,"refusal_p50_us":%s,"refusal_p99_us":%s,"refusal_max_us":%s,"start_lag_p99_us":%s}\n' \
        "$capacity" "$before" "$after" "$rate" "$(of requests)" "$(of refused)" \
        "$(calculate "$in_time / ($admitted > 0 ? $admitted : 1)")" \
        "$(calculate "$(of goodput_per_s) / $capacity")" \
        "$(of refusal_p50_us)" "$(of refusal_p99_us)" "$(of refusal_max_us)" "$(of start_lag_p99_us)" \
        >> "$out.part"
}

# steady FLOOD [OPTION...]: the three clients with one request each, and what the options add.
steady() {
    flood=$1
    shift
    record mixed --target "adjoin:$home/heavy" --model heavy --input "$heavy_input" --untouched \
        --seconds "$seconds" --note experiment=fairness --note flood="$flood" --group name=steady,clients=3 "$@"
}

# The number under a key of the three clients.
of_steady() {
    printf '%s\n' "$lines" | head -n 1 | number "$1"
}

fairness() {
    serve_heavy
    alone=""
    flooded=""
    for _ in 1 2 3; do
        steady no
        alone="$alone $(of_steady p99_us)"
        steady yes --group name=flood,clients=1,pipeline=64
        flooded="$flooded $(of_steady p99_us)"
        batch=$(of_steady mean_execute_us)
    done
    middle() {
        printf '%s\n' "$@" | sort -g | sed -n 2p
    }
    # shellcheck disable=SC2086
    without=$(middle $alone)
    # shellcheck disable=SC2086
    with=$(middle $flooded)
    printf '{"kind":"summary","experiment":"fairness","batch_execute_us":%s,"steady_p99_us":%s,"steady_p99_with_flood_us":%s,"steady_p99_in_batches":%s,"steady_p99_with_flood_in_batches":%s,"rise_in_batches":%s}\n' \
        "$batch" "$without" "$with" "$(calculate "$without / $batch")" "$(calculate "$with / $batch")" \
        "$(calculate "($with - $without) / $batch")" >> "$out.part"
}

begin_results batching.json
for experiment in $experiments; do
    case $experiment in
        delay | overload | fairness) $experiment ;;
        *)
            echo "$0: $experiment is no experiment; there are delay, overload and fairness" >&2
            exit 2
            ;;
    esac
done
end_results
