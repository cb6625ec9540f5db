"""`python -m tests.builder.damaged_files FIRST LAST LOG`: damaged weights and models through the command line, in turn.

A child process of `test_damaged_files`, which looks for whatever would end it. In full, 2,000 files:

    python -m tests.builder.damaged_files 0 2000 /tmp/log && cut -f4 /tmp/log | sort | uniq -c
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib.util
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from edge_mnv2.cli import app
from edge_mnv2.network.network import mobilenet_v2
from tests.builder.pth_files import pth
from tests.network import seeded
from tests.stubs import colour_model
from tests.zoo.mutations import Damager

RESOLUTION = 32
_TABLES = 60_000
"""Damage to values goes unnoticed, so most of it is done where the tables are: at the front, and a ZIP's at the end."""


def bases(folder: Path) -> dict[str, tuple[list[bytes], list[Sequence[int]]]]:
    """Suffix → sound files, and in each the positions where damage matters most."""
    state = seeded.tensors(mobilenet_v2(0.1, RESOLUTION, 3).state_dict_shapes())
    zipped, stream = pth(state), pth(state, legacy=True)
    safe = seeded.write_safetensors(folder / "sound", state).read_bytes()
    header = 8 + int.from_bytes(safe[:8], "little")
    beside = {"args": argparse.Namespace(lr=0.1), "seen": collections.Counter({1: 2}), "scores": {0.5, (1, 2)}}
    checkpoint = pth(state, arranged=lambda tensors: {**beside, "model": tensors}, protocol=4)
    files: dict[str, tuple[list[bytes], list[Sequence[int]]]] = {
        ".pth": (
            [zipped, stream, checkpoint],
            [*(_ends(content) for content in (zipped, stream, checkpoint))],
        ),
        ".safetensors": ([safe], [range(header)]),
        ".tflite": ([colour_model(dtype) for dtype in ("uint8", "int8", "float32")], []),
    }
    if importlib.util.find_spec("h5py") is not None:
        from tests.builder import keras_files

        layers = [("backbone", "b", {}), ("GlobalAveragePooling2D", "g", {}), ("Dense", "predictions", {})]
        model = keras_files.config(layers, RESOLUTION)
        hdf5 = keras_files.write_h5(folder / "sound.h5", state, model).read_bytes()
        archive = keras_files.write_keras(folder / "sound.keras", state, model).read_bytes()
        files[".h5"] = ([hdf5], [_ends(hdf5)])
        files[".keras"] = ([archive], [_ends(archive)])
    return files


def _ends(content: bytes) -> list[int]:
    return [*range(_TABLES), *range(len(content) - _TABLES, len(content))]


def call(arguments: list[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch("sys.argv", ["edge-mnv2", *arguments]), contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        try:
            app.main()
            return 0, out.getvalue(), err.getvalue()
        except SystemExit as end:
            return int(end.code or 0), out.getvalue(), err.getvalue()


def outcome(arguments: list[str]) -> str:
    """ "works", "refused", or WRONG and what."""
    code, out, err = call(arguments)
    if code == 0:
        return "works"
    said = [line for line in err.splitlines() if line.startswith("edge-mnv2: ")]
    clean = code == 3 and out == "" and len(said) == 1 and "Traceback" not in err and "unexpected" not in said[0]
    return "refused" if clean and said[0].isprintable() else f"WRONG {code} {err!r}"


def main(first: int, last: int, log: str) -> None:
    with tempfile.TemporaryDirectory() as folder, open(log, "a", buffering=1) as lines:
        root = Path(folder)
        kinds = {suffix: Damager(files, bones or None) for suffix, (files, bones) in bases(root).items()}
        suffixes = list(kinds)
        for number in range(first, last):
            suffix = suffixes[number % len(suffixes)]
            kind, content = kinds[suffix].damaged(number)
            path = root / f"damaged{suffix}"
            path.write_bytes(content)
            lines.write(f"{number}\t{suffix}\t{kind}\tbegins\n")
            if suffix == ".tflite":
                found = outcome(["inspect", str(path)])
            else:
                target = str(root / "m.tflite")
                found = outcome(["build", "--weights", str(path), "--resolution", "32", "--float", "--out", target])
            lines.write(f"{number}\t{suffix}\t{kind}\t{found}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
