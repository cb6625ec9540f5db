"""A run with a password in every address that it takes: what leaves it, by any way, has none of them."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.camera.stream_servers import MjpegServer
from tests.outputs.test_mqtt import Broker, Listener, until
from tests.processes import Command

CAMERA, BROKER, HOOK = "Cam/4711@x#9", "Brk:77?y/z", "Hook/55@w"


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.got.append(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.slow
def test_no_secret_leaves_a_run(stub: Path, isolated: Path, tmp_path: Path) -> None:
    broker = Broker(tmp_path)
    broker.start()
    listener = Listener(broker.port)
    hook = ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    hook.got = []  # type: ignore[attr-defined]
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    log = tmp_path / "results.jsonl"
    with MjpegServer(credentials=f"operator:{CAMERA}") as camera:
        process = Command(
            *["-v", "run", "--model", str(stub), "--json", "--web", "0"],
            *["--source", f"http://operator:{CAMERA}@127.0.0.1:{camera.port}/video?token=Query-8899"],
            *["--mqtt", f"mqtt://board:{BROKER}@127.0.0.1:{broker.port}/cam"],
            *["--webhook", f"http://me:{HOOK}@127.0.0.1:{hook.server_port}/hook/Path-6655"],
            *["--log", str(log), "--appear", "0.1", "--snapshots", str(tmp_path / "pictures")],
        )
        assert process.stderr is not None
        said, url = "", ""
        for line in process.stderr:
            said += line
            if "web page: " in line:
                url = line.split("web page: ")[1].split()[0]
            if "FPS" in line:
                break
        until(lambda: listener.of("cam/state") and hook.got)  # type: ignore[attr-defined]
        time.sleep(1)
        pages = [urllib.request.urlopen(url + path, timeout=10).read() for path in ("", "api/state", "metrics")]
        process.terminate()
        out, rest = process.communicate(timeout=20)
    hook.shutdown()
    listener.close()
    broker.kill()
    assert json.loads(out)["ended"] == "signal", said + rest
    files = [
        path.read_bytes()
        for folder in (isolated, tmp_path / "pictures")
        for path in folder.rglob("*")
        if path.is_file()
    ]
    leaving = b"\n".join([out.encode(), said.encode(), rest.encode(), log.read_bytes(), *pages, *files, *hook.got])  # type: ignore[attr-defined]
    leaving += repr(listener.messages).encode()
    for secret in ("4711", "Brk", "77?y", "Hook/55", "55@w", "Query-8899", "Path-6655", "operator"):
        assert secret.encode() not in leaving, secret
