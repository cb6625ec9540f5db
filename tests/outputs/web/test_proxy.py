"""The page behind a proxy: nginx and Caddy as contrib/ has them, with a path and TLS or without, in a real browser.

With `EDGE_MNV2_SCREENSHOTS=DIR` what the browser shows is kept there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
import trustme

from tests.outputs.web.browser import chromium, tab
from tests.outputs.web.conftest import Served, serving
from tests.outputs.web.test_page import _SHOWN, _moves, _pause_acts, _threshold_acts
from tests.stubs import free_port

CONTRIB = Path(__file__).parents[3] / "contrib"
EXAMPLES = {"nginx": CONTRIB / "nginx/edge-mnv2.conf", "caddy": CONTRIB / "caddy/Caddyfile"}
TOKEN = "open sesame"
_SHOTS = os.environ.get("EDGE_MNV2_SCREENSHOTS")


@contextlib.contextmanager
def proxied(proxy: str, served: Served, folder: Path, *, path: str, tls: bool) -> Iterator[str]:
    """The example of `proxy` with its places moved; the address of the page behind it."""
    program = shutil.which(proxy) or shutil.which(proxy, path="/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.skip(f"no {proxy} here (apt-get install {proxy})")
    port = free_port()
    if tls:
        cert = trustme.CA().issue_cert("localhost")
        cert.private_key_pem.write_to_path(folder / "key.pem")
        (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in cert.cert_chain_pems))
    text = EXAMPLES[proxy].read_text().replace("127.0.0.1:8080", f"127.0.0.1:{served.port}")
    command = (_nginx if proxy == "nginx" else _caddy)(text, folder, port, path, tls)
    with (folder / "error.log").open("a") as log:
        process = subprocess.Popen([program, *command], stderr=log, env={**os.environ, "HOME": str(folder)})
    try:
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline and process.poll() is None, (folder / "error.log").read_text()
            time.sleep(0.05)
        yield f"{'https' if tls else 'http'}://localhost:{port}{path}"
    finally:
        process.terminate()
        process.wait(10)


def _nginx(text: str, folder: Path, port: int, path: str, tls: bool) -> list[str]:
    text = text.replace("location /cam/", f"location {path}")
    if tls:
        text = re.sub(r"ssl_certificate /\S+;", f"ssl_certificate {folder}/cert.pem;", text)
        text = re.sub(r"ssl_certificate_key /\S+;", f"ssl_certificate_key {folder}/key.pem;", text)
        text = text.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
    else:
        text = re.sub(r"ssl_certificate\S* \S+;", "", text).replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    places = "".join(
        f"{name}_temp_path {folder}/{name}; " for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid; error_log {folder}/error.log; events {{}}\nhttp {{ access_log off; {places}\n{text}}}\n"
    )
    return ["-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off; user root;"]


def _caddy(text: str, folder: Path, port: int, path: str, tls: bool) -> list[str]:
    if path == "/":
        # As the example's comment says.
        (line,) = re.findall(r"Without a path: `(.*)`", text)
        text = f"cam.example.com {{\n\t{line}\n}}\n"
    site = f"{'https' if tls else 'http'}://localhost:{port} {{"
    if tls:
        # By itself it would ask an authority on the internet.
        site += f"\n\ttls {folder}/cert.pem {folder}/key.pem"
    text = "{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text.replace("cam.example.com {", site)
    (folder / "Caddyfile").write_text(text)
    return ["run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("proxy", "path", "tls"),
    [
        *[("nginx", path, tls) for path in ("/cam/", "/") for tls in (True, False)],
        *[("caddy", "/cam/", True), ("caddy", "/", False)],
    ],
)
def test_the_page_behind_a_proxy(proxy: str, path: str, tls: bool, stub: Path, tmp_path: Path) -> None:
    """Login, style, picture, charts and controls."""
    chromium()

    async def visit(url: str) -> None:
        async with tab(tmp_path / "browser", "--ignore-certificate-errors") as page:
            await page.open(url, 1280, 900)
            await page.until("document.activeElement.id === 'token'")
            assert await page.run("getComputedStyle(document.querySelector('form')).borderRadius") != "0px", "styled"
            for token in ("not this one", TOKEN):
                await page.run("document.getElementById('token').focus()")
                await page.call("Input.insertText", text=token)
                await page.press("Enter", 13)
                if token != TOKEN:
                    await page.until("document.querySelector('[role=alert]').textContent.includes('not the token')")
            await page.until(f"document.getElementById('view') && {_SHOWN}")
            assert await page.run("location.href") == url
            await _moves(page)
            await _threshold_acts(page)
            await _pause_acts(page)
            if _SHOTS:
                kind = f"{proxy}{'-path' if path != '/' else ''}{'-tls' if tls else ''}"
                await page.screenshot(Path(_SHOTS) / f"{kind}.png")
            assert [one for one in page.complaints if "401" not in one] == []
            assert {one.split("?")[0].startswith(url) for one in page.requests} == {True}
            cookies = (await page.call("Network.getCookies"))["cookies"]
            assert [(one["path"], one["secure"]) for one in cookies] == [(path.rstrip("/") or "/", tls)]

    with (
        serving(
            *[stub, "--source", "test:640x360@30", "--web", "0", "--web-token", TOKEN, "--top-k", "3"],
            *["--web-behind", "127.0.0.1"],
        ) as served,
        proxied(proxy, served, tmp_path, path=path, tls=tls) as url,
    ):
        asyncio.run(visit(url))


def _ask(served: Served, path: str, body: Optional[Any] = None, **headers: str) -> int:
    request = urllib.request.Request(
        f"{served.url}{path}",
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}},
    )
    try:
        return int(urllib.request.urlopen(request, timeout=10).status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
def test_whose_word_counts(stub: Path) -> None:
    """A proxy that is named speaks for its visitors; anybody else's X-Forwarded-* says nothing."""
    change = {"threshold": 0.5}
    site = {"Origin": "https://cam.example.com", "X_Forwarded_Host": "cam.example.com"}
    with serving(stub, "--source", "test", "--web", "0", "--web-behind", "127.0.0.1,10.0.0.0/8") as served:
        assert _ask(served, "api/state", Host="cam.example.com") == 200
        assert _ask(served, "api/controls", change, **site) == 200
        assert _ask(served, "api/controls", change, **{**site, "Origin": "https://evil.example"}) == 403
        assert _ask(served, "api/controls", change, Sec_Fetch_Site="same-origin", Origin="https://whatever") == 200
        assert _ask(served, "api/controls", change, Sec_Fetch_Site="cross-site") == 403
    with serving(stub, "--source", "test", "--web", "0") as served:
        assert _ask(served, "api/state", Host="cam.example.com") == 403
        assert _ask(served, "api/controls", change, **site) == 403
        for host in ("[bad", "[", "]", "[::1", "a[b]c"):
            assert _ask(served, "api/state", Host=host) in (400, 403), host


