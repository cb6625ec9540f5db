"""What the server answers to each path."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from edge_mnv2.camera.still import TooManyPixels
from edge_mnv2.errors import EdgeMnv2Error, SourceError, UsageError
from edge_mnv2.outputs.live import Live
from edge_mnv2.outputs.web.address import Access, Refusal
from edge_mnv2.outputs.web.broadcast import BOUNDARY, MOST_FOLLOWERS, SEPARATOR, Broadcast, Video
from edge_mnv2.outputs.web.guard import Guard
from edge_mnv2.outputs.web.lesson import LessonPages
from edge_mnv2.outputs.web.metrics import History, Metrics
from edge_mnv2.outputs.web.workbench import ASSETS, Refused, WorkbenchPages, document_of, in_thread

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MOST_BYTES = 16 * 1024
_CHUNK = 32 * 1024
_UPLOAD_S = 5.0
_STATE_S = 0.2
_LEAVE_S = 0.5
_FOLDER = Path(__file__).parent / "page"
_ASSETS = {
    "/app.js": "text/javascript",
    "/charts.js": "text/javascript",
    "/lesson.js": "text/javascript",
    "/region.js": "text/javascript",
    "/app.css": "text/css",
    "/lesson.css": "text/css",
    "/icon.svg": "image/svg+xml",
    **ASSETS,
}
_OPEN = {*_ASSETS, "/healthz", "/login"}
"""Paths that need no token: they show nothing of the run but whether it works."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self' blob: data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Server": "edge-mnv2",
}


