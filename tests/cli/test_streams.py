"""Standard streams as shells, services and locales hand them over: closed, full, without a reader, not UTF-8."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.stubs import RED, stub_at

LOCALES = ["C", "POSIX", "C.UTF-8", "en_GB.UTF-8", "en_GB.ISO-8859-1"]
ODD = os.fsdecode(b"b\xe9.png")


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    return stub_at(tmp_path, "[röd, green, blue]")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a.png", ODD, "c.png"):
        Image.fromarray(np.full((40, 40, 3), RED, np.uint8)).save(folder / name)
    return folder


def shell(redirection: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """The command line in a shell, with `redirection` behind it."""
    return subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, "-m", "edge_mnv2", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
    )


@pytest.mark.slow
@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("coerced", ["1", "0"])
def test_results_can_be_written_in_every_locale(stub: Path, pictures: Path, locale: str, coerced: str) -> None:
    words = {"LC_ALL": locale, "PYTHONUTF8": coerced, "PYTHONCOERCECLOCALE": coerced}
    done = shell("", "classify", "--model", stub, pictures, "--json", **words)
    document = json.loads(done.stdout.decode("utf-8"))
    assert done.returncode == 0 and len(document["results"]) == 3
    assert {row["top"][0]["label"] for row in document["results"]} == {"röd"}
    done = shell("", "classify", "--model", stub, pictures, **words)
    assert done.returncode == 0 and done.stdout.decode("utf-8").count("röd") == 3
    done = shell("", "run", "--model", stub, "--source", pictures / ODD, "--json", **words)
    assert done.returncode == 0 and json.loads(done.stdout.decode("utf-8"))["frames"] == 1


def test_a_name_that_is_no_text_comes_back_from_json(stub: Path, pictures: Path) -> None:
    done = shell("", "classify", "--model", stub, pictures / ODD, "--json")
    assert Path(json.loads(done.stdout)["results"][0]["file"]).is_file()


def test_a_terminal_without_utf8_is_no_trouble(stub: Path, pictures: Path) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "edge_mnv2", "classify", "--model", str(stub), str(pictures)],
        stdout=theirs,
        stderr=subprocess.PIPE,
        timeout=120,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    os.close(theirs)
    os.close(ours)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_closed_stdin_and_stderr(stub: Path, closed: str) -> None:
    done = shell(closed, "run", "--model", stub, "--source", "test", "--max-frames", 3, "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["frames"] == 3


def test_a_closed_stdout_that_nothing_is_written_to(stub: Path) -> None:
    done = shell(">&-", "run", "--model", stub, "--source", "test", "--max-frames", 3)
    assert done.returncode == 0 and b"3 frames" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", [">&-", ">/dev/full"])
@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("--help",),
        ("models", "list"),
        ("run", "--model", "STUB", "--source", "test", "--max-frames", "3", "--json"),
        ("run", "--model", "STUB", "--source", "test", "--max-frames", "3", "--log", "-"),
        ("classify", "--model", "STUB", "PICTURES"),
        ("classify", "--model", "STUB", "PICTURES", "--json"),
    ],
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_results_that_cannot_be_written(
    stub: Path, pictures: Path, where: str, arguments: tuple[str, ...], unbuffered: str
) -> None:
    places = {"STUB": str(stub), "PICTURES": str(pictures)}
    done = shell(where, *(places.get(word, word) for word in arguments), PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 8 and done.stdout == b""
    assert done.stderr.decode().count("stdout cannot be written") == 1
    assert b"unexpected" not in done.stderr and b"Exception" not in done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("classify", "--help"), ("models", "list"), ("devices", "list")])
def test_a_reader_that_went_away_is_no_error_to_tell(arguments: tuple[str, ...]) -> None:
    end, begin = os.pipe()
    os.close(end)
    done = subprocess.run([sys.executable, "-m", "edge_mnv2", *arguments], stdout=begin, stderr=subprocess.PIPE)
    os.close(begin)
    assert done.returncode == 0 and done.stderr == b""


@pytest.mark.parametrize("megabytes", [150, 200, 250])
def test_little_memory_is_one_sentence(megabytes: int) -> None:
    command = f"ulimit -v {megabytes * 1024}; exec {sys.executable} -m edge_mnv2 run --source test --max-frames 2"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 or "memory" in done.stderr, done.stderr
    assert "unexpected" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("ends", ["main()", "raise SystemExit(str(app._no_space(OSError(28, 'full', '/data/x'))))"])
def test_a_disk_without_any_space_is_one_sentence(ends: str) -> None:
    """Then there is no folder for files in between either; to say so takes none."""
    code = (
        "import resource, sys, edge_mnv2.cli.app as app\n"
        "from edge_mnv2.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        f"sys.argv[1:] = ['service', 'install', '--dry-run', '--source', 'test']\n{ends}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "free some" in done.stderr, done.stderr
    assert "unexpected" not in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("started", [0, 1, 2])
def test_too_few_threads_are_one_sentence(started: int, stub: Path) -> None:
    """As under `ulimit -u` or a container's limit, which root is not held to."""
    code = (
        "import itertools, sys, threading\n"
        f"start, count = threading.Thread.start, itertools.count()\n"
        "def limited(thread):\n"
        f'    if next(count) >= {started}: raise RuntimeError("can\'t start new thread")\n'
        "    start(thread)\n"
        "threading.Thread.start = limited\n"
        "from edge_mnv2.__main__ import main\n"
        "sys.argv[1:] = ['run', '--source', 'test', '--max-frames', '2', '--web', '0', '--model', sys.argv[1]]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, stub], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "no more threads may be started" in done.stderr, done.stderr
    assert "unexpected" not in done.stderr and "Traceback" not in done.stderr


def test_the_file_that_stdout_goes_to_may_be_the_lesson_s_own(tmp_path: Path) -> None:
    """`teach --out x.tflite --json > x.json`: the shell has made x.json already."""
    code = "import pathlib, edge_mnv2.teach.teach_run as t; t.check_out(pathlib.Path('x.tflite'))"
    for redirected, expected in (("x.json", 0), ("y.json", 1)):
        (tmp_path / "x.json").touch()
        with (tmp_path / redirected).open("w") as out:
            done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, stdout=out, stderr=subprocess.DEVNULL)
        assert done.returncode == expected