@pytest.mark.slow
def test_wrong_tokens_are_each_visitor_s_own(stub: Path) -> None:
    """Behind a proxy, by IPv6 network, from another site, and all together."""
    with serving(
        *[stub, "--source", "test", "--web", "0", "--web-token", TOKEN, "--web-behind", "127.0.0.1"]
    ) as served:

        def seconds(visitor: str, token: str, **more: str) -> tuple[int, float]:
            began = time.monotonic()
            status = _ask(served, "api/state", Authorization=f"Bearer {token}", X_Forwarded_For=visitor, **more)
            return status, time.monotonic() - began

        guesses = [seconds(f"2001:db8::{number}, 127.0.0.1", "wrong-wrong") for number in range(6)]
        assert [status for status, _ in guesses] == [401] * 6 and guesses[-1][1] > 0.3, "one /64 is one visitor"
        # What another site makes the visitor's browser ask is slow, and no guess of the visitor.
        status, slow = seconds("203.0.113.10", "wrong-wrong", Sec_Fetch_Site="cross-site")
        assert status == 401 and slow > 2
        # Three guesses are free; the quickest tells, whatever else the machine does.
        for visitor in ("2001:db8:0:1::1", "203.0.113.9", "203.0.113.10"):
            assert min(seconds(visitor, "wrong-wrong") for _ in range(3)) < (401, 0.3)
        for visitor in ("2001:db8::1", "203.0.113.9"):
            assert min(seconds(visitor, TOKEN) for _ in range(3)) < (200, 0.5), "the right one always passes"


def test_the_example_names_the_options() -> None:
    for example in EXAMPLES.values():
        assert "--web-token TOKEN --web-behind 127.0.0.1" in example.read_text()
