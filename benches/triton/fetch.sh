#!/bin/sh
# fetch.sh DIR: makes DIR/perf_analyzer, NVIDIA's load generator from PyPI. Its program needs a newer C library than many
# systems have, so the few libraries that it uses come from Debian 13, into DIR, and are used by it alone. Needs no root;
# needs apt-get and dpkg-deb (Debian, Ubuntu), and PyPI and Debian within reach.
set -eu
dir=$1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)

fail() {
    echo "fetch.sh: $1" >&2
    exit 1
}

for tool in apt-get dpkg-deb; do
    command -v $tool >/dev/null || fail "$tool is missing; this works on Debian and Ubuntu"
done
keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r $keys ] || fail "$keys is missing; install debian-archive-keyring"

apt=$dir/apt
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$dir/debs" "$dir/root"
: >"$apt/status"
echo "deb [signed-by=$keys] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} trixie main" >"$apt/sources.list"
get() {
    apt-get -qq -o APT::Sandbox::User=root -o "Dir::State=$apt" -o "Dir::State::status=$apt/status" \
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt/cache" -o "Dir::Etc::sourcelist=$apt/sources.list" \
        -o Dir::Etc::sourceparts=/dev/null "$@"
}
get update
(cd "$dir/debs" && get download libc6 libgcc-s1 libstdc++6 libssl3t64 zlib1g)
for package in "$dir"/debs/*.deb; do
    dpkg-deb -x "$package" "$dir/root"
done

# pip takes no wheel for a C library that is newer than the system's, unless it is only unpacked.
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --only-binary=:all: \
    --platform manylinux_2_38_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
    --target "$dir/wheels" -r "$here/requirements.txt"
libraries=$dir/root/usr/lib/x86_64-linux-gnu
ln -sf "$dir"/wheels/nvidia/cuda_runtime/lib/libcudart.so.* "$libraries/libcudart.so"

cat >"$dir/perf_analyzer" <<SCRIPT
#!/bin/sh
exec "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" "$dir/wheels/perf_analyzer/bin/perf_analyzer" "\$@"
SCRIPT
chmod +x "$dir/perf_analyzer" "$dir/wheels/perf_analyzer/bin/perf_analyzer"
"$dir/perf_analyzer" --version
