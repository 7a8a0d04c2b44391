"""Tests of the parts of tools/gpu-check that need no driver. The steps are walked by `tools/gpu-check --dry-run`."""

import json
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from gpu_check import bundle, fatbin, goals, libraries, report, served, steps

COMMAND = Path(__file__).resolve().parent.parent / "gpu-check"


def place(**changed) -> steps.Place:
    fields = {
        "device_program": Path("/nonexistent/gpu_check"),
        "tests": [],
        "environment": {"PATH": "/usr/bin:/bin"},
        "library_path": "",
        "is_quick": True,
        "adjoin": "there is no command",
        "plan": None,
        "tensorrt": None,
        "onnx": None,
        "onnxruntime": "there is no library",
    }
    return steps.Place(**{**fields, **changed})


def step(*command: str, limit: int = 10) -> steps.Step:
    return steps.Step("a step", limit, lambda _: list(command))


class Bundles(unittest.TestCase):
    def setUp(self) -> None:
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.root = Path(self.temporary.name)
        # Bytes that do not compress, so that there are several pieces.
        self.files = {"one.so": bytes((i * i * 7919 >> 5) & 255 for i in range(50_000)), "two.so": b"2"}
        self.pieces = self.root / "pieces"
        self.packed = bundle.pack(self.files, self.pieces, piece_bytes=4096)

    def test_files_come_out_as_they_went_in(self) -> None:
        self.assertGreater(len(self.packed[0].pieces), 1)
        for piece in self.pieces.iterdir():
            self.assertLessEqual(piece.stat().st_size, 4096)
        for path in bundle.unpack(self.pieces, self.root / "out"):
            self.assertEqual(path.read_bytes(), self.files[path.name])

    def test_a_missing_piece_is_named(self) -> None:
        missing = self.packed[0].pieces[1]
        (self.pieces / missing).unlink()
        with self.assertRaisesRegex(bundle.BundleError, missing):
            bundle.unpack(self.pieces, self.root / "out")

    def test_a_damaged_piece_is_named(self) -> None:
        piece = self.pieces / self.packed[0].pieces[0]
        data = bytearray(piece.read_bytes())
        data[len(data) // 2] ^= 1
        piece.write_bytes(data)
        with self.assertRaisesRegex(bundle.BundleError, "one.so"):
            bundle.unpack(self.pieces, self.root / "out")

    def test_a_name_that_leads_elsewhere_is_refused(self) -> None:
        manifest = self.pieces / bundle.MANIFEST
        entries = json.loads(manifest.read_text())
        entries[0]["name"] = "../outside.so"
        manifest.write_text(json.dumps(entries))
        with self.assertRaisesRegex(bundle.BundleError, "no file name"):
            bundle.unpack(self.pieces, self.root / "out")


def library(architectures: list[int]) -> bytes:
    """An ELF file with one section of GPU code, a piece of eight bytes for each architecture."""
    entries = b"".join(
        struct.pack("<HHIQIIII", fatbin.MACHINE_CODE, 0, 32, 8, 0, 0, 0, of) + bytes([of] * 8) for of in architectures
    )
    code = fatbin.CONTAINER_HEADER.pack(fatbin.CONTAINER_MAGIC, 1, 16, len(entries)) + entries
    names = b"\0" + fatbin.SECTION + b"\0.shstrtab\0"
    start, names_at = 64, 64 + len(code)
    table = names_at + len(names)
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    struct.pack_into("<Q", header, 0x28, table)
    struct.pack_into("<HHH", header, 0x3A, 64, 2, 1)

    def section(name: int, offset: int, size: int) -> bytes:
        return struct.pack("<IIQQQQ", name, 1, 0, 0, offset, size).ljust(64, b"\0")

    sections = section(1, start, len(code)) + section(len(fatbin.SECTION) + 2, names_at, len(names))
    return bytes(header) + code + names + sections


class Libraries(unittest.TestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = Path(temporary.name)

    def test_onnxruntime_is_taken_with_its_provider_only(self) -> None:
        (self.root / "libonnxruntime.so.1.31.1").touch()
        missing = libraries.onnxruntime([self.root])
        self.assertIn(libraries.CUDA_PROVIDER, str(missing))
        (self.root / libraries.CUDA_PROVIDER).touch()
        self.assertEqual(libraries.onnxruntime([self.root]), self.root / "libonnxruntime.so.1.31.1")

    def test_a_plan_for_tests_is_of_the_release_of_its_library(self) -> None:
        out = self.root / "build/adjoin-fake-nvinfer-1/out/this"
        out.mkdir(parents=True)
        (out / "libnvinfer.so.12").touch()
        library = libraries.fake_tensorrt(self.root)
        assert library is not None
        self.assertIn("tensorrt 12", libraries.fake_plan(library))
        self.assertIsNone(libraries.fake_tensorrt(out))


class Served(unittest.TestCase):
    def test_bytes_are_added_up_by_path(self) -> None:
        lines = [
            'adjoin_device_bytes_total{direction="to_device",path="direct"} 10',
            'adjoin_device_bytes_total{direction="to_host",path="direct"} 5',
            'adjoin_device_bytes_total{direction="to_device",path="staged"} 3',
            'adjoin_other{path="pageable"} 9',
        ]
        self.assertEqual(served.by_path("\n".join(lines)), {"direct": 15, "staged": 3, "pageable": 0})

    def test_a_server_that_does_not_start_is_a_failure_with_its_last_words(self) -> None:
        command = [sys.executable, "-m", "gpu_check.served", "--adjoin", "/bin/false", "--model", "/m.plan", "--variant", "a", ""]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=COMMAND.parent)
        self.assertEqual(ended.returncode, 1)
        self.assertIn("the server ended at its start with 1", ended.stderr)


class Fatbins(unittest.TestCase):
    def write(self, data: bytes) -> Path:
        file = tempfile.NamedTemporaryFile(delete=False)
        self.addCleanup(Path(file.name).unlink)
        with file:
            file.write(data)
        return Path(file.name)

    def test_code_for_other_architectures_becomes_zeros(self) -> None:
        data = library([80, 90, 120])
        pruned = fatbin.prune(self.write(data), 90)
        self.assertEqual(len(pruned), len(data))
        left = {of: pruned[at : at + size] for _, of, at, size in fatbin.entries(pruned)}
        self.assertEqual(left, {80: bytes(8), 90: bytes([90] * 8), 120: bytes(8)})

    def test_a_library_without_the_architecture_is_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "architecture 70"):
            fatbin.prune(self.write(library([80])), 70)

    def test_what_is_no_library_is_refused(self) -> None:
        with self.assertRaises(fatbin.NotAnElf):
            fatbin.prune(self.write(b"#!/bin/sh"), 90)


