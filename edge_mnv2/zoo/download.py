"""One URL into one partial file: resumed where it stopped, repeated where that may help, given up where it cannot."""

from __future__ import annotations

import contextlib
import email.utils
import itertools
import json
import logging
import random
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Callable, Optional, TextIO

from edge_mnv2.files import text_content
from edge_mnv2.messages import in_place, unfiltered, visible
from edge_mnv2.zoo import web
from edge_mnv2.zoo.entry import without_credentials
from edge_mnv2.zoo.web import HEAD_BYTES, SNIFF_BYTES, Limits, Unreachable

if TYPE_CHECKING:
    import requests

log = logging.getLogger(__name__)

ProgressCallback = Callable[[int, int], None]
"""Called with (bytes so far, bytes in all), often."""

_BUSY = (408, 425, 429, 500, 502, 503, 504)
_LONGEST_PAUSE_S = 15.0
_MOST_SILENCES = 2
_PEEK_S = 3.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@contextlib.contextmanager
def transfer_bar(name: str, stream: Optional[TextIO] = None) -> Iterator[Optional[ProgressCallback]]:
    """What draws the transfer of `name` as one line of a terminal (stderr); None where that is no terminal."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = ("{task.percentage:3.0f} %", DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(file=unfiltered(stream))
    with in_place(Progress(TextColumn(visible(name), markup=False), *columns, console=console, transient=True)) as bar:
        task = bar.add_task(name, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


class _Changed(Exception):
    """The rest that the server offers does not belong to what is there: begin anew."""


def download(url: str, part: Path, size: int, limits: Limits, progress: Optional[ProgressCallback] = None) -> bool:
    """Fill `part` until it has `size` bytes, going on where it ends. Returns whether an earlier beginning was kept.

    Nothing is said about the content: the caller compares the hash. A body that is plainly something else (a page, a
    pointer, another length) leaves `part` as it was. Raises Unreachable, OSError (disk).
    """
    failure = Unreachable("it was not asked")
    silences = 0
    with web.open_session() as session:
        for attempt in range(limits.attempts):
            offset = length(part)
            if offset > size:
                _truncate(part)
                offset = 0
            if offset == size:
                return True
            try:
                return _transfer(session, url, part, offset, size, limits, progress)
            except _Changed:
                _truncate(part)
                failure = Unreachable("the file changes on the server while it is fetched")
                continue
            except Unreachable as error:
                failure = error
            silences = silences + 1 if failure.silent and length(part) == offset else 0
            if not failure.again or attempt == limits.attempts - 1 or silences == _MOST_SILENCES:
                break
            pause = failure.pause_s
            if pause is None:
                pause = min(limits.backoff_s * 2**attempt, _LONGEST_PAUSE_S) * random.uniform(0.8, 1.2)
            log.info("%s: %s; again in %.0f s", without_credentials(url), failure.reason, pause)
            time.sleep(pause)
    raise failure


def _transfer(
    session: requests.Session,
    url: str,
    part: Path,
    offset: int,
    size: int,
    limits: Limits,
    progress: Optional[ProgressCallback],
) -> bool:
    """One request. Returns whether the bytes before `offset` were kept."""
    notes = _notes(part)
    headers = {}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if notes.get("url") == url and notes.get("validator"):
            headers["If-Range"] = notes["validator"]
    with contextlib.closing(web.ask(session, url, limits, headers)) as response:
        if offset and response.status_code == 206:
            _check_range(response, offset, size, notes if notes.get("url") == url else {})
        elif offset and response.status_code == 416:
            raise _Changed
        elif response.status_code == 200:
            offset = 0
        else:
            raise _status(response, limits)
        _check_headers(response, size - offset)
        _receive(response, url, part, offset, size, limits, progress)
    return offset > 0


def _check_range(response: requests.Response, offset: int, size: int, notes: dict) -> None:
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if match is None or int(match.group(1)) != offset or match.group(2) not in ("*", str(size)):
        raise _Changed
    # If-Range asks the server to compare; one that does not know it is caught here.
    known, now = notes.get("validator"), _validator(response)
    if known and now and known != now:
        raise _Changed


def _check_headers(response: requests.Response, expected: int) -> None:
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding not in ("", "identity"):
        raise Unreachable(f"the body came {encoding}-encoded, which was not asked for{web.redirected(response)}")
    if "Transfer-Encoding" in response.headers:
        return
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) != expected:
        raise _unexpected(response, _peek(response), int(length), expected)


def _peek(response: requests.Response) -> bytes:
    """The beginning of a body that is not wanted, for the message; whatever comes within a moment."""
    head = b""
    until = time.monotonic() + _PEEK_S
    with contextlib.suppress(Unreachable):
        for chunk in web.chunks(response, Limits()):
            head += chunk
            if len(head) >= HEAD_BYTES or time.monotonic() > until or b"</title" in head.lower():
                break
    return head[:HEAD_BYTES]


def _receive(
    response: requests.Response,
    url: str,
    part: Path,
    offset: int,
    size: int,
    limits: Limits,
    progress: Optional[ProgressCallback],
) -> None:
    """Write the body behind `offset`. The first bytes of a whole body are looked at before `part` is touched."""
    chunks = web.chunks(response, limits)
    pace = _Pace(limits)
    head = b""
    if offset == 0:
        while len(head) < min(SNIFF_BYTES, size):
            chunk = next(chunks, b"")
            if not chunk:
                break
            head += chunk
            pace.add(len(chunk))
        if text_content(head) is not None:
            unexpected = head + (_peek(response) if len(head) < HEAD_BYTES else b"")
            raise _unexpected(response, unexpected, None, size)
    done = offset
    try:
        with _open(part, offset) as handle:
            _note(part, url, _validator(response))
            for chunk in itertools.chain([head], pace.watched(chunks)):
                done += len(chunk)
                if done > size:
                    raise _unexpected(response, head, None, size, more=True)
                handle.write(chunk)
                if progress is not None:
                    progress(done, size)
    except Unreachable as error:
        if done > size:
            _truncate(part)
        elif error.again:
            error.reason += f" after {done} of {size} bytes"
        raise
    if done < size:
        raise Unreachable(f"{done} of {size} bytes came back{web.redirected(response)}", again=True)


def _open(part: Path, offset: int) -> BinaryIO:
    if offset == 0:
        return part.open("wb")
    handle = part.open("r+b")
    handle.seek(offset)
    handle.truncate()
    return handle


def _unexpected(
    response: requests.Response, head: bytes, length: Optional[int], expected: int, *, more: bool = False
) -> Unreachable:
    what = text_content(head[:HEAD_BYTES])
    moved = web.redirected(response)
    if what is not None:
        portal = "; a login page of this network may have answered" if "HTML" in what else ""
        counted = f" ({length} bytes)" if length else ""
        return Unreachable(f"{what} came back instead of the file{counted}{moved}{portal}")
    if more:
        return Unreachable(f"more than the {expected} bytes of the file came back{moved}")
    if length is not None and length < expected:
        return Unreachable(f"{length} of {expected} bytes are offered: the file there is cut or another one{moved}")
    return Unreachable(f"{length} bytes are offered instead of {expected}: the file there is another one{moved}")


def _status(response: requests.Response, limits: Limits) -> Unreachable:
    reason = web.status_reason(response)
    if response.status_code not in _BUSY:
        return Unreachable(reason)
    pause = _retry_after(response)
    if pause is not None and pause > limits.retry_after_s:
        return Unreachable(f"{reason}; the server asks to wait {pause:.0f} s", hint="try again later")
    return Unreachable(reason, again=True, pause_s=pause)


def _retry_after(response: requests.Response) -> Optional[float]:
    """Seconds that the server asks to wait. A date counts from the server's own clock, ours may stand in 1970."""
    text = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        until = email.utils.parsedate_to_datetime(text)
        now = email.utils.parsedate_to_datetime(response.headers["Date"])
        return max(0.0, (until - now).total_seconds())
    except (TypeError, ValueError, KeyError, IndexError):
        return None


