"""`devices` as a person and as a script meet it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from edge_mnv2 import paths
from tests.board import trees


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


Call = Callable[..., Done]


@pytest.fixture
def call(run: Callable[..., tuple[int, str, str]]) -> Call:
    return lambda *arguments: Done(*run(*arguments))


DETECT = ("board", "profile", "arch", "os_bits", "python_bits", "cpus_usable", "memory_mb")


def _user(name: str, text: str) -> Path:
    file = paths.config_dir() / "devices" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_detect(call: Call, tmp_path: Path) -> None:
    trees.pi_4_32bit(tmp_path)
    done = call("devices", "detect", "--root", tmp_path, "--json")
    found = json.loads(done.stdout)
    assert set(DETECT) <= set(found)
    expected = ("Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4", "armv7l", 32, 32, 4, 3794)
    assert tuple(found[name] for name in DETECT) == expected
    text = call("devices", "detect", "--root", tmp_path).stdout
    assert "raspberry-pi-4 (matches Raspberry Pi 4 Model B Rev 1.4)" in text


def test_detect_says_what_limits_the_cpus(call: Call, tmp_path: Path) -> None:
    trees.container(tmp_path)
    text = call("devices", "detect", "--root", tmp_path).stdout
    assert "2 (a cgroup quota, 8 online)" in text and "docker" in text


def test_detect_of_an_empty_tree_is_null(call: Call, tmp_path: Path) -> None:
    found = json.loads(call("devices", "detect", "--root", tmp_path, "--json").stdout)
    assert found["board"] is None and found["memory_mb"] is None and found["profile"] == "generic"


def test_detect_without_a_folder(call: Call, tmp_path: Path) -> None:
    done = call("devices", "detect", "--root", tmp_path / "gone")
    assert done.code == 2
    assert done.stderr == f"edge-mnv2: error: --root {tmp_path / 'gone'}: no such folder\n"


def test_detect_this_machine(call: Call) -> None:
    assert json.loads(call("devices", "detect", "--json").stdout)["memory_mb"] > 0


def test_list(call: Call, tmp_path: Path) -> None:
    _user("lab", "extends: raspberry-pi-4\ndescription: The one in the lab\n")
    root = trees.pi_5(tmp_path).root
    document = json.loads(call("devices", "list", "--root", root, "--json").stdout)
    rows = {row["name"]: row for row in document["profiles"]}
    assert document["chosen"] == "raspberry-pi-5"
    assert [name for name, row in rows.items() if row["chosen"]] == ["raspberry-pi-5"]
    assert (rows["lab"]["from"], rows["lab"]["expected_ms"]) == ("user", 17)
    assert rows["jetson-nano"]["from"] == "packaged"
    done = call("devices", "list", "--root", root)
    lines = done.stdout.splitlines()
    assert any(line.startswith("*  raspberry-pi-5 ") for line in lines)
    assert any("The one in the lab" in line for line in lines)


def test_list_with_a_broken_profile(call: Call) -> None:
    file = _user("lab", "extends: base\nruntime:\n  threads: on\n")
    done = call("devices", "list")
    assert done.code == 6
    assert "cannot be read" in done.stdout and "raspberry-pi-4" in done.stdout
    assert done.stderr.startswith(f"edge-mnv2: error: {file}:3: runtime.threads: 'on' is not")
    assert len(done.stderr.splitlines()) == 1
    assert json.loads(call("devices", "list", "--json").stdout)["chosen"] is None


def test_show_is_the_file_itself(call: Call) -> None:
    done = call("devices", "show", "raspberry-pi-4")
    assert done.stdout == paths.packaged("devices", "raspberry-pi-4.yaml").read_text()
    own = json.loads(call("devices", "show", "raspberry-pi-4", "--json").stdout)
    assert own["extends"] == "base" and own["values"]["expected.inference_ms"] == 17
    assert own["match"]["compatible"][0] == "raspberrypi,4-model-b"


def test_show_resolved_says_where_each_value_came_from(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _user("lab", "extends: raspberry-pi-4\nruntime:\n  threads: 1\n  workers: 2\n")
    monkeypatch.setenv("EDGE_MNV2_THREADS", "2")
    monkeypatch.setenv("EDGE_MNV2_TOP_K", "7")
    done = call("devices", "show", "lab", "--resolved", "--top-k", "3", "--size", "320x240", "--json")
    document = json.loads(done.stdout)
    values = document["values"]
    assert document["extends"] == ["raspberry-pi-4", "base"]
    assert values["runtime.threads"] == {
        "value": 2, "from": "environment", "file": None, "line": None, "variable": "EDGE_MNV2_THREADS",
    }  # fmt: skip
    assert (values["output.top_k"]["value"], values["output.top_k"]["from"]) == (3, "command line")
    assert (values["camera.width"]["value"], values["camera.width"]["from"]) == (320, "command line")
    assert (values["runtime.workers"]["file"], values["runtime.workers"]["line"]) == (str(file), 4)
    assert values["runtime.workers"]["from"] == "user profile"
    assert values["expected.inference_ms"]["from"] == "packaged profile"
    assert values["expected.inference_ms"]["file"].endswith("raspberry-pi-4.yaml")
    assert values["preprocess.resize"]["from"] == "default"
    text = call("devices", "show", "lab", "--resolved").stdout
    assert f"user profile {file}:4" in text and "environment EDGE_MNV2_THREADS" in text


def test_show_tells_when_threads_are_capped(call: Call) -> None:
    done = call("devices", "show", "generic", "--resolved", "--threads", "256")
    assert "256 threads asked for" in done.stderr
    assert done.stderr.count("threads asked for") == 1


def test_show_by_path_and_by_default(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: generic\n")
    assert call("devices", "show", file).stdout == "extends: generic\n"
    assert json.loads(call("devices", "show", "--json").stdout)["name"] == "generic"
    monkeypatch.setenv("EDGE_MNV2_DEVICE", "raspberry-pi-3")
    assert json.loads(call("devices", "show", "--json").stdout)["name"] == "raspberry-pi-3"


MISTAKES = [
    (["show", "/dev/video99"], 6, "a camera is named with --camera"),
    (["show", "/dev/null"], 6, "/dev/null is not a regular file: a camera is named with --camera"),
    (["show", "raspberry-pi-44"], 6, "unknown profile 'raspberry-pi-44': did you mean raspberry-pi-4"),
    (["show", "./gone.yaml"], 6, "gone.yaml: No such file or directory"),
    (
        ["show", "generic", "--resolved", "--threads", "0"],
        2,
        "--threads: '0' is not a whole number from 1 to 256 or auto",
    ),
    (["show", "generic", "--resolved", "--threads", "10000"], 2, "--threads: '10000' is not"),
    (["show", "generic", "--resolved", "--threshold", "nan"], 2, "--threshold: 'nan' is not a number from 0 to 1"),
    (["show", "generic", "--resolved", "--size", "big"], 2, "--size: 'big' is not a size"),
    (["check", "gone.yaml"], 6, "gone.yaml: No such file or directory"),
]


@pytest.mark.parametrize("arguments, code, message", MISTAKES)
def test_mistake_is_one_line(call: Call, arguments: list[str], code: int, message: str) -> None:
    done = call("devices", *arguments)
    assert done.code == code
    assert done.stdout == ""
    assert done.stderr.startswith("edge-mnv2: error: ") and message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_check(call: Call, tmp_path: Path) -> None:
    good, bad, orphan = (tmp_path / name for name in ("good.yaml", "bad.yaml", "orphan.yaml"))
    good.write_text("extends: jetson-nano\nruntime:\n  threads: 4\n")
    bad.write_text("extends: jetson-nano\nruntime:\n  threads: 4\n  threads: 2\n")
    orphan.write_text("extends: jetson-nanoo\n")
    done = call("devices", "check", good)
    assert (done.code, done.stdout) == (0, f"{good}: ok (good < jetson-nano < base)\n")
    done = call("devices", "check", bad, good, orphan)
    assert done.code == 6
    assert f"{bad}:4: duplicate key 'threads'" in done.stderr
    assert f"{orphan}:1: extends: unknown profile 'jetson-nanoo'" in done.stderr
    assert f"{good}: ok" in done.stdout
    document = json.loads(call("devices", "check", bad, good, "--json").stdout)
    assert document["ok"] is False
    assert [row["ok"] for row in document["results"]] == [False, True]


def test_every_packaged_profile_passes_its_own_check(call: Call) -> None:
    files = sorted(paths.packaged("devices").glob("*.yaml"))
    assert len(files) >= 10
    assert call("devices", "check", *files).code == 0


def test_cameras_and_accelerators_of_a_tree(call: Call, tmp_path: Path) -> None:
    tree = trees.coral_dev_board(tmp_path)
    tree.write_all("sys/class/apex/apex_0", {"temp": 49_300, "status": "ALIVE"})
    assert json.loads(call("devices", "cameras", "--root", tmp_path, "--json").stdout) == {"cameras": []}
    document = json.loads(call("devices", "accelerators", "--root", tmp_path, "--json").stdout)
    assert [item["name"] for item in document["accelerators"]] == ["pci:0"]
    assert all({"id", "status", "detail", "fix"} <= set(row) for row in document["checks"])
    assert "pci:0" in call("devices", "accelerators", "--root", tmp_path).stdout
    assert call("devices", "cameras", "--root", tmp_path).stdout == ""


def test_starts_without_the_heavy_libraries() -> None:
    code = (
        "import sys\n"
        "from edge_mnv2.cli.app import main\n"
        "sys.argv = ['edge-mnv2', 'devices', 'list']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'numpy', 'cv2', 'ai_edge_litert', 'tflite_runtime', 'requests', 'tflite', 'rich'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
