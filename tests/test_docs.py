"""Every command of README and docs: its options exist, and it does what it says, except where hardware is missing."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = {
    "install.sh": "installs for the user: tests/install and tests/rigs/test_install.py do that in folders of their own",
    "-m venv": "the first lines of a clone: every test runs in what they made",
    "service ": "needs systemd: tests/rigs/test_systemd.py",
    "ansible": "needs boards and Ansible: tests/outputs/web/test_fleet.py reads the files",
    "ssh ": "needs a board",
    "scp ": "needs a board",
    " train ": "minutes to hours of PyTorch: tests/train",
    "trained/": "needs what `train` wrote",
    "brought/": "stands for files of the reader's own: tests/builder/test_bring_your_model.py makes and runs them",
    "my.pth": "stands for weights of the reader's own: tests/builder",
    "--soak 30": "half an hour: tests/profiler and tests/cli/test_profile.py",
    "--all": "fetches every model: tests/zoo and tests/cli/test_pull.py",
    "kiosk.tflite": "needs what a run and a person wrote: tests/app/test_workbench.py, tests/zoo/test_versions.py",
    "edge-mnv2 review": "the same: tests/outputs/web/test_workbench.py",
    "rsync ": "needs boards",
    "board:8080": "needs a board: tests/outputs/web/test_examples.py",
    "mosquitto_": "needs a broker: tests/app/test_latest.py sends the same messages",
    "models.example": "stands for a server of the reader's own: tests/zoo",
    "/srv/models": "stands for a registry of the reader's own: tests/zoo",
    "toolkits/": "installs gigabytes of a maker's toolkit",
    "compile --target": "needs a maker's toolkit: tests/builder/test_compilers.py",
    "--target imx500": "needs a maker's toolkit: tests/builder/test_compilers.py",
    "imx500-package": "is a program of Raspberry Pi OS",
    "--delegate imx500": "needs a camera: tests/camera/test_imx500.py",
    "my_rk3588.rknn": "needs a board: tests/runtime/test_rknn.py",
    "./examples/runtime_package": "tests/runtime/test_example_package.py",
    "mobilenet_v2_1.0_192_int8": "built from 14 MB of weights: tests/builder",
    "--weights imagenet": "fetches 14 MB of weights: tests/builder",
}
"""A part of a command that is not run, and why; what runs it instead. Its options are looked at all the same."""


def shell_lines(page: Path) -> Iterator[str]:
    for block in re.finditer(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        for line in block[1].replace("\\\n", " ").splitlines():
            text = re.sub(r"\s+#\s.*", "", line).strip()
            if text and not text.startswith("#"):
                yield text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_commands_is_marked_as_shell(page: Path) -> None:
    """What is not marked would not be looked at."""
    blocks = re.findall(r"^```(\S*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    commands = re.compile(r"^(\$ |sudo |sh |\./|(\S*/)?edge-mnv2 |pip |python\S* |git |curl )", re.MULTILINE)
    assert [text for mark, text in blocks if mark not in ("sh", "python") and commands.search(text)] == []


LINES = [pytest.param(page, line, id=f"{page.stem}: {line[:60]}") for page in PAGES for line in shell_lines(page)]


def calls(line: str) -> Iterator[list[str]]:
    """The words after each `edge-mnv2` of a shell line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if set(token) <= set("&|;<>()"):
            places = [number for number, word in enumerate(words) if re.fullmatch(r"(.*/)?edge-mnv2", word)]
            if places:
                yield words[places[0] + 1 :]
            words = []
        else:
            words.append(token)


def check(words: Sequence[str]) -> None:
    """The command and its options exist and take these values. Nothing is done."""
    rest = [word for word in words if word not in ("-v", "-q", "--debug")]
    assert rest and rest[0] in COMMANDS, f"there is no command {rest[:1]}"
    name, path = rest[0], COMMANDS[rest[0]]
    module, _, attribute = path.partition(":")
    command: Any = getattr(importlib.import_module(module), attribute)
    rest = rest[1:]
    while hasattr(command, "get_command"):
        assert rest, f"{name} alone says nothing"
        name, command, rest = rest[0], command.get_command(None, rest[0]), rest[1:]
        assert command is not None, f"there is no command {name}"
    call = command.read(rest, name)
    for option in call.options:
        call.value(option)


@pytest.mark.parametrize(("page", "line"), LINES)
def test_options_exist(page: Path, line: str) -> None:
    for words in calls(line):
        check(words)


