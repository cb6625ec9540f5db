from __future__ import annotations

import hashlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edge_mnv2.zoo.registry import DEFAULT_MODEL
from tests.processes import edge_mnv2
from tests.zoo.server import FaultyServer, in_turn, slow, team_registry, whole

SMALL = "mobilenet_v1_0.25_128_quant"


def _results(done: subprocess.CompletedProcess) -> list[dict[str, Any]]:
    return json.loads(done.stdout)["results"]


def test_from_a_mirror_then_from_the_cache(data: Path) -> None:
    mirror = str(data / "models")
    done = edge_mnv2("pull", SMALL, DEFAULT_MODEL, "--json", EDGE_MNV2_MIRROR=mirror)
    assert done.returncode == 0, done.stderr
    first, default = _results(done)
    assert first["name"] == SMALL
    assert (first["from"], first["cached"], first["bytes"]) == ("mirror", False, 525598)
    assert hashlib.sha256(Path(first["path"]).read_bytes()).hexdigest() == first["sha256"]
    assert (default["from"], default["cached"]) == ("package", True)
    again = edge_mnv2("pull", SMALL, "--json")
    assert _results(again) == [{**first, "from": "cache", "cached": True}]
    plain = edge_mnv2("pull", SMALL)
    assert plain.stdout == f"{SMALL}\t{first['path']}\n"


@pytest.mark.slow
def test_every_model_from_a_mirror_classifies_with_the_right_labels(data: Path) -> None:
    done = edge_mnv2("pull", "--all", "--json", EDGE_MNV2_MIRROR=str(data / "models"))
    assert done.returncode == 0, done.stderr
    pulled = _results(done)
    assert len(pulled) >= 7 and all("path" in row for row in pulled)
    listed = json.loads(edge_mnv2("models", "list", "--json").stdout)["models"]
    assert {row["name"]: row["path"] for row in pulled}.items() <= {row["name"]: row["path"] for row in listed}.items()
    images = [str(data / "images" / name) for name in ("cat.bmp", "bird.bmp")]
    for row in pulled:
        if row["name"].endswith("_edgetpu"):
            continue
        done = edge_mnv2("classify", "--model", row["name"], *images, "--json", "--top-k", "1")
        assert done.returncode == 0, done.stderr
        cat, bird = (result["top"][0] for result in json.loads(done.stdout)["results"])
        assert "hickadee" in bird["label"], row["name"]
        wanted = "background" if "bird" in row["name"] else "cat"
        assert wanted in cat["label"], row["name"]


@pytest.mark.slow
def test_some_fail_all_fail_and_nothing_asked(data: Path) -> None:
    done = edge_mnv2("pull", SMALL, "mobilenet_v9", "--json", EDGE_MNV2_MIRROR=str(data / "models"))
    assert done.returncode == 8
    good, bad = _results(done)
    assert good["name"] == SMALL
    assert sorted(bad) == ["error", "name"]
    assert "did you mean" in bad["error"]
    assert edge_mnv2("pull", "mobilenet_v9").returncode == 3
    assert edge_mnv2("pull").returncode == 2
    assert edge_mnv2("pull", SMALL, "--timeout", "-1").returncode == 2
    assert edge_mnv2("pull", SMALL, "--retries", "-1").returncode == 2


@pytest.mark.parametrize("as_json", [True, False])
def test_a_download_that_fails_is_one_line_and_exit_7(
    as_json: bool,
    server: FaultyServer,
    body: bytes,
    tmp_path: Path,
) -> None:
    server.answer = lambda handler, turn: handler.reply(b"<html><title>Sign in</title>")
    registry = team_registry(tmp_path, body, f"{server.url}/parts.tflite")
    done = edge_mnv2("pull", "parts", *(["--json"] if as_json else []), EDGE_MNV2_REGISTRY=str(registry))
    assert done.returncode == 7
    assert [line for line in done.stderr.splitlines() if "Sign in" in line] == [done.stderr.splitlines()[-1]]
    assert "Traceback" not in done.stderr
    if as_json:
        assert "Sign in" in _results(done)[0]["error"]
    else:
        assert done.stdout == ""


@pytest.mark.slow
def test_retries_and_patience_are_the_users_choice(
    server: FaultyServer,
    body: bytes,
    tmp_path: Path,
) -> None:
    registry = team_registry(tmp_path, body, f"{server.url}/parts.tflite")
    server.answer = lambda handler, turn: handler.reply(b"", 503)
    done = edge_mnv2("pull", "parts", "--retries", "1", EDGE_MNV2_REGISTRY=str(registry))
    assert (done.returncode, len(server.requests)) == (7, 2)
    server.answer = slow(body[:20], 40.0)
    done = edge_mnv2("pull", "parts", "--timeout", "0.5", "--retries", "0", EDGE_MNV2_REGISTRY=str(registry))
    assert done.returncode == 7


@pytest.mark.slow
def test_progress_is_for_terminals_only(server: FaultyServer, body: bytes, tmp_path: Path) -> None:
    registry = team_registry(tmp_path, body, f"{server.url}/parts.tflite")
    server.answer = in_turn(slow(body, 0.6), whole(body))
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_mnv2", "pull", "parts", "--json"],
        stdout=subprocess.PIPE,
        stderr=child,
        env={**os.environ, "EDGE_MNV2_REGISTRY": str(registry)},
    )
    os.close(child)
    shown = b""
    while True:
        try:
            piece = os.read(parent, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    document, _ = process.communicate(timeout=30)
    os.close(parent)
    assert b" % " in shown and b"/s" in shown and b" 0:00:0" in shown
    path = Path(json.loads(document)["results"][0]["path"])
    assert path.read_bytes() == body
    path.unlink()
    done = edge_mnv2("pull", "parts", EDGE_MNV2_REGISTRY=str(registry))
    assert " % " not in done.stderr and "\r" not in done.stderr
