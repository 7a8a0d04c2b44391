#!/bin/sh
# A request between two sleeping processes beside a bare futex round trip, with both on one core, each on its own, and
# wherever the kernel puts them: mlp, one client, nobody spins. Takes turns, ROUNDS of them. Writes
# benches/results/asleep.json, one object a line: the lines of both programs, then one of kind "summary" for each
# placement: medians over the rounds of the futex's p50, of the request's p50, of the in-process call's, and of
# (request - in-process) / futex.
#
# Needs: make models; cargo build --release -p adjoin -p adjoin-loadgen; ADJOIN_ONNXRUNTIME; two cores, taskset.
# Environment: ADJOIN, MODELS, SECONDS_EACH (2), ROUNDS (5).
set -eu
cd "$(dirname "$0")/.."
. benches/servers.sh
seconds=${SECONDS_EACH:-2}

configuration="[server]
spin_us = 0
[defaults]
intra_op_threads = 1"
serve free mlp "$configuration"
serve pinned mlp "$configuration"
# Every thread of it, so that it is as if it had been started there.
taskset --all-tasks --cpu-list --pid 0 "$server" > /dev/null

# request NAME SERVER CORES: requests of one sleeping client to a sleeping server.
request() {
    taskset --cpu-list "$3" "$adjoin" bench mlp --socket-dir "$home/$2" --model-repository "$models" --threads 1 \
        --spin-us 0 --untouched --seconds "$seconds" --json | tr -d '\n' |
        sed "s#$home/##g; s#^{#{\"kind\":\"request\",\"placement\":\"$1\",#; s#\$#\n#" >> "$out.part"
}

begin_results asleep.json
for round in $(seq "${ROUNDS:-5}"); do
    echo "round $round"
    cargo bench --quiet --locked -p adjoin-benches --bench wake -- --json >> "$out.part"
    request "wherever the kernel puts them" free 0,1
    request "on one core" pinned 0
    request "on two cores" pinned 1
done
python3 - "$out.part" <<'END'
import json, statistics, sys

lines = [json.loads(line) for line in open(sys.argv[1])]
with open(sys.argv[1], "a") as results:
    for placement in dict.fromkeys(line["placement"] for line in lines):
        of = lambda kind: [line for line in lines if (line["kind"], line["placement"]) == (kind, placement)]
        futex = [line["p50_us"] for line in of("futex")]
        through = [line["p50_us"] for line in of("request")]
        alone = [line["in_process_p50_us"] for line in of("request")]
        ratios = [(a - b) / c for a, b, c in zip(through, alone, futex)]
        summary = {"kind": "summary", "placement": placement, "rounds": len(ratios)}
        for name, values in [("futex_us", futex), ("request_us", through), ("in_process_us", alone), ("ratio", ratios)]:
            summary[name] = round(statistics.median(values), 3)
        results.write(json.dumps(summary) + "\n")
        print(summary)
END
end_results
