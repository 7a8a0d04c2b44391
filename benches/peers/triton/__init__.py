"""NVIDIA Triton, as PyPI has it: the server's program inside of nvidia-pytriton."""

import shutil
import subprocess
from pathlib import Path

from ..layout import SERVING
from ..peer import BATCH_ROWS, BATCHED, READY_S, Peer, Server, Target, answers
from ..ports import HOST
from ..problems import Unavailable, one_line
from ..processes import segment_prefix
from ..workloads import MODELS

BACKEND = "inplace"
ROWS = 64
INPUTS = {
    "identity": ("TYPE_FP32", "-1"),
    "mlp": ("TYPE_FP32", "128"),
    "fullhd": ("TYPE_UINT8", "1080, 1920, 3"),
    "resnet50": ("TYPE_FP32", "3, 224, 224"),
}
OUTPUTS = {"identity": "-1", "mlp": "10", "fullhd": "10", "resnet50": "1000"}
WAYS = (
    ("gRPC", "grpc", "grpc"),
    ("gRPC, shared memory", "grpc-shm", "grpc-shm"),
    ("HTTP", "http-v2", "http"),
    ("HTTP, shared memory", "http-v2-shm", "http-shm"),
)


class Triton(Peer):
    name = "triton"
    title = "NVIDIA Triton"
    package = "nvidia-pytriton"
    settings = (
        "one CPU instance of each model, metrics off, system shared memory registered once",
        f"MLP also with dynamic_batching, max_batch_size {BATCH_ROWS}",
    )

    def version(self) -> str:
        return f"2.51 in nvidia-pytriton {super().version()}"

    def prepare(self) -> None:
        super().prepare()
        try:
            self.compile()
            self.notes.append("backend.cc: ONNX Runtime's C API on the memory Triton hands out")
        except Unavailable as problem:
            self.notes.append(f"Python backend, copies in and out: {problem}")

    @property
    def library(self) -> Path:
        return self.site.layout.built / BACKEND / f"libtriton_{BACKEND}.so"

    def compile(self) -> None:
        """Builds the backend beside this file, unless a newer library is there."""
        sources = sorted(self.folder.glob("*.cc")) + sorted(self.folder.glob("*.h"))
        newest = max(source.stat().st_mtime for source in sources)
        if self.library.is_file() and self.library.stat().st_mtime > newest:
            return
        if shutil.which("g++") is None:
            raise Unavailable("there is no g++ to build backend.cc with")
        self.library.parent.mkdir(parents=True, exist_ok=True)
        built = subprocess.run(
            ["g++", "-std=c++17", "-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
            + ["-o", self.library, self.folder / "backend.cc", "-ldl"],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            self.library.unlink(missing_ok=True)
            raise Unavailable(f"g++ cannot build backend.cc: {one_line(built.stderr)}")

    @property
    def native(self) -> bool:
        return self.library.is_file()

    def start(self) -> list[Server]:
        packages = next((self.python.parent.parent / "lib").glob("python*/site-packages"))
        program = packages / "pytriton" / "tritonserver"
        backends = self.library.parent.parent if self.native else self.python_backend(program)
        server = self.spawn(
            self.name,
            [program / "bin" / "tritonserver"]
            + [f"--model-repository={self.write_repository()}", f"--backend-directory={backends}"]
            + [f"--grpc-address={HOST}", f"--grpc-port={self.port}"]
            + [f"--http-address={HOST}", f"--http-port={self.port + 1}"]
            + ["--allow-metrics=false", "--disable-auto-complete-config"]
            + [f"--backend-config=python,shm-region-prefix-name={segment_prefix(self.site.mark)}"],
            {
                "PEERS_ONNXRUNTIME": str(self.site.onnxruntime),
                "PEERS_SERVING": str(SERVING),
                "PYTHONPATH": f"{packages}:{SERVING}",
                "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
            },
        )
        server.wait_ready(lambda: answers(self.port + 1, "/v2/health/ready"), READY_S)
        return [server]

    def python_backend(self, program: Path) -> Path:
        """A folder of backends in which the Python one finds its stub for this Python."""
        folder = self.run_folder / "backends"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(program / "backends", folder)
        version = subprocess.run(
            [self.python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        stub = program / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.is_file():
            raise Unavailable(f"its package has no Python backend for Python {version}")
        shutil.copy(stub, folder / "python")
        return folder

    def write_repository(self) -> Path:
        repository = self.run_folder / "repository"
        shutil.rmtree(repository, ignore_errors=True)
        for model in MODELS:
            self.write_model(repository, model, model, "")
        batching = "dynamic_batching { }\n"
        self.write_model(repository, "mlp" + BATCHED, "mlp", batching)
        return repository

    def write_model(self, repository: Path, served: str, model: str, batching: str) -> None:
        version = repository / served / "1"
        version.mkdir(parents=True)
        if self.native:
            (version / "model.onnx").symlink_to(self.site.model_file(model))
        else:
            shutil.copy(self.folder / "model.py", version)
        dtype, dims = INPUTS[model]
        (repository / served / "config.pbtxt").write_text(
            f'name: "{served}"\n'
            f'backend: "{BACKEND if self.native else "python"}"\n'
            f"max_batch_size: {BATCH_ROWS if batching else ROWS}\n"
            f'input [ {{ name: "input" data_type: {dtype} dims: [ {dims} ] }} ]\n'
            f'output [ {{ name: "output" data_type: TYPE_FP32 dims: [ {OUTPUTS[model]} ] }} ]\n'
            "instance_group [ { count: 1 kind: KIND_CPU } ]\n" + batching
        )

    def targets(self, model: str, batching: bool) -> list[Target]:
        return [
            Target(
                self.name,
                way,
                f"{protocol}:{HOST}:{self.port + protocol.startswith('http')}",
                self.name,
                model=served,
                setting=setting,
                python=python,
                second=protocol.startswith("http"),
            )
            for way, protocol, python in WAYS
            for served, setting in self.served(model, batching)
        ]