class Steps(unittest.TestCase):
    def test_figures_are_the_last_line(self) -> None:
        result = steps.take(step("/bin/sh", "-c", 'echo hello; echo \'{"deaths": 2}\''), place())
        self.assertEqual((result.outcome, result.figures), (steps.Outcome.PASSED, {"deaths": 2}))

    def test_a_failure_says_what_the_program_said(self) -> None:
        result = steps.take(step("/bin/sh", "-c", "echo no room >&2; exit 3"), place())
        self.assertEqual(result.outcome, steps.Outcome.FAILED)
        self.assertIn("ended with 3: no room", result.reason)
        self.assertFalse(report.is_good([result]))

    def test_a_step_that_does_not_end_is_ended(self) -> None:
        result = steps.take(step("/bin/sleep", "60", limit=1), place())
        self.assertEqual(result.outcome, steps.Outcome.TIMED_OUT)

    def test_a_program_that_is_not_there_is_a_failure(self) -> None:
        result = steps.take(steps.STEPS[0], place())
        self.assertEqual(result.outcome, steps.Outcome.FAILED)

    def test_what_is_skipped_says_why(self) -> None:
        without = {"tests on this driver": "no test programs", "onnxruntime-cuda": "not run: there is no library", "server": "not run: there is no command"}
        for taken in [steps.take(s, place()) for s in steps.STEPS if s.name in without]:
            self.assertEqual(taken.outcome, steps.Outcome.SKIPPED)
            self.assertIn(without[taken.name], taken.reason)

    def test_what_is_served_depends_on_what_there_is(self) -> None:
        adjoin, plan, onnx = Path("/adjoin"), Path("/m.plan"), Path("/m.onnx")
        command = steps.server(place(adjoin=adjoin, plan=plan, tensorrt=Path("/trt")))
        self.assertIn("/m.plan", command)
        self.assertIn("--tensorrt /trt", command)
        library = Path("/ort/libonnxruntime.so")
        command = steps.server(place(adjoin=adjoin, onnx=onnx, onnxruntime=library))
        self.assertIn("/m.onnx", command)
        self.assertIn("not run", steps.server(place(adjoin=adjoin, onnx=onnx)))
        command = steps.onnxruntime_cuda(place(adjoin=adjoin, onnx=onnx, onnxruntime=library))
        self.assertEqual([word for word in command if word.startswith("graphs")], ["graphs off", "graphs on"])
        self.assertIn("not run", steps.onnxruntime_cuda(place(adjoin=adjoin, onnxruntime=library)))

    def test_all_limits_together_are_below_ten_minutes(self) -> None:
        self.assertLessEqual(sum(s.limit_seconds for s in steps.STEPS), steps.TOTAL_SECONDS)

    def test_fake_figures_are_labelled(self) -> None:
        results = [steps.Result("a step", steps.Outcome.PASSED)]
        self.assertTrue(report.as_json(results, ["x"], True)["fake"])
        self.assertIn("FAKE", report.table(results, True))
        self.assertNotIn("FAKE", report.table(results, False))

    def test_fake_figures_do_not_go_where_results_are(self) -> None:
        out = COMMAND.parent.parent / "benches" / "results" / "gpu.json"
        ended = subprocess.run(
            [sys.executable, COMMAND, "--dry-run", "--out", out], capture_output=True, text=True, check=False
        )
        self.assertEqual(ended.returncode, 2)
        self.assertIn("no results", ended.stderr)