def inline() -> Iterator[tuple[str, str]]:
    """(place, command) of what stands between backticks in the pages."""
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for match in re.finditer(r"`((?:sudo )?edge-mnv2 [^`]+)`", text):
            yield page.name, " ".join(match[1].split())


@pytest.mark.parametrize(("place", "text"), sorted(set(inline())))
def test_commands_named_in_a_sentence_exist(place: str, text: str) -> None:
    """Placeholders in capitals and dots stay as they are; an option has to be one of the command's."""
    words = text.replace("...", "").removeprefix("sudo ").split()[1:]
    if words[0].isupper():
        return
    known = _names(words)
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{place}: {text}"


_PROSE = {"and", "again", "from", "on"}
"""What follows the product's name in a sentence, and is no command."""


def messages() -> Iterator[tuple[str, str]]:
    """(file, command) of what help and messages tell a person to type, `{}` standing for what a message puts in."""
    for file in sorted((ROOT / "edge_mnv2").rglob("*.py")):
        for text in _texts(ast.parse(file.read_text(encoding="utf-8"))):
            for match in re.finditer(r"edge-mnv2 ([a-z]+)[^`\n]*", text):
                if match[1] not in _PROSE:
                    command = re.split(r"[`);]|,(?= )| \.\.\.", match[0])[0]
                    yield file.name, command.strip()


def _texts(tree: ast.Module) -> Iterator[str]:
    """What a module can print: its texts without the docstrings, an f-string in one piece."""
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            silent |= {id(part) for part in ast.walk(node) if part is not node}
            if id(node) not in silent:
                yield "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent:
            yield node.value


MESSAGES = sorted({text: file for file, text in messages()}.items())


@pytest.mark.parametrize(("text", "file"), MESSAGES)
def test_commands_named_in_messages_exist(text: str, file: str) -> None:
    """With the subcommand, and options that it has."""
    words = text.split()[1:]
    assert words[0] in COMMANDS, f"{file}: there is no command {words[0]}"
    known = _names(words)
    assert [word for word in words if word.startswith("--") and word.partition("=")[0] not in known] == [], file


