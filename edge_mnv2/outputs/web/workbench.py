"""The page as a workbench: collected pictures and their answers, teaching from them, other models, a picture to try.

Everything here is behind the same token as the rest of the page; whatever changes something leaves a line in the log.
"""

from __future__ import annotations

import asyncio
import json
import logging
import operator
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, TypeVar

from aiohttp import BodyPartReader, web

from edge_mnv2.datasets.collected_picture import Answer, Item, class_problem
from edge_mnv2.datasets.collection import AnyCollection, side_by_side
from edge_mnv2.outputs.collect import UNKNOWN
from edge_mnv2.outputs.picture import jpeg
from edge_mnv2.pipeline.statistics import give_back_memory
from edge_mnv2.zoo.labels import is_background

if TYPE_CHECKING:
    from edge_mnv2.outputs.live import Workbench

log = logging.getLogger(__name__)

MOST_PICTURE = 20_000_000
"""Bytes of a picture that somebody sends."""
_MOST_JSON = 1_000_000
_MOST_NAME = 100
_UPLOAD_S = 30.0
_A_SECOND = 5.0
_AT_ONCE = 10
_MOST_UPLOADS = 3
"""Pictures that are being sent at one time: each is held in memory as a whole."""
_THUMBNAIL = 240
_FOLDER = Path(__file__).parent / "page"
ASSETS = {"/review.js": "text/javascript", "/review.css": "text/css"}

T = TypeVar("T")


