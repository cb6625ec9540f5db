"""HTTP with `requests`: proxies and CAs as the machine has them, every phase within a time limit, reasons in words.

This is the only module that imports `requests`, and only where a URL is really asked.
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import os
import queue
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Optional
from urllib.parse import urlsplit

from edge_mnv2 import __version__, certificates
from edge_mnv2.errors import DownloadError
from edge_mnv2.files import text_content
from edge_mnv2.installed import pip
from edge_mnv2.zoo.entry import without_credentials

if TYPE_CHECKING:
    import requests

HEAD_BYTES = 64 << 10
SNIFF_BYTES = 512
_CHUNK = 64 << 10
_LAST_RELEASE = datetime.date(2026, 1, 1)
"""A clock that stands before this is wrong."""


@dataclass(frozen=True)
class Limits:
    """When a server is given up.

    `connect_s`: seconds to connect. `read_s`: seconds of silence. `window_s`, `min_rate`: fewer than `min_rate` bytes a
    second over the last `window_s` seconds. `attempts` at one source, with pauses of `backoff_s` doubled each
    time. `retry_after_s`: the longest pause that a server may ask for.
    """

    connect_s: float = 10.0
    read_s: float = 20.0
    window_s: float = 20.0
    min_rate: float = 512.0
    attempts: int = 4
    backoff_s: float = 1.0
    retry_after_s: float = 30.0

    @classmethod
    def of(cls, *, silence_s: Optional[float] = None, retries: Optional[int] = None) -> Limits:
        """The defaults with another time of silence or slowness, or another number of attempts after the first."""
        limits = cls()
        if silence_s is not None:
            connect_s = min(limits.connect_s, silence_s)
            limits = replace(limits, connect_s=connect_s, read_s=silence_s, window_s=silence_s)
        return limits if retries is None else replace(limits, attempts=retries + 1)


class Unreachable(Exception):
    """No usable answer.

    `again`: whether another attempt at the same address may help, after `pause_s` seconds where the server said so.
    `silent`: nothing came at all. `hint`: what may be done about it.
    """

    def __init__(
        self,
        reason: str,
        *,
        again: bool = False,
        silent: bool = False,
        pause_s: Optional[float] = None,
        hint: Optional[str] = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.again = again
        self.silent = silent
        self.pause_s = pause_s
        self.hint = hint


def open_session() -> requests.Session:
    """A session that trusts the system's CAs beside those of `requests`, and the one of `--ca` (EDGE_MNV2_CA).

    It takes proxies from the environment. Raises UsageError where `--ca` names no certificate.
    """
    try:
        import requests
    except ImportError:
        raise Unreachable("the package requests is not installed", hint=f"{pip()} requests") from None
    session = requests.Session()
    certificates.trust(session, os.environ.get("EDGE_MNV2_CA") or None, system=True)
    # Models do not compress, and a size is only known of what is not encoded.
    session.headers.update({"User-Agent": f"edge-mnv2/{__version__}", "Accept-Encoding": "identity"})
    return session


def ask(session: requests.Session, url: str, limits: Limits, headers: Optional[dict] = None) -> requests.Response:
    """GET `url` up to the body. Raises Unreachable, also where a redirect leads from https to http; a status is not
    looked at."""
    import requests

    def get() -> requests.Response:
        return session.get(url, headers=headers, stream=True, timeout=(limits.connect_s, limits.read_s))

    # The read timeout counts from byte to byte: a server that drips its headers needs a limit of its own.
    limit = limits.connect_s + 2 * limits.read_s
    try:
        response = _within(limit, get)
    except TimeoutError:
        raise Unreachable(f"no answer from {_host(url)} within {limit:g} s", silent=True) from None
    except requests.RequestException as error:
        raise _explained(url, error, limits) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise Unreachable(f"{type(error).__name__}: {error}") from error
    schemes = [urlsplit(one.url).scheme for one in (*response.history, response)]
    if ("https", "http") in zip(schemes, schemes[1:]):
        response.close()
        raise Unreachable(f"{_host(url)} redirects from https to http ({without_credentials(response.url)})")
    return response


def chunks(response: requests.Response, limits: Limits) -> Iterator[bytes]:
    """The body as it comes, undecoded. Raises Unreachable where the connection breaks or is silent too long."""
    raw: Any = response.raw
    # urllib3 before 2.1 has no read1; its read() waits for a whole chunk, however slowly that comes.
    newer = hasattr(raw, "read1")
    while True:
        try:
            chunk = raw.read1(_CHUNK, decode_content=False) if newer else raw._fp.read1(_CHUNK)
        except Exception as error:  # the socket's, http.client's or urllib3's own, which share no root
            if _is_timeout(error):
                raise Unreachable(f"nothing came for {limits.read_s:g} s", again=True, silent=True) from error
            raise Unreachable("the connection broke", again=True) from error
        if not chunk:
            return
        yield chunk


def status_reason(response: requests.Response) -> str:
    """A status that is no success, in words."""
    code = response.status_code
    words = http.client.responses.get(code, response.reason or "")
    if code == 511:
        words += ": this network wants a login in a browser first"
    return f"{code} {words}".strip() + redirected(response)


def redirected(response: requests.Response) -> str:
    """Where a redirect led, as an addition to a sentence; "" where there was none."""
    return f" (redirected to {without_credentials(response.url)})" if response.history else ""


def read_small(url: str, limit: int, limits: Optional[Limits] = None) -> bytes:
    """The body at `url`, at most `limit` bytes. Raises DownloadError."""
    limits = limits or Limits()
    shown = without_credentials(url)
    try:
        with open_session() as session, contextlib.closing(ask(session, url, limits)) as response:
            if response.status_code != 200:
                raise Unreachable(status_reason(response))
            return _within(limits.connect_s + 3 * limits.read_s, lambda: _all(response, limit, limits))
    except TimeoutError:
        raise DownloadError(f"cannot fetch {shown}: it comes too slowly") from None
    except Unreachable as error:
        raise DownloadError(f"cannot fetch {shown}: {error.reason}", hint=error.hint) from None


def _all(response: requests.Response, limit: int, limits: Limits) -> bytes:
    data = b""
    for chunk in chunks(response, limits):
        data += chunk
        if len(data) > limit:
            raise Unreachable(f"more than {limit} bytes came back ({text_content(data[:512]) or 'binary data'})")
    expected = response.headers.get("Content-Length", "")
    if expected.isdigit() and len(data) != int(expected):
        raise Unreachable(f"{len(data)} of {expected} bytes came back")
    return data


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work` returns or raises; TimeoutError where it takes longer (its thread then ends by itself)."""
    answers: queue.Queue = queue.Queue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except BaseException as error:
            answers.put((None, error))

    threading.Thread(target=run, daemon=True, name="edge-mnv2-http").start()
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return result