def _names(words: Sequence[str]) -> set[str]:
    """The options of a command, with those of `run` where it takes them too."""
    module, _, attribute = COMMANDS[words[0]].partition(":")
    command: Any = getattr(importlib.import_module(module), attribute)
    rest = list(words[1:])
    while hasattr(command, "get_command"):
        sub = command.get_command(None, rest[0]) if rest and not rest[0].startswith("-") else None
        if sub is None:
            return {"--help"}
        command, rest = sub, rest[1:]
    names = {name for parameter in command.get_params(command.make_context("x", [], resilient_parsing=True))
             for name in (*parameter.opts, *parameter.secondary_opts)}  # fmt: skip
    return names | (_names(["run"]) if command.takes_rest else set())


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A folder to work in: `photos` with a folder for each class, and `edge-mnv2` on the path."""
    folder = tmp_path_factory.mktemp("desk")
    for number, picture in enumerate(sorted((data / "imagenet-dev").glob("*.jpg"))[:6]):
        target = folder / "photos" / picture.stem.partition("_")[2]
        target.mkdir(parents=True)
        shutil.copy(picture, target / f"{number}.jpg")
    shutil.copy(data / "images/cat.bmp", folder)
    (folder / "bin").mkdir()
    program = folder / "bin/edge-mnv2"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m edge_mnv2 "$@"\n')
    program.chmod(0o755)
    return folder


def _environment(desk: Path, data: Path, tmp_path: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{desk / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "EDGE_MNV2_CACHE_DIR": str(tmp_path / "cache"),
        "EDGE_MNV2_CAMERA_BACKEND": "test",
        "EDGE_MNV2_MIRROR": str(data),
        "EDGE_MNV2_MAX_FRAMES": "5",
        "EDGE_MNV2_DURATION": "0.2",
        "EDGE_MNV2_COUNTDOWN": "0",
    }


RUN = [line for line in LINES if not any(part in f"{line.values[1]} " for part in NOT_RUN)]


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({line.values[0] for line in RUN}), ids=lambda page: page.stem)
def test_what_the_pages_say_works(page: Path, desk: Path, data: Path, tmp_path: Path) -> None:
    """In the order of the page. Any camera is the test pattern, models come from the test data, runs are short."""
    environment = _environment(desk, data, tmp_path)
    work = tmp_path / "work"
    shutil.copytree(desk / "photos", work / "photos")
    for name in ("small.tflite", "my.tflite", "kinds.tflite"):
        # What lines that are not run would have written.
        shutil.copy(ROOT / "models/mobilenet_v2_1.0_224_int8.tflite", work / name)
    lines = [str(line.values[1]) for line in RUN if line.values[0] == page]
    boards = {board for line in lines for board in ("pi4.json", "pi5.json") if board in line}
    if boards:
        measured = subprocess.run(
            ["edge-mnv2", "profile", "--json"], env=environment, capture_output=True, check=True, timeout=240
        ).stdout
        for board in boards:
            (work / board).write_bytes(measured)
    for line in lines:
        short = line.replace("0.0.0.0:8080", "127.0.0.1:0").replace("--shots 20", "--shots 4")
        short = re.sub(r"--camera(?= --|$)", "--camera 0", short)
        done = subprocess.run(
            ["sh", "-c", short], cwd=work, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-500:]}{done.stderr[-2000:]}"


def test_what_is_not_run_is_still_there() -> None:
    lines = [str(line.values[1]) for line in LINES]
    assert [part for part in NOT_RUN if not any(part in f"{line} " for line in lines)] == []
    assert [part for part in NOT_RUN_HINTS if not any(part in f"{text} " for text, _ in MESSAGES)] == []


def _kind(words: Sequence[str]) -> tuple[str, frozenset[str]]:
    """Command, subcommand and options: what a page runs need not be run again where a message says it."""
    module, _, attribute = COMMANDS[words[0]].partition(":")
    group = hasattr(getattr(importlib.import_module(module), attribute), "get_command")
    return " ".join(words[: 2 if group else 1]), frozenset(word for word in words if word.startswith("--"))


NOT_RUN_HINTS = {
    "build --out model.tflite": "fetches 14 MB of weights: tests/builder",
    "build {}{} --resolution": "what `train` says at its end: tests/cli/test_train.py",
    "--weights FILE": "stands for weights of the reader's own: tests/builder",
    "--weights best.pth": "stands for weights of the reader's own: tests/builder",
    "--against other.tflite": "stands for models of the reader's own: tests/evaluate",
    "camera.local": "needs a camera: tests/camera/test_streams.py",
    "compile --target": "needs a maker's toolkit: tests/builder/test_compilers.py",
    "models pin": "stands for a registry of the reader's own: tests/zoo",
    "kiosk.tflite": "needs versions that somebody taught: tests/zoo/test_versions.py",
    "{}@latest": "needs a registry with versions: tests/zoo",
    "--delegate": "needs an accelerator: tests/runtime/edgetpu, tests/camera/test_imx500.py",
    "--web": "waits for a person on a page: tests/outputs/web",
    "review ": "stays until it is stopped: tests/outputs/web/test_workbench.py",
    "service ": "needs systemd: tests/rigs/test_systemd.py",
    " train ": "minutes to hours of PyTorch: tests/train",
    "--all": "fetches every model: tests/zoo and tests/cli/test_pull.py",
}
"""A part of what a message says that is not run, and why."""
_NAMES = ["build", "compile", "evaluate", "models versions", "run --model"]
"""Commands that a message names without their arguments."""
_RUN_BY_PAGES = [_kind(words) for line in RUN for words in calls(line.values[1])]
HINTS = {
    _kind(text.split()[1:]): text
    for text, _ in MESSAGES
    if text.removeprefix("edge-mnv2 ") not in _NAMES
    and not any(part in f"{text} " for part in NOT_RUN_HINTS)
    and _kind(text.split()[1:]) not in _RUN_BY_PAGES
}


@pytest.mark.slow
def test_what_messages_tell_a_person_to_type_works(desk: Path, data: Path, tmp_path: Path) -> None:
    """What no page runs. A camera is the test pattern; what a message puts in is a folder of pictures."""
    work = tmp_path / "work"
    shutil.copytree(desk / "photos", work / "photos")
    shutil.copy(next(work.glob("photos/*/*.jpg")), work / "cat.jpg")
    shutil.copy(ROOT / "models/mobilenet_v2_1.0_224_int8.tflite", work / "model.tflite")
    shutil.copy(ROOT / "models/demo.mp4", work / "clip.mp4")
    shutil.copy(ROOT / "devices/raspberry-pi-4.yaml", work / "here.yaml")
    for text in HINTS.values():
        typed = re.sub(r"\{\}|\bDIR\b", "photos", text).replace("--camera", "--camera 0 --shots 4")
        done = subprocess.run(
            ["sh", "-c", typed], cwd=work, env=_environment(desk, data, tmp_path),
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{typed}\n{done.stdout[-500:]}{done.stderr[-2000:]}"
