"""Mistakes in a profile: each names the file, the line, the key and the value, and what to do."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Optional

import pytest

from edge_mnv2 import paths
from edge_mnv2.errors import ProfileError
from edge_mnv2.settings.profile_file import read_profile

TRAPS = [
    # (what, text of the file, line, parts of the message)
    ("unknown key", "extends: base\nruntime:\n  thread: 4\n", 3, ["'thread'", "runtime", "'4'", "threads"]),
    ("unknown section", "runtme:\n  threads: 4\n", 1, ["'runtme'", "runtime"]),
    ("lost indentation", "runtime:\nthreads: 4\n", 1, ["runtime has no keys", "indent"]),
    ("key of another section", "camera:\n  threads: 4\n", 2, ["'threads'", "runtime.threads"]),
    ("key without its section", "width: 640\n", 1, ["'width'", "camera.width"]),
    ("dotted key", "runtime.threads: 4\n", 1, ["runtime.threads", "indented below runtime:"]),
    ("section inside a section", "camera:\n  match: x\n", 2, ["match stands at the top level"]),
    ("nothing like it", "camera:\n  qqqqqq: 1\n", 2, ["'qqqqqq'", "known here", "stall_s"]),
    ("another case", "Runtime:\n  threads: 2\n", 1, ["'Runtime'", "runtime"]),
    ("duplicate key", "runtime:\n  threads: 4\n  threads: 2\n", 3, ["duplicate key 'threads'", "line 2"]),
    ("duplicate section", "runtime:\n  threads: 4\nruntime:\n  workers: 2\n", 3, ["duplicate key 'runtime'", "line 1"]),
    ("boolean for a number", "runtime:\n  threads: true\n", 2, ["runtime.threads", "'true'", "not numbers"]),
    ("boolean for a rate", "camera:\n  fps: false\n", 2, ["camera.fps", "'false'", "not numbers"]),
    ("number for a boolean", "output:\n  gate: 1\n", 2, ["output.gate", "'1'", "true or false"]),
    ("on", "output:\n  gate: on\n", 2, ["output.gate", "'on'", "true or false"]),
    ("off", "preprocess:\n  resize: off\n", 2, ["preprocess.resize", "'off'", "crop, stretch, letterbox"]),
    ("no", "camera:\n  flip: no\n", 2, ["camera.flip", "'no'", "none"]),
    ("yes", "output:\n  gate: Yes\n", 2, ["output.gate", "'Yes'"]),
    ("off for free text", "camera:\n  source: off\n", 2, ["camera.source", "'off'", "quote"]),
    ("off as a control", "camera:\n  controls:\n    AwbEnable: off\n", 3, ["camera.controls.AwbEnable", "'off'"]),
    ("leading zero", "runtime:\n  threads: 04\n", 2, ["runtime.threads", "'04'", "octal"]),
    ("octal", "runtime:\n  threads: 0o4\n", 2, ["runtime.threads", "'0o4'", "octal"]),
    ("hexadecimal", "camera:\n  width: 0x280\n", 2, ["camera.width", "'0x280'", "decimal"]),
    ("sexagesimal", "camera:\n  stall_s: 1:30\n", 2, ["camera.stall_s", "'1:30'", "base 60"]),
    ("underscores", "camera:\n  width: 1_280\n", 2, ["camera.width", "'1_280'", "underscores"]),
    ("number as text", 'runtime:\n  threads: "4"\n', 2, ["runtime.threads", "'4'", "leave the quotes out"]),
    ("rate as text", "camera:\n  fps: '30'\n", 2, ["camera.fps", "'30'", "leave the quotes out"]),
    ("turn as text", "camera:\n  rotate: '90'\n", 2, ["camera.rotate", "'90'", "leave the quotes out"]),
    ("NaN", "output:\n  threshold: .nan\n", 2, ["output.threshold", "'.nan'"]),
    ("NaN by Python's name", "output:\n  threshold: nan\n", 2, ["output.threshold", "'nan'"]),
    ("infinity", "camera:\n  stall_s: .inf\n", 2, ["camera.stall_s", "'.inf'"]),
    ("too large for a float", "camera:\n  stall_s: 1e400\n", 2, ["camera.stall_s", "'1e400'"]),
    ("a thousand digits", f"runtime:\n  threads: {'9' * 1000}\n", 2, ["runtime.threads", "999..."]),
    ("threads 0", "runtime:\n  threads: 0\n", 2, ["runtime.threads", "'0'", "1 to 256", "auto"]),
    ("threads -1", "runtime:\n  threads: -1\n", 2, ["runtime.threads", "'-1'", "1 to 256"]),
    ("threads 257", "runtime:\n  threads: 257\n", 2, ["runtime.threads", "'257'", "1 to 256"]),
    ("threads in words", "runtime:\n  threads: four\n", 2, ["runtime.threads", "'four'", "1 to 256"]),
    ("threads 2.0", "runtime:\n  threads: 2.0\n", 2, ["runtime.threads", "'2.0'", "whole number"]),
    ("threads null", "runtime:\n  threads: ~\n", 2, ["runtime.threads", "'~'", "1 to 256"]),
    ("a key without value", "runtime:\n  threads:\n", 2, ["runtime.threads has no value", "1 to 256"]),
    ("threshold above 1", "output:\n  threshold: 1.5\n", 2, ["output.threshold", "'1.5'", "0 to 1"]),
    ("smooth of 1", "output:\n  smooth: 1\n", 2, ["output.smooth", "'1'", "below 1"]),
    ("rotate by 45", "camera:\n  rotate: 45\n", 2, ["camera.rotate", "'45'", "0, 90, 180, 270"]),
    (
        "unknown delegate",
        "runtime:\n  delegate: edgetpu:bus\n",
        2,
        ["runtime.delegate", "edgetpu[:N|:usb[:N]|:pci[:N]]"],
    ),
    ("three numbers for a region", "camera:\n  roi: [0, 0, 640]\n", 2, ["camera.roi", "four numbers"]),
    ("a region without area", "camera:\n  roi: [0, 0, 0, 10]\n", 2, ["camera.roi", "area"]),
    ("a trap inside a list", "camera:\n  roi: [0, 010, 64, 64]\n", 2, ["camera.roi", "'010'", "octal"]),
    ("a number for text", "runtime:\n  model: 4\n", 2, ["runtime.model", "'4'", "quotes"]),
    ("a list for a number", "runtime:\n  threads: [1, 2]\n", 2, ["runtime.threads", "1 to 256"]),
    ("keys for a number", "runtime:\n  threads:\n    max: 4\n", 3, ["runtime.threads", "keys where a value belongs"]),
    ("a value for a section", "runtime: fast\n", 1, ["runtime", "'fast'", "keys belong"]),
    ("a list for a section", "runtime:\n  - threads: 4\n", 1, ["runtime", "a list where keys belong"]),
    ("a number to extend", "extends: 4\n", 1, ["extends", "'4'"]),
    ("two parents", "extends: [base, generic]\n", 1, ["extends", "one text"]),
    ("a bad serial", "board:\n  serial: 1234\n", 2, ["board.serial", "16 hexadecimal digits"]),
    ("a bad date", "saved:\n  date: yesterday\n", 2, ["saved.date", "'yesterday'"]),
    ("an empty file", "", None, ["empty"]),
    ("only comments", "# runtime:\n#   threads: 4\n", None, ["empty"]),
    ("only a document mark", "---\n", None, ["empty"]),
    ("a list", "- threads: 4\n", 1, ["a list"]),
    ("a word", "raspberry-pi-4\n", 1, ["'raspberry-pi-4'"]),
    ("a tab as indentation", "runtime:\n\tthreads: 4\n", 2, ["tab", "spaces"]),
    ("a tab after spaces", "runtime:\n  \tthreads: 4\n", 2, ["tab"]),
    ("a tab before a value", "runtime:\n  threads:\t4\n", 2, ["tab"]),
    ("a missing blank", "runtime:\n  threads:4\n", 1, ["runtime", "'threads:4'"]),
    ("a missing colon", "runtime\n  threads: 4\n", 2, ["not YAML"]),
    ("crooked indentation", "runtime:\n  threads: 4\n workers: 2\n", 3, ["not YAML"]),
    ("an open quote", 'runtime:\n  model: "abc\n', 3, ["not YAML"]),
    ("a control character", "runtime:\n  threads: 4\x7f\n", None, ["not YAML"]),
    ("an open bracket", "camera:\n  roi: [1, 2\n", 3, ["not YAML"]),
    ("two documents", "extends: base\n---\nextends: base\n", 2, ["second document"]),
    ("an anchor", "camera: &c\n  width: 640\n", 1, ["anchor"]),
    ("an alias", "camera:\n  width: *w\n", 2, ["alias"]),
    ("a merge key", "camera:\n  <<: {width: 640}\n", 2, ["merge key"]),
    ("a tag", "camera:\n  width: !!int '640'\n", 2, ["tag"]),
    ("a Python object", "camera: !!python/object/apply:os.system [ls]\n", 1, ["tag"]),
    ("a list as key", "? [a, b]\n: 1\n", 1, ["as a key"]),
    ("very deep nesting", "camera: " + "[" * 20_000, 1, ["nested too deeply"]),
]


@pytest.mark.parametrize("text, line, parts", [row[1:] for row in TRAPS], ids=[row[0] for row in TRAPS])
def test_trap(tmp_path: Path, text: str, line: Optional[int], parts: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ProfileError) as caught:
        read_profile(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:{line}: " if line else f"{file}: "), message
    for part in parts:
        assert part in message, message
    assert "\n" not in message and len(message) < 400 + len(str(file))
    assert caught.value.exit_code == 6


BYTES = [
    ("Latin-1", b"extends: base\ndescription: Caf\xe9\n", ":2:", "UTF-8"),
    ("UTF-16", "extends: base\n".encode("utf-16"), ":1:", "UTF-16"),
    ("a NUL", b"extends: base\n\0\n", ":2:", "control character"),
    ("an escape sequence", b"extends: \x1b[31mbase\n", ":1:", "control character"),
    ("a picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ":1:", "UTF-8"),
    ("far too large", b"# " + b"x" * 70_000, ":", "larger than"),
]


@pytest.mark.parametrize("data, where, part", [row[1:] for row in BYTES], ids=[row[0] for row in BYTES])
def test_bytes_that_are_no_profile(tmp_path: Path, data: bytes, where: str, part: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(data)
    with pytest.raises(ProfileError) as caught:
        read_profile(file)
    assert str(caught.value).startswith(f"{file}{where}") and part in str(caught.value)


def test_paths_that_are_no_profile(tmp_path: Path) -> None:
    for path, part in (
        (tmp_path, "folder"),
        (tmp_path / "missing.yaml", "No such file"),
        (Path("/dev/null"), "regular"),
    ):
        with pytest.raises(ProfileError, match=part):
            read_profile(path)


def test_what_is_fine(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(
        b"\xef\xbb\xbf# a byte-order mark, CRLF line ends, flow style, quoted words\r\n"
        b"extends: base\r\n"
        b"camera: {source: 0, width: 1280, height: 720, fps: 29.97, flip: none, roi: [0.1, 0, 0.5, 1]}\r\n"
        b'preprocess:\r\n  resize: "crop"\r\n'
        b"runtime:\r\n  threads: auto\r\n  model: 'on'\r\n"
        b"output: {gate: true, threshold: 1, top_k: 3}\r\n"
    )
    values = {key: given.value for key, given in read_profile(file).values.items()}
    assert values["camera.source"] == "0"
    assert values["camera.fps"] == 29.97
    assert values["camera.flip"] is None
    assert values["camera.roi"] == (0.1, 0.0, 0.5, 1.0)
    assert values["runtime.model"] == "on"
    assert values["output.threshold"] == 1.0
    assert read_profile(file).values["output.gate"].line == 9


def test_controls_keep_their_own_types(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "camera:\n  controls:\n    AfMode: 2\n    AwbEnable: false\n    Gain: 1.5\n"
        "    ColourGains: [1.5, 2]\n    Mode: night\n"
    )
    values = {key.rpartition(".")[2]: given.value for key, given in read_profile(file).values.items()}
    assert values == {"AfMode": 2, "AwbEnable": False, "Gain": 1.5, "ColourGains": (1.5, 2), "Mode": "night"}


def test_damaged_files_give_one_clean_error(tmp_path: Path) -> None:
    """Random damage to a good file is either still a profile or a ProfileError, never anything else."""
    chance = random.Random(20261125)
    good = paths.packaged("devices", "base.yaml").read_bytes() + b"extends: generic\nboard: {model: x}\n"
    file = tmp_path / "mine.yaml"
    refused = 0
    for _ in range(400):
        data = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data[place] = chance.randrange(256)
            elif kind == 1:
                del data[place : place + chance.randint(1, 40)]
            elif kind == 2:
                data[place:place] = chance.choice(
                    [b"\n", b"  ", b": ", b"- ", b"'", b'"', b"{", b"[", b"&a ", b"*a", b"|"]
                )
            else:
                other = chance.randrange(len(data))
                data[place:place] = data[other : other + chance.randint(1, 60)]
        file.write_bytes(bytes(data))
        try:
            read_profile(file)
        except ProfileError as error:
            refused += 1
            assert str(error).startswith(str(file))
    assert refused > 100
