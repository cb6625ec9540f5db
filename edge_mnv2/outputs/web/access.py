"""Who may see the page and change the run: the token, forged requests, guesses."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
import time
from collections import OrderedDict
from typing import Optional
from urllib.parse import urlsplit

from aiohttp import web

_GUESSES, _PER_S = 10, 60.0
_PEERS = 1024
_KEEP_S = 30 * 86400


class Access:
    """Decides about each request. Without a `token` everyone may, as long as the page is asked for by an address of
    this machine: a foreign name that was made to point here (DNS rebinding) is refused.
    """

    def __init__(self, token: Optional[str], port: int) -> None:
        self._token = _octets(token) if token else None
        # Derived from the token, so that a restart of the board logs nobody out, and a new token everybody.
        self._session = hmac.new(self._token or b"", b"edge-mnv2 web session", hashlib.sha256).hexdigest()
        self._cookie = f"edge_mnv2_{port}"
        name = socket.gethostname().lower()
        self._names = {"localhost", name, name.split(".")[0], f"{name.split('.')[0]}.local"}
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()

    @property
    def required(self) -> bool:
        """A token is asked for."""
        return self._token is not None

    def refuse(self, request: web.Request) -> Optional[tuple[int, str]]:
        """Why not, as an HTTP status and a sentence; None where the request may go on."""
        if self._token is None and not self._own_host(request.host):
            return 403, "this host name is not the board's: use its address, or start it with --web-token"
        bearer = self._bearer(request)
        if request.method != "GET" and bearer is None and (why := _forged(request)):
            return 403, why
        if self._token is None or self._known(request):
            return None
        offered = bearer or request.query.get("token")
        if offered is None:
            return 401, "a token is needed"
        return None if (status := self.guess(request, offered)) == 200 else (status, _SENTENCES[status])

    def guess(self, request: web.Request, offered: str) -> int:
        """200 where `offered` is the token, 401 where it is not, 429 where this peer has guessed too often."""
        peer = request.remote or ""
        now = time.monotonic()
        wrong = [at for at in self._wrong.pop(peer, []) if now - at < _PER_S]
        status = 401
        if len(wrong) >= _GUESSES:
            status = 429
        elif self._token is None or hmac.compare_digest(_octets(offered), self._token):
            status = 200
        else:
            wrong.append(now)
        if wrong:
            self._wrong[peer] = wrong
            while len(self._wrong) > _PEERS:
                self._wrong.popitem(last=False)
        return status

    def remember(self, response: web.StreamResponse) -> None:
        """Let the browser that gets `response` in from now on."""
        if self._token is not None:
            response.set_cookie(
                self._cookie, self._session, max_age=_KEEP_S, httponly=True, samesite="Strict", path="/"
            )

    def _known(self, request: web.Request) -> bool:
        return hmac.compare_digest(_octets(request.cookies.get(self._cookie, "")), self._session.encode())

    def _bearer(self, request: web.Request) -> Optional[str]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def _own_host(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        try:
            ipaddress.ip_address(name.split("%")[0])
        except ValueError:
            return name.lower().rstrip(".") in self._names
        return True


def _octets(text: str) -> bytes:
    """Header values and arguments may hold what is no UTF-8."""
    return text.encode("utf-8", "backslashreplace")


_SENTENCES = {401: "this is not the token", 429: "too many wrong tokens from this address: wait a minute"}


def _forged(request: web.Request) -> Optional[str]:
    """Why a request that changes something was not made by our own page (or a script); None where it was."""
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return "asked for by another site"
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc.lower() != request.host.lower():
        return "asked for by another site"
    return None