class Goals(unittest.TestCase):
    """What figures say of the goals, both ways."""

    def found(self, name: str, **figures) -> list[tuple[str, bool]]:
        results = [steps.Result(name, steps.Outcome.PASSED, figures=figures), self.ENGINE, self.COPIES]
        return [(goal.reached, goal.is_reached) for goal in goals.of(results) if "copies of 4 MiB" not in goal.what]

    SPEED = {"to_device_gbs": {"pinned_by_the_driver": 50.0}, "registered_of_pinned": 0.96}
    COPIES = steps.Result("copies by size", steps.Outcome.PASSED, figures={"sizes": [{"bytes": 602112, **SPEED}]})
    ENGINE = steps.Result(
        "engine alone", steps.Outcome.PASSED,
        figures={"engine": {"graphs": [{"rows": rows, "on_device": {"p50_us": 900.0, "runs_per_s": 1000.0}} for rows in (1, 16, 32)]}},
    )

    def test_copies_count_from_four_mebibytes_on(self) -> None:
        def sizes(share: float) -> list[steps.Result]:
            rows = [{"bytes": 1 << 20, "registered_of_pinned": 0.1}, {"bytes": 4 << 20, "registered_of_pinned": share}]
            return [steps.Result("copies by size", steps.Outcome.PASSED, figures={"sizes": rows})]

        self.assertEqual([(goal.reached, goal.is_reached) for goal in goals.of(sizes(0.95))], [("95.0%", True)])
        self.assertEqual([goal.is_reached for goal in goals.of(sizes(0.949))], [False])

    def test_the_best_form_of_a_gather_counts(self) -> None:
        row = {"bytes_each": 588 << 10, "copies_us": 130.0, "kernel_us": 110.0, "batched_us": 115.0, "one_copy_us": 100.0}
        self.assertEqual(self.found("gather of 32 sessions", sizes=[row]), [("1.10x", True)])
        self.assertEqual(self.found("gather of 32 sessions", sizes=[{**row, "kernel_us": 111.0}]), [("1.11x", False)])

    def test_a_latency_is_compared_with_engine_and_copy(self) -> None:
        def served(p50_us: float) -> dict:
            row = {"rows": 1, "pipeline": 1, "p50_us": p50_us}
            return {"graphs on": {"served": [row], "bytes": {"direct": 1, "staged": 0, "pageable": 0}}}

        copied = 602112 / 50.0 / 1e3
        reached = self.found("nobody sleeps", variants=served(900 + copied + 50))
        self.assertEqual(reached, [("0", True), ("50 us", True)])
        self.assertEqual(self.found("nobody sleeps", variants=served(900 + copied + 51))[1], ("51 us", False))

    def test_a_throughput_is_compared_with_a_batch_of_all_that_is_under_way(self) -> None:
        def share(rows: int, pipeline: int, requests_per_s: float) -> tuple[str, bool]:
            row = {"rows": rows, "pipeline": pipeline, "requests_per_s": requests_per_s}
            variant = {"served": [row], "bytes": {"direct": 1, "staged": 0, "pageable": 0}}
            return self.found("server", clients=16, variants={"graphs on": variant})[1]

        self.assertEqual(share(1, 1, 15_200.0), ("95.0%", True))
        self.assertEqual(share(1, 1, 15_000.0), ("93.8%", False))
        self.assertEqual(share(4, 4, 8_000.0), ("100.0%", True))

    def test_bytes_by_a_processor_are_missed_goals(self) -> None:
        variant = {"served": [], "bytes": {"direct": 1, "staged": 2, "pageable": 3}}
        self.assertEqual(self.found("server", clients=16, variants={"a": variant}), [("5", False)])

    def test_pixels_are_a_quarter(self) -> None:
        def variant(bytes_per_row: int) -> dict:
            return {"served": [], "bytes": {"direct": 1, "staged": 0, "pageable": 0}, "bytes_per_row": bytes_per_row}

        found = self.found("pixels", variants={"floats": variant(1000), "pixels": variant(255)})
        self.assertEqual(found, [("0", True), ("25.5%", True)])

    def test_what_was_not_measured_is_no_goal(self) -> None:
        self.assertEqual(goals.of([steps.Result("server", steps.Outcome.SKIPPED)]), [])


if __name__ == "__main__":
    unittest.main()
