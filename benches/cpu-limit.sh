#!/bin/sh
# Whether looking before sleeping costs anything where processor time is short: server and clients together have
# one processor, mlp in closed loop. A server and clients that look (the defaults) are compared with ones that
# always sleep, in the same rounds. Writes benches/results/cpu-limit.json, one object a line: lines of adjoin-loadgen
# (see benches/loadgen/README.md). `notes.limit` says how the processor was limited:
#
#   cgroup-v2, cgroup-v1   a quota of one processor's time in a group of its own; all processors may be used
#   pinned                 no group could be made (it needs root): all on one processor, which is another thing
#
# Needs: make models; cargo build --release -p adjoin -p adjoin-loadgen; ADJOIN_ONNXRUNTIME. Takes half a minute.
# Environment: ADJOIN, LOADGEN, MODELS, ROUNDS (8), PHASE_MS (500), CLIENTS ("1 4 16"), LIMIT (another limit than
# what is found, for example "pinned").
set -eu
cd "$(dirname "$0")/.."
. benches/servers.sh
rounds=${ROUNDS:-8}
phase_ms=${PHASE_MS:-500}
period_us=100000
group=""

# Makes a group of a hierarchy, if that can be done, and moves this shell into it.
make_group() {
    group=$1/adjoin-bench-$$
    mkdir "$group" 2>/dev/null || { group=""; return 1; }
    shift
    if ! { "$@" && echo $$ > "$group/cgroup.procs"; } 2>/dev/null; then
        rmdir "$group"
        group=""
        return 1
    fi
}

quota_v2() {
    echo "$period_us $period_us" > "$group/cpu.max"
}

quota_v1() {
    echo "$period_us" > "$group/cpu.cfs_period_us" && echo "$period_us" > "$group/cpu.cfs_quota_us"
}

leave_group() {
    end_servers
    if [ -n "$group" ]; then
        echo $$ > "${group%/*}/cgroup.procs"
        rmdir "$group"
    fi
}
trap leave_group EXIT

limit=${LIMIT:-}
if [ -z "$limit" ] && grep -qw cpu /sys/fs/cgroup/cgroup.controllers 2>/dev/null; then
    make_group /sys/fs/cgroup quota_v2 && limit=cgroup-v2
fi
if [ -z "$limit" ]; then
    for hierarchy in /sys/fs/cgroup/cpu /sys/fs/cgroup/cpu,cpuacct; do
        [ -d "$hierarchy" ] && make_group "$hierarchy" quota_v1 && limit=cgroup-v1 && break
    done
fi
if [ -z "$limit" ]; then
    echo "$0: no group for a quota could be made; all processes run on processor 0 instead" >&2
    limit=pinned
fi
if [ "$limit" = pinned ]; then
    taskset -cp 0 $$ > /dev/null
fi

serve looks mlp "[defaults]
intra_op_threads = 1"
serve sleeps mlp "[server]
spin_us = 0
[defaults]
intra_op_threads = 1"
begin_results cpu-limit.json
for clients in ${CLIENTS:-1 4 16}; do
    record compare --model mlp --input input:FP32:1,128 --clients "$clients" --rounds "$rounds" \
        --phase-ms "$phase_ms" --note experiment=cpu-limit --note limit="$limit" \
        -- "adjoin:$home/sleeps" --label spinning-off --client-spin-us 0 \
        -- "adjoin:$home/looks" --label spinning-on
done
end_results
