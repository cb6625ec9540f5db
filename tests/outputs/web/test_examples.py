"""The examples for Node-RED and curl, run against a real page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.outputs.web.conftest import Served, serving
from tests.outputs.web.test_workbench import DEFAULT, TOKEN, ask
from tests.stubs import free_port

ROOT = Path(__file__).parents[3]
FLOW: list[dict[str, Any]] = json.loads((ROOT / "examples" / "node-red-flow.json").read_text())
_CORE = {"tab", "inject", "http in", "change", "file in", "function", "http request", "debug", "http response"}
"""Every installation of Node-RED has these."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(DEFAULT, "--source", "test:320x240@5", "--web", 0, "--web-token", TOKEN) as run:
        yield run


@pytest.fixture
def environment(served: Served, data: Path) -> dict[str, str]:
    picture = str(data / "images" / "cat_720p.jpg")
    mine = {"EDGE_MNV2_PAGE": served.url, "EDGE_MNV2_TOKEN": TOKEN, "EDGE_MNV2_PICTURE": picture}
    return {**os.environ, **mine}


def test_the_flow_is_whole() -> None:
    """Nodes that every Node-RED has, each once, wired to nodes that are there; no token in it."""
    nodes = {node["id"]: node for node in FLOW}
    assert len(nodes) == len(FLOW) and {node["type"] for node in FLOW} == _CORE
    wired = {target for node in FLOW for output in node.get("wires", []) for target in output}
    assert wired <= set(nodes)
    starts = {"tab", "inject", "http in"}
    assert wired == {name for name, node in nodes.items() if node["type"] not in starts}
    assert 'Bearer " + env.get(' in json.dumps(FLOW, ensure_ascii=False).replace('\\"', '"')


@pytest.mark.skipif(shutil.which("node") is None, reason="no Node here")
def test_the_flows_functions_make_a_request_that_the_board_answers(environment: dict[str, str], data: Path) -> None:
    """The code of its nodes in Node, the request that comes of it as real HTTP."""
    code = {node["name"]: node["func"] for node in FLOW if node["type"] == "function"}
    method = next(node["method"] for node in FLOW if node["type"] == "http request")
    script = f"""
    const env = {{ get: (name) => process.env[name] }};
    const run = (text, msg) => new Function("msg", "env", text)(msg, env);
    const payload = require("fs").readFileSync(env.get("EDGE_MNV2_PICTURE"));
    const msg = run({json.dumps(code["for the board"])}, {{ payload }});
    const request = {{ method: {json.dumps(method)}, headers: msg.headers, body: msg.payload }};
    fetch(msg.url, request).then(async (answer) => {{
      msg.statusCode = answer.status;
      msg.payload = await answer.json();
      console.log(JSON.stringify(run({json.dumps(code["best class"])}, msg).payload));
    }});
    """
    done = subprocess.run(["node", "-e", script], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "cat" in json.loads(done.stdout)["label"]


@pytest.mark.slow
def test_the_flow_runs_in_node_red(environment: dict[str, str], tmp_path: Path) -> None:
    """`NODE_RED` names its program where it is not on the path (npm install node-red)."""
    program = os.environ.get("NODE_RED") or shutil.which("node-red")
    if program is None:
        pytest.skip("no Node-RED here (npm install node-red, or NODE_RED=.../red.js)")
    port = free_port()
    (tmp_path / "flows.json").write_text(json.dumps(FLOW))
    (tmp_path / "settings.js").write_text("module.exports = { uiHost: '127.0.0.1', flowFile: 'flows.json' };")
    command = [program, "--userDir", str(tmp_path), "--settings", str(tmp_path / "settings.js"), "--port", str(port)]
    command = ["node", *command] if program.endswith(".js") else command
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/look", timeout=10) as answer:
                    best = json.loads(answer.read())
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None, "Node-RED did not start"
                time.sleep(0.3)
    finally:
        process.kill()
        process.communicate()
    assert "cat" in best["label"] and 0 < best["score"] <= 1


@pytest.mark.slow
def test_the_curl_of_the_docs_runs(served: Served, data: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    shutil.copy(data / "images" / "cat_720p.jpg", tmp_path / "cup.jpg")
    page = (ROOT / "docs" / "field-loop.md").read_text()
    commands = re.findall(r"^curl [^\n]*(?:\\\n[^\n]*)*", page, re.MULTILINE)
    assert len(commands) >= 2
    for command in commands:
        line = command.replace("http://board:8080", served.url.rstrip("/"))
        done = subprocess.run(
            ["sh", "-c", line], cwd=tmp_path, env={**os.environ, "TOKEN": TOKEN}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert "error" not in said, said
        if "classify" in line:
            assert "cat" in said["top"][0]["label"]
        if "roi" in line:
            until = time.monotonic() + 120
            while ask(served, "/api/state")[1]["roi"] != [0.25, 0.25, 0.5, 0.5]:
                assert time.monotonic() < until
                time.sleep(0.1)