class _Pace:
    """Gives a transfer up that is slower than the limit over the whole window."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._times: deque[tuple[float, int]] = deque()
        self._bytes = 0
        self._started = time.monotonic()

    def watched(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.add(len(chunk))
            yield chunk

    def add(self, count: int) -> None:
        now = time.monotonic()
        self._times.append((now, count))
        self._bytes += count
        while self._times and self._times[0][0] < now - self._limits.window_s:
            self._bytes -= self._times.popleft()[1]
        rate = self._bytes / self._limits.window_s
        if now - self._started >= self._limits.window_s and rate < self._limits.min_rate:
            raise Unreachable(f"only {rate:.0f} bytes a second came over the last {self._limits.window_s:g} s")


def _validator(response: requests.Response) -> Optional[str]:
    """What `If-Range` may carry: a strong ETag, else the date of the last change."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def notes_path(part: Path) -> Path:
    """Beside a partial file: where it comes from and what the server calls that version."""
    return part.with_name(f"{part.name}.json")


def _notes(part: Path) -> dict:
    try:
        notes = json.loads(notes_path(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _note(part: Path, url: str, validator: Optional[str]) -> None:
    notes_path(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def length(part: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return part.stat().st_size
    except OSError:
        return 0


def _truncate(part: Path) -> None:
    with part.open("wb"):
        pass
