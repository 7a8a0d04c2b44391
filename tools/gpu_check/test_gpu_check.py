"""Tests of the parts of tools/gpu-check that need no driver. The steps are walked by `tools/gpu-check --dry-run`."""

import json
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from gpu_check import bundle, fatbin, report, steps

COMMAND = Path(__file__).resolve().parent.parent / "gpu-check"


def place(**changed) -> steps.Place:
    fields = {
        "device_program": Path("/nonexistent/gpu_check"),
        "tests": [],
        "environment": {"PATH": "/usr/bin:/bin"},
        "library_path": "",
        "is_quick": True,
        "end_to_end": None,
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
        skipped = [steps.take(s, place()) for s in steps.STEPS if s.name in ("tests on this driver", "16 clients end to end")]
        self.assertEqual({r.outcome for r in skipped}, {steps.Outcome.SKIPPED})
        self.assertTrue(all(r.reason for r in skipped))

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


if __name__ == "__main__":
    unittest.main()
