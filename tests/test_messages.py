"""What could steer a terminal is shown and not sent, and messages that cannot be written end nothing."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import pty
import select
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2.messages import Filtered, for_people, in_place, one_line, steering, visible
from tests.processes import Command, edge_mnv2

COMMAND = [sys.executable, "-m", "edge_mnv2"]
ATTACKS = {
    "clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "false row": "\x1b[2K\x1b[1Atabby 99 %",
    "C1": "\x9b2J",
    "right to left": "cat\u202egpj.exe",
    "isolate": "\u2066x\u2069",
    "carriage return": "bad\rgood",
    "backspace": "bad\b\b\bgood",
    "line separator": "a\u2028b",
}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_every_steering_sign_becomes_visible(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable() and steering(shown) is None
    assert steering(text) is not None and str(steering(text)) in shown
    assert json.loads(f'"{shown}"') == text, "JSON reads it back"


def test_plain_text_of_any_language_stays() -> None:
    for text in ("Häuser 猫 кошка قط 👩‍👩‍👧", "a\tb\nc"):
        assert visible(text) == text and steering(text) is None
    assert one_line("a\nb 99 %") == "a\\nb 99 %"


class _Full(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


def test_messages_are_best_effort_and_results_are_not() -> None:
    stream: Any = for_people(_Full())
    stream.write("lost")
    print("lost", file=stream, flush=True)
    with pytest.raises(OSError):
        Filtered(_Full(), str, best_effort=False).write("results")


def _terminal(*words: str) -> tuple[int, str]:
    """Exit code of a command and everything that a terminal on its stdout and stderr was sent."""
    master, slave = pty.openpty()
    command, sent = Command(*words, stdout=slave, stderr=slave), b""
    os.close(slave)
    while select.select([master], [], [], 60)[0]:
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        sent += data
    os.close(master)
    text = sent.decode(errors="replace").replace("\r\n", "\n")
    # The QR code of a page brings colours of its own.
    return command.wait(10), text.replace("\x1b[30;107m", "").replace("\x1b[0m", "")


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_a_hostile_file_name(attack: str, stub: Path, data: Path, tmp_path: Path) -> None:
    """Classified, broken, not there, given to the wrong option: it never reaches the terminal as it is."""
    good = tmp_path / f"{attack.replace('/', '')}.bmp"
    shutil.copy(data / "images/cat.bmp", good)
    bad = good.with_suffix(".jpg")
    bad.write_bytes(b"no picture")
    for arguments in (
        ["classify", "--model", str(stub), str(good), str(bad), f"no{attack}"],
        ["run", "--model", str(bad), "--source", "test", "--max-frames", "1"],
        ["run", "--source", f"no{attack}"],
        ["classify", f"--{attack}"],
        ["inspect", str(bad)],
        ["devices", "show", f"no{attack}"],
    ):
        _, sent = _terminal(*arguments)
        assert sent and steering(sent) is None, (arguments[0], sent)


def test_json_keeps_a_hostile_name(stub: Path, data: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a\u202eb\x9bc.bmp"
    shutil.copy(data / "images/cat.bmp", picture)
    done = subprocess.run(
        [*COMMAND, "classify", "--json", "--model", str(stub), str(picture)], capture_output=True, text=True
    )
    assert steering(done.stdout) is None
    assert json.loads(done.stdout)["results"][0]["file"] == str(picture)


@pytest.mark.slow
@pytest.mark.parametrize("redirect", ["2>/dev/full", "2>&-", "2> >(exec true)"])
@pytest.mark.parametrize(
    "command",
    [
        "run --source test --max-frames 40 --json",
        "-v classify --json cat.bmp broken.jpg",
        "evaluate --json folder",
    ],
)
def test_stderr_that_cannot_be_written(
    redirect: str, command: str, stub: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full, closed, its reader gone: the results are the same, and so is the exit code."""
    shutil.copy(data / "images/cat.bmp", tmp_path / "cat.bmp")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    for name in ("red", "green"):
        (tmp_path / "folder" / name).mkdir(parents=True)
        shutil.copy(data / "images/cat.bmp", tmp_path / "folder" / name / "1.bmp")
    monkeypatch.chdir(tmp_path)
    command = f"{command} --model {stub}"

    def results(done: subprocess.CompletedProcess[Any]) -> tuple[int, Any]:
        document = json.loads(done.stdout)
        return done.returncode, document.get("frames", sorted(document))

    redirected = ["bash", "-c", f"{sys.executable} -m edge_mnv2 {command} {redirect}"]
    done = subprocess.run(redirected, stdout=subprocess.PIPE, timeout=60, check=False)
    assert results(done) == results(edge_mnv2(*command.split()))


@pytest.mark.parametrize("sign", ["\x1b", "\x9b", "\u202e", "\u2066"], ids=ascii)
def test_data_with_steering_signs_is_refused(sign: str, stub: Path, tmp_path: Path) -> None:
    """In a profile, a sidecar and a label file: the file and line are said, and not the sign."""
    escaped = json.dumps(f"a{sign}b")
    profile = tmp_path / "board.yaml"
    profile.write_text(f"extends: base\nmatch: {{model: {escaped}}}\n")
    labels = tmp_path / "labels.txt"
    labels.write_text(f"red\ngre{sign}en\nblue\n")
    model = tmp_path / "other.tflite"
    shutil.copy(stub, model)
    model.with_suffix(".yaml").write_text(f"labels: [red, {escaped}, blue]\n")
    cases = [
        (["run", "--source", "test", "--max-frames", "1", "--model", str(stub), "--device", str(profile)], profile),
        (["run", "--source", "test", "--max-frames", "1", "--model", str(stub), "--labels", str(labels)], labels),
        (["run", "--source", "test", "--max-frames", "1", "--model", str(model)], model.with_suffix(".yaml")),
    ]
    for arguments, file in cases:
        code, sent = _terminal(*arguments)
        assert code in (3, 6) and file.stem in sent and steering(sent) is None, sent
        assert "Traceback" not in sent


def test_a_line_that_is_logged_while_a_display_begins_or_ends_stands_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread's line inside what is drawn would move what the display takes away again."""
    written: list[str] = []

    class Screen(io.StringIO):
        def write(self, text: str) -> int:
            written.extend(text.split())
            return len(text)

    monkeypatch.setattr(sys, "stderr", Screen())
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(sys.stderr)])
    threads = []

    def log(text: str) -> None:
        threads.append(threading.Thread(target=logging.getLogger().warning, args=(text,)))
        threads[-1].start()
        threads[-1].join(0.2)

    class Display(contextlib.AbstractContextManager[None]):
        def __enter__(self) -> None:
            written.append("drawing")
            log("first")
            written.append("drawn")

        def __exit__(self, *exc: object) -> None:
            written.append("erasing")
            log("second")
            written.append("erased")

    with in_place(Display()):
        threads[0].join()
    threads[1].join()
    assert written == ["drawing", "drawn", "first", "erasing", "erased", "second"]