def _host(url: str) -> str:
    return urlsplit(url).hostname or url


def _is_timeout(error: BaseException) -> bool:
    return any(
        isinstance(one, TimeoutError) or "timeout" in type(one).__name__.lower() for one in certificates.causes(error)
    )


def _explained(url: str, error: requests.RequestException, limits: Limits) -> Unreachable:
    import requests

    causes = certificates.causes(error)
    host = _host(url)
    if isinstance(error, requests.exceptions.SSLError):
        return _tls_reason(host, causes)
    if isinstance(error, requests.exceptions.ProxyError):
        return Unreachable(f"the proxy refuses or cannot be reached: {_last_words(causes)}", hint="see HTTPS_PROXY")
    if any(isinstance(one, socket.gaierror) or "NameResolution" in type(one).__name__ for one in causes):
        return Unreachable(f"the host {host} is not found (no network, or no DNS)")
    if any(isinstance(one, ConnectionRefusedError) for one in causes):
        return Unreachable(f"{host} refuses the connection")
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return Unreachable(f"{host} cannot be reached within {limits.connect_s:g} s")
    if isinstance(error, requests.exceptions.Timeout):
        return Unreachable(f"no answer from {host} within {limits.read_s:g} s", again=True, silent=True)
    if isinstance(error, requests.exceptions.TooManyRedirects):
        return Unreachable(f"{host} redirects in a circle")
    if isinstance(error, requests.exceptions.ConnectionError):
        unreachable = any(isinstance(one, OSError) and one.errno in (101, 113) for one in causes)
        reason = f"{host} cannot be reached" if unreachable else f"{host} closed the connection without an answer"
        return Unreachable(reason, again=not unreachable)
    return Unreachable(f"{host}: {_last_words(causes)}")


def _tls_reason(host: str, causes: list[BaseException]) -> Unreachable:
    text = next((one.verify_message for one in causes if isinstance(one, ssl.SSLCertVerificationError)), "")
    now = datetime.datetime.now()
    clock = f"this device's clock says {now:%Y-%m-%d %H:%M}"
    if now.date() < _LAST_RELEASE or "not yet valid" in text:
        return Unreachable(
            f"TLS: {text or _last_words(causes)} ({host})", hint=f"{clock}: set it (`sudo timedatectl set-ntp true`)"
        )
    if text:
        hint = f"{clock}; is that right? A CA of your own: --ca FILE or EDGE_MNV2_CA, REQUESTS_CA_BUNDLE, SSL_CERT_FILE"
        return Unreachable(f"TLS: {text} ({host})", hint=hint)
    return Unreachable(f"TLS: {_last_words(causes)} ({host})", hint=f"{clock}; is that right?")


def _last_words(causes: list[BaseException]) -> str:
    """The plainest text in a chain of errors: that of the operating system or of TLS."""
    plain = next((one for one in causes if isinstance(one, OSError) and one.strerror), causes[0])
    return str(getattr(plain, "strerror", None) or plain)