class Refused(Exception):
    """A request that gets an HTTP status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class WorkbenchPages:
    """The routes over `bench`, which says None where a run has no workbench."""

    def __init__(self, bench: Callable[[], Optional[Workbench]]) -> None:
        self._bench_of = bench
        self._page = (_FOLDER / "review.html").read_bytes()
        self._room = float(_AT_ONCE)
        self._filled_at = time.monotonic()
        self._uploads = 0
        self._switching: Optional[asyncio.Lock] = None
        self._listed: tuple[list[Item], bytes] = ([], b"")

    def add_to(self, application: web.Application) -> None:
        get, post = application.router.add_get, application.router.add_post
        get("/review", self._review)
        get("/api/collected", self._collected)
        get("/api/collected/{id}.jpg", self._picture)
        get("/api/workbench", self._state)
        post("/api/answers", self._answers)
        post("/api/collected/delete", self._delete)
        post("/api/teach", self._teach)
        post("/api/model", self._model)
        post("/api/roi", self._roi)
        post("/api/classify", self._classify)

    @property
    def _bench(self) -> Workbench:
        bench = self._bench_of()
        if bench is None:
            raise Refused(404, "no model runs here yet")
        return bench

    @property
    def _collection(self) -> AnyCollection:
        collection = self._bench.collection
        if collection is None:
            raise Refused(404, "nothing is collected here: start it with --collect DIR")
        return collection

    async def _review(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(body=self._page, content_type="text/html", charset="utf-8")

    async def _collected(self, _request: web.Request) -> web.StreamResponse:
        listing = await in_thread(self._list, self._collection)
        return web.Response(body=listing, content_type="application/json", charset="utf-8")

    def _list(self, collection: AnyCollection) -> bytes:
        items = collection.items()
        # The items are made anew whenever one changes. They are held: the id of one that is gone may come again.
        former = self._listed[0]
        if not self._listed[1] or len(items) != len(former) or not all(map(operator.is_, items, former)):
            # One after the other: thousands of dictionaries at once would take megabytes of a small board.
            rows = bytearray()
            for number, group in enumerate(side_by_side(items)):
                for item in group:
                    row = {**item.as_dict(), "group": number}
                    rows += json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b","
            self._listed = items, b'{"items":[%s],"bytes":%d}' % (rows[:-1], collection.size)
            del rows
            give_back_memory()
        return self._listed[1]

    async def _picture(self, request: web.Request) -> web.StreamResponse:
        path = self._collection.path(request.match_info["id"])
        # What a picture shows never changes: its name is its content.
        return await picture_at(request, path, {"Cache-Control": "private, max-age=86400"})

    async def _answers(self, request: web.Request) -> web.StreamResponse:
        document = await document_of(request)
        ids = _ids(document.get("ids"))
        if document.get("undo") is True:
            answer = None
        elif document.get("bad") is True:
            answer = Answer(None, bad=True)
        elif "class" in document:
            answer = Answer(_class_name(document["class"]))
        else:
            raise Refused(400, 'give "class": a name or null, or "bad": true, or "undo": true')
        noted = await in_thread(self._collection.answer, ids, answer)
        _audit(request, f"answered {len(noted)} pictures: {_in_words(answer)}")
        return web.json_response({"answered": len(noted)})

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        document = await document_of(request)
        everything = document.get("ids") is None
        if everything and document.get("all") is not True:
            raise Refused(400, 'give "ids": [...] or "all": true')
        ids = None if everything else _ids(document["ids"])
        number = await in_thread(self._collection.delete, ids)
        _audit(request, f"deleted {number} collected pictures")
        return web.json_response({"deleted": number})

    async def _state(self, _request: web.Request) -> web.StreamResponse:
        return web.json_response(await in_thread(self._bench.document))

    async def _teach(self, request: web.Request) -> web.StreamResponse:
        document = await document_of(request)
        if document.get("cancel") is True:
            await in_thread(self._bench.cancel)
            _audit(request, "stopped teaching")
        else:
            await in_thread(self._bench.teach)
            _audit(request, "teaches from what was collected")
        return web.json_response(await in_thread(self._bench.document))

    async def _model(self, request: web.Request) -> web.StreamResponse:
        document = await document_of(request)
        model, force = document.get("model"), document.get("force") is True
        if not isinstance(model, str) or not model:
            raise Refused(400, '"model" is the name of one of the models listed by /api/workbench')
        # It may be downloaded first: whoever waits for that leaves the threads to the pictures.
        self._switching = self._switching or asyncio.Lock()
        async with self._switching:
            result = await in_thread(self._bench.swap, model, force)
        taken = "switched to" if result["taken"] else "asked in vain for"
        _audit(request, f"{taken} the model {model[:_MOST_NAME]!r}")
        return web.json_response(result)

    async def _roi(self, request: web.Request) -> web.StreamResponse:
        document = await document_of(request)
        await in_thread(self._bench.set_roi, document.get("roi"))
        _audit(request, f"set the region to {document.get('roi') or 'the whole picture'}")
        return web.json_response({"roi": document.get("roi")})

    async def _classify(self, request: web.Request) -> web.StreamResponse:
        self._one_more()
        self._uploads += 1
        try:
            name, data = await _upload(request)
        finally:
            self._uploads -= 1
        return web.json_response(await in_thread(self._bench.classify, name, data))

    def _one_more(self) -> None:
        """Raises Refused where pictures come faster than a board can classify beside its run."""
        now = time.monotonic()
        self._room = min(_AT_ONCE, self._room + (now - self._filled_at) * _A_SECOND)
        self._filled_at = now
        if self._room < 1:
            raise Refused(429, f"more than {_A_SECOND:g} pictures a second")
        if self._uploads >= _MOST_UPLOADS:
            raise Refused(429, f"{_MOST_UPLOADS} pictures are being sent already")
        self._room -= 1


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


async def picture_at(
    request: web.Request, path: Optional[Path], headers: Optional[dict[str, str]] = None
) -> web.Response:
    """The JPEG file at `path`, made small where the request says so. Raises Refused where there is none."""
    try:
        if path is None:
            raise FileNotFoundError
        data = await in_thread(thumbnail if "small" in request.query else Path.read_bytes, path)
    except OSError:
        raise Refused(404, "no such picture") from None
    return web.Response(body=data, content_type="image/jpeg", headers=headers)


async def document_of(request: web.Request, most: int = _MOST_JSON, limit_s: Optional[float] = None) -> dict[str, Any]:
    """The JSON object in a request, at most so many bytes. Raises Refused."""
    # Another kind of content could be sent by a form of another site, without the browser asking us first.
    if request.content_type != "application/json":
        raise Refused(415, "send application/json")
    try:
        document = json.loads(await _read(request.content, most, limit_s) or b"{}")
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise Refused(400, "this is not a JSON object")
    return document


async def _upload(request: web.Request) -> tuple[str, bytes]:
    """(name, content) of the picture in a request: its whole content, or the first file of a form."""
    if not request.content_type.startswith("multipart/"):
        if request.content_type not in ("image/jpeg", "image/png", "application/octet-stream"):
            raise Refused(415, "send a JPEG or PNG picture, or a form with one")
        return "picture", await _read(request.content, MOST_PICTURE)
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if isinstance(part, BodyPartReader) and (part.filename or part.name == "file"):
                return Path(part.filename or "picture").name[:_MOST_NAME], await _read(part, MOST_PICTURE)
    except ValueError:
        raise Refused(400, "this form cannot be read") from None
    raise Refused(415, "this form has no picture")


async def _read(content: Any, most: int, limit_s: Optional[float] = None) -> bytes:
    """Everything from `content`, in time and within `most` bytes."""
    data = bytearray()

    async def read() -> None:
        while piece := await (content.read_chunk(65536) if hasattr(content, "read_chunk") else content.read(65536)):
            data.extend(piece)
            if len(data) > most:
                raise Refused(413, f"more than {most} bytes")

    try:
        await asyncio.wait_for(read(), limit_s or _UPLOAD_S)
    except asyncio.TimeoutError:
        raise Refused(408, "the content took too long") from None
    return bytes(data)


def _ids(ids: Any) -> list[str]:
    if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids):
        raise Refused(400, "ids is a list of pictures")
    return ids


def _class_name(name: Any) -> Optional[str]:
    if name is None:
        return None
    if problem := class_problem(name):
        raise Refused(400, problem)
    # A letter and its accent may come as one sign or as two.
    name = unicodedata.normalize("NFC", str(name).strip())
    if name.casefold() == UNKNOWN or is_background(name):
        raise Refused(400, f"a class cannot be called '{name}': answer null, none of the classes; or call it 'other'")
    return name


def thumbnail(path: Path) -> bytes:
    """A small JPEG of a picture. Raises OSError for what is none."""
    import cv2
    import numpy as np

    data = path.read_bytes()
    # Large ones are decoded at a part of their size.
    sizes = ((2_000_000, cv2.IMREAD_REDUCED_COLOR_8), (500_000, cv2.IMREAD_REDUCED_COLOR_4))
    most = cv2.IMREAD_REDUCED_COLOR_2 if len(data) > 50_000 else cv2.IMREAD_COLOR
    how = next((reduced for least, reduced in sizes if len(data) > least), most)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), how) if data else None
    if pixels is None:
        raise OSError(f"{path} is no picture")
    height, width = pixels.shape[:2]
    scale = _THUMBNAIL / max(height, width)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return jpeg(pixels, 75)


def _in_words(answer: Optional[Answer]) -> str:
    if answer is None:
        return "taken back"
    return "bad picture" if answer.bad else answer.label or "none of the classes"


def _audit(request: web.Request, what: str) -> None:
    log.info("web: %s %s", request.remote, what)