class Pages:
    """The routes over one run. Everything runs in the server's event loop."""

    def __init__(self, live: Live, access: Access) -> None:
        self._live = live
        self._access = access
        self._video = Video(live)
        self._history = History()
        self.pictures = Broadcast(lambda: self._video.produce(self.pictures.publish), SEPARATOR)
        self.states = Broadcast(self._produce_states, b"retry: 2000\n\n")
        self._metrics = Metrics(live, lambda: self.pictures.followers + self.states.followers)
        self._assets = {path: (_FOLDER / path[1:]).read_bytes() for path in _ASSETS}
        self._page = (_FOLDER / "index.html").read_bytes()
        self._login = (_FOLDER / "login.html").read_text(encoding="utf-8")

    def application(self) -> web.Application:
        application = web.Application(middlewares=[self._around], client_max_size=MOST_BYTES)
        get = application.router.add_get
        get("/", self._index)
        get("/stream.mjpg", self._stream, allow_head=False)
        get("/snapshot.jpg", self._snapshot)
        get("/healthz", self._healthz)
        get("/metrics", self._prometheus)
        get("/api/state", self._state)
        get("/api/stream", self._events, allow_head=False)
        application.router.add_post("/api/controls", self._controls)
        application.router.add_post("/api/snapshot", self._keep)
        application.router.add_post("/login", self._log_in)
        for path in _ASSETS:
            get(path, self._asset)
        WorkbenchPages(lambda: self._live.workbench).add_to(application)
        LessonPages(lambda: self._live.lesson).add_to(application)
        return application

    async def keep_watch(self) -> None:
        """Once a second a point for the charts."""
        while True:
            await asyncio.sleep(1)
            self._history.add(self._live)

    async def end(self) -> None:
        """Show the viewers how it ended."""
        await asyncio.gather(
            self.states.end(self._state_event(), _LEAVE_S), self.pictures.end(self.pictures.newest, _LEAVE_S)
        )

    def close(self) -> None:
        self.pictures.close()
        self.states.close()
        self._video.close()

    @web.middleware
    async def _around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        guard = _guard(request)
        await guard.request_began()
        try:
            response = await self._answer(request, handler)
        finally:
            guard.request_ended()
        return response

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            refusal = None if request.path in _OPEN else self._access.refuse(request)
            if self._access.knows(request):
                _guard(request).trusted = True
            response: web.StreamResponse
            if refusal is None and request.path == "/review" and "token" in request.query:
                response = self._let_in(request, "review")
            elif refusal is None:
                response = await handler(request)
            else:
                response = await self._refused(request, refusal)
        except web.HTTPException as error:
            response = _said(error.status, _REASONS.get(error.status, error.reason))
            response.headers.update({name: error.headers[name] for name in ("Allow",) if name in error.headers})
        except Refused as refused:
            response = _said(refused.status, str(refused))
        except SourceError as error:
            response = _said(413 if isinstance(error, TooManyPixels) else 415, str(error))
        except EdgeMnv2Error as error:
            response = _said(409, str(error))
        except web.RequestPayloadError:
            response = _said(400, "this body cannot be decoded")
        except (ConnectionError, asyncio.CancelledError):
            raise
        except OSError as error:
            response = _said(507, f"cannot be written: {error.strerror or error}")
        except Exception as error:
            log.debug("web %s", request.path, exc_info=error)
            response = _said(500, "unexpected error")
        if not response.prepared:
            for name, value in _headers(request).items():
                response.headers.setdefault(name, value)
        return response

    async def _refused(self, request: web.Request, refusal: Refusal) -> web.Response:
        await asyncio.sleep(refusal.delay_s)
        if request.path in ("/", "/login", "/review") and refusal.status in (401, 429):
            why = refusal.why if request.path == "/login" or "token" in request.query else ""
            login = self._login.replace("<!--why-->", f"{why[:1].upper()}{why[1:]}.") if why else self._login
            response = web.Response(status=refusal.status, text=login, content_type="text/html")
        else:
            response = _said(refusal.status, refusal.why)
        if refusal.status == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="edge-mnv2"'
        if refusal.status == 429:
            response.headers["Retry-After"] = "60"
        return response

    def _let_in(self, request: web.Request, place: str = "./") -> web.Response:
        """To `place`, without the token in its address; relative, because a proxy may have put it below a path."""
        response = web.Response(status=303, headers={"Location": place})
        self._access.remember(request, response)
        return response

    async def _index(self, request: web.Request) -> web.StreamResponse:
        if "token" in request.query:
            return self._let_in(request)
        return web.Response(body=self._page, content_type="text/html", charset="utf-8")

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        try:
            form = await asyncio.wait_for(request.post(), _UPLOAD_S)
        except asyncio.TimeoutError:
            raise Refused(408, "the body took too long") from None
        refusal = self._access.guess(request, str(form.get("token", "")).strip())
        return self._let_in(request) if refusal is None else await self._refused(request, refusal)

    async def _asset(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._assets[request.path], content_type=_ASSETS[request.path], charset="utf-8")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        kind = f"multipart/x-mixed-replace; boundary={BOUNDARY}"
        return await self._follow(request, self.pictures, kind)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        return await self._follow(request, self.states, "text/event-stream; charset=utf-8")

    async def _follow(self, request: web.Request, what: Broadcast, kind: str) -> web.StreamResponse:
        if not what.has_room():
            return _said(503, f"{MOST_FOLLOWERS} viewers are the most")
        response = web.StreamResponse(headers={**_headers(request), "Content-Type": kind, "X-Accel-Buffering": "no"})
        await response.prepare(request)
        try:
            await what.send_to(response, _guard(request))
        except (ConnectionError, asyncio.CancelledError):
            log.debug("web: %s left", request.remote)
        return response

    async def _snapshot(self, request: web.Request) -> web.StreamResponse:
        picture = await self._video.still()
        if picture is None:
            return _said(503, "there is no picture yet")
        response = web.StreamResponse(headers={**_headers(request), "Content-Type": "image/jpeg"})
        response.content_length = len(picture)
        if "download" in request.query:
            name = str(self._live.document()["t"] or "snapshot").replace(":", "-")
            response.headers["Content-Disposition"] = f'attachment; filename="edge-mnv2-{name}.jpg"'
        await response.prepare(request)
        if request.method != "HEAD":
            # In pieces: what a visitor does not take must not wait in our memory as a whole.
            for start in range(0, len(picture), _CHUNK):
                await response.write(picture[start : start + _CHUNK])
                await _guard(request).flushed()
        return response

    async def _keep(self, request: web.Request) -> web.StreamResponse:
        """Save the newest frame on the board."""
        await document_of(request, MOST_BYTES, _UPLOAD_S)
        store, result = self._live.snapshots, self._live.latest
        if store is None:
            return _said(404, "pictures are not kept here: start it with --snapshots DIR")
        if result is None:
            return _said(503, "there is no picture yet")
        try:
            name = await in_thread(store.take, result)
        except OSError as error:
            return _said(507, f"the picture cannot be saved: {error.strerror or error}")
        return web.json_response({"saved": name})

    async def _healthz(self, _request: web.Request) -> web.StreamResponse:
        state = self._live.state
        return web.json_response({"status": state}, status=200 if state in ("ok", "paused") else 503)

    async def _prometheus(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _state(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response({**self._document(), "history": self._history.document()}, dumps=_dumps)

    async def _controls(self, request: web.Request) -> web.StreamResponse:
        loop = self._live.loop
        if loop is None:
            return _said(503, "the run has not begun yet")
        change = await document_of(request, MOST_BYTES, _UPLOAD_S)
        unknown = set(change) - {"threshold", "smooth", "paused", "known"}
        if unknown or not change:
            return _said(400, "give threshold, smooth, paused or known")
        try:
            loop.controls.change(**change)
        except UsageError as error:
            raise Refused(400, str(error)) from None
        return web.json_response(loop.controls.as_dict())

    async def _produce_states(self) -> None:
        while True:
            self.states.publish(self._state_event())
            await asyncio.sleep(_STATE_S)

    def _state_event(self) -> bytes:
        return f"event: state\ndata: {_dumps(self._document())}\n\n".encode()

    def _document(self) -> dict[str, Any]:
        return {**self._live.document(), "viewers": self.pictures.followers}


def _dumps(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


_REASONS = {404: "nothing is here", 405: "this path does not do that", 413: f"more than {MOST_BYTES} bytes"}


def _headers(request: web.Request) -> dict[str, str]:
    """What every answer has. Only who shows the token in the address may be another site's page."""
    return _HEADERS if "token" in request.query else {**_HEADERS, "Cross-Origin-Resource-Policy": "same-origin"}


def _said(status: int, why: str) -> web.Response:
    return web.json_response({"error": why}, status=status)


def _guard(request: web.Request) -> Guard:
    assert request.transport is not None
    guard = request.transport.get_protocol()
    assert isinstance(guard, Guard)
    return guard
