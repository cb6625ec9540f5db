"""A real headless Chromium, driven by the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

import aiohttp
import pytest

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--no-first-run",
    "--no-proxy-server",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)


def chromium() -> str:
    """The browser, or a skip."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium here (apt-get install chromium)")
    return found


class Tab:
    """One page of the browser, and everything that it asked for or complained about."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._count = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._reader = asyncio.ensure_future(self._read())

    async def call(self, method: str, **parameters: Any) -> Any:
        self._count += 1
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[self._count] = answer
        await self._socket.send_json({"id": self._count, "method": method, "params": parameters})
        return await asyncio.wait_for(answer, 60)

    async def open(self, url: str, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        for domain in ("Page", "Network", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[feature])
        await self.run("window.before = true")
        await self.call("Page.navigate", url=url)
        await self.until("!window.before && document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """The value of a JavaScript expression (a promise is waited for)."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, script: str, timeout: float = 60) -> Any:
        """Wait for the expression to be true; between two pages it may not even make sense."""
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(AssertionError):
                if value := await self.run(script):
                    return value
            assert time.monotonic() < deadline, f"never true: {script}"
            await asyncio.sleep(0.02)

    async def press(self, key: str, code: int) -> None:
        """A key by its DOM name and Windows key code."""
        more = {"text": {"Enter": "\r", " ": " "}[key]} if key in ("Enter", " ") else {}
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, windowsVirtualKeyCode=code, **more)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    async def screenshot(self, path: Optional[Path] = None) -> bytes:
        shot = await self.call("Page.captureScreenshot", format="png")
        data = base64.b64decode(shot["data"])
        if path is not None:
            path.write_bytes(data)
        return data

    def hosts(self) -> set[str]:
        """Everything that the page has asked, by host and port."""
        return {urlsplit(url).netloc for url in self.requests if not url.startswith(("data:", "blob:"))}

    async def _read(self) -> None:
        async for message in self._socket:
            told = message.json()
            if "id" in told:
                answer = self._answers.pop(told["id"], None)
                if answer is not None and not answer.done():
                    if "error" in told:
                        answer.set_exception(AssertionError(told["error"]))
                    else:
                        answer.set_result(told["result"])
            elif told["method"] == "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
            elif told["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(told["params"]["exceptionDetails"]))
            elif told["method"] == "Runtime.consoleAPICalled" and told["params"]["type"] in ("error", "warning"):
                self.complaints.append(str(told["params"]["args"]))
            elif told["method"] == "Log.entryAdded" and told["params"]["entry"]["level"] in ("error", "warning"):
                self.complaints.append(str(told["params"]["entry"]))


@contextlib.asynccontextmanager
async def tab(profile: Path, *flags: str) -> AsyncIterator[Tab]:
    """A fresh browser with one page; `profile` is a folder of its own."""
    process = subprocess.Popen(
        [chromium(), *_FLAGS, *flags, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 90
        while not (port_file.is_file() and len(port_file.read_text().splitlines()) == 2):
            assert time.monotonic() < deadline and process.poll() is None, "Chromium did not start"
            await asyncio.sleep(0.02)
        port = port_file.read_text().splitlines()[0]
        async with aiohttp.ClientSession() as session:
            pages: list[dict[str, Any]] = []
            while not pages:
                assert time.monotonic() < deadline, "Chromium shows no page"
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    pages = [page for page in await answer.json(content_type=None) if page["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Tab(socket)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()
        process.wait()
