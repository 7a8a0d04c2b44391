# What the benchmarks of whole servers share. To be sourced after `set -eu`, from the root of the repository.
# shellcheck shell=sh

adjoin=${ADJOIN:-target/release/adjoin}
loadgen=${LOADGEN:-target/release/adjoin-loadgen}
models=${MODELS:-target/models}
home=$(mktemp -d "${TMPDIR:-/tmp}/adjoin-bench-XXXXXX")
servers=""

for program in "$adjoin" "$loadgen"; do
    if [ ! -x "$program" ]; then
        echo "$0: $program is not there; build it: cargo build --release -p adjoin -p adjoin-loadgen" >&2
        rmdir "$home"
        exit 1
    fi
done

# Ends what was started, in order. A script that does more at its end calls it there.
end_servers() {
    # shellcheck disable=SC2086
    [ -z "$servers" ] || kill $servers 2>/dev/null || true
    wait
    rm -rf "$home"
}
trap end_servers EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# serve NAME MODEL CONFIG: a server of one model, with lines of configuration. Its sockets are in $home/NAME, its
# number is in $server.
serve() {
    mkdir -p "$home/$1.models"
    if [ ! -e "$models/$2" ]; then
        echo "$0: $models has no model $2; make it: make models" >&2
        exit 1
    fi
    ln -s "$(cd "$models" && pwd)/$2" "$home/$1.models/$2"
    printf '%s\n' "$3" > "$home/$1.toml"
    "$adjoin" serve --model-repository "$home/$1.models" --socket-dir "$home/$1" --config "$home/$1.toml" \
        2> "$home/$1.log" &
    server=$!
    servers="$servers $server"
    until "$adjoin" health --socket-dir "$home/$1" > /dev/null 2>&1; do
        if ! kill -0 "$server" 2>/dev/null; then
            tail -n 1 "$home/$1.log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

# number KEY: the number under a key in a line of results on standard input.
number() {
    sed -n "s/.*\"$1\":\(-\{0,1\}[0-9.][0-9.]*\).*/\1/p"
}

# calculate EXPRESSION: what awk makes of it.
calculate() {
    awk "BEGIN { printf \"%.9g\", $1 }"
}

# Where results go until all are there.
begin_results() {
    out=benches/results/$1
    : > "$out.part"
}

end_results() {
    mv "$out.part" "$out"
    echo "written: $out"
}

# record COMMAND...: runs the load generator, keeps its lines, and leaves them in $lines.
record() {
    echo "adjoin-loadgen $*"
    command=$1
    shift
    # Where the sockets were tells nobody anything.
    lines=$("$loadgen" "$command" --json "$@" | sed "s#$home/##g")
    printf '%s\n' "$lines" >> "$out.part"
}
