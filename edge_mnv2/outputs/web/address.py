"""Where the page is served, who can reach it there, and who may see it and change the run: the token, forged requests,
guesses, proxies that speak for others.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Optional, Union
from urllib.parse import urlsplit

from edge_mnv2 import paths
from edge_mnv2.errors import UsageError

if TYPE_CHECKING:
    from aiohttp import web

_FREE_GUESSES, _GUESSES, _PER_S = 3, 10, 60.0
_ALL_GUESSES = 200
"""Wrong tokens a minute from everybody together, after which each wrong one waits the longest."""
_SLOWEST_S = 4.0
_PEERS = 1024
_REMEMBER_S = 30 * 86400


@dataclass(frozen=True)
class Refusal:
    """An HTTP status and a sentence, to be sent after `delay_s`."""

    status: int
    why: str
    delay_s: float = 0.0


@dataclass(frozen=True)
class Asked:
    """By whom, for which host and how a request was made; a trusted proxy's word counts for the visitor behind it."""

    peer: str
    host: str
    secure: bool
    proxied: bool


class Access:
    """Decides about each request. Without a `token` everyone may, as long as the page is asked for by an address of
    this machine: a foreign name that was made to point here (DNS rebinding) is refused.

    The right token always passes. Wrong ones are slowed down by peer (an IPv4 address, an IPv6 /64) and all together.
    `proxies` are those whose X-Forwarded-For, -Host and -Proto are believed.
    """

    def __init__(self, token: Optional[str], port: int, proxies: Sequence[Network] = ()) -> None:
        self._token = _octets(token) if token else None
        # Derived from the token, so that a restart of the board logs nobody out, and a new token everybody.
        self._session = hmac.new(self._token or b"", b"edge-mnv2 web session", hashlib.sha256).hexdigest()
        self._cookie = f"edge_mnv2_{port}"
        self._proxies = tuple(proxies)
        name = socket.gethostname().lower()
        self._names = {"localhost", name, name.split(".")[0], f"{name.split('.')[0]}.local"}
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()
        self._all_wrong: deque[float] = deque(maxlen=_ALL_GUESSES)

    def asked(self, request: web.Request) -> Asked:
        """Who asks, whatever stands between."""
        remote, headers = request.remote or "", request.headers
        if not self.is_proxy(remote):
            return Asked(group(remote), request.host, request.secure, False)
        # Each proxy appends whom it was asked by: the last one that is none of ours is the visitor.
        chain = [part.strip() for part in headers.get("X-Forwarded-For", "").split(",") if part.strip()]
        peer = next((part for part in reversed(chain) if not self.is_proxy(part)), remote)
        host = headers.get("X-Forwarded-Host", "").rpartition(",")[2].strip() or request.host
        secure = headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower() == "https"
        return Asked(group(peer), host, secure, True)

    def knows(self, request: web.Request) -> bool:
        """Whether a token is asked for and the request shows it."""
        if self._token is None:
            return False
        offered = self._bearer(request) or request.query.get("token")
        return self._has_session(request) or (offered is not None and self._is_token(offered))

    def refuse(self, request: web.Request) -> Optional[Refusal]:
        """Why not; None where the request may go on."""
        asked = self.asked(request)
        # A proxy answers for names that are not the board's; which ones is its own setting.
        if self._token is None and not asked.proxied and not self._own_host(asked.host):
            return Refusal(
                403, "this host name is not the board's: use its address, start it with --web-token or --web-behind"
            )
        bearer = self._bearer(request)
        if request.method != "GET" and bearer is None and (why := _forged(request, asked.host)):
            return Refusal(403, why)
        if self._token is None or self._has_session(request):
            return None
        offered = bearer or request.query.get("token")
        return Refusal(401, "a token is needed") if offered is None else self.guess(request, offered)

    def guess(self, request: web.Request, offered: str) -> Optional[Refusal]:
        """None where `offered` is the token; else a refusal that comes the later the more this peer has guessed."""
        if self._token is None or self._is_token(offered):
            return None
        if request.headers.get("Sec-Fetch-Site") == "cross-site":
            # The visitor's browser was made to ask by another site: that is no guess of the visitor.
            return Refusal(401, "this is not the token", _SLOWEST_S)
        peer, now = self.asked(request).peer, time.monotonic()
        wrong = [at for at in self._wrong.pop(peer, []) if now - at < _PER_S]
        self._wrong[peer] = [*wrong, now][-_GUESSES - 1 :]
        while len(self._wrong) > _PEERS:
            self._wrong.popitem(last=False)
        flood = len(self._all_wrong) == _ALL_GUESSES and now - self._all_wrong[0] < _PER_S
        self._all_wrong.append(now)
        delay = 0.0 if len(wrong) < _FREE_GUESSES else 0.1 * 2.0 ** (len(wrong) - _FREE_GUESSES)
        delay = _SLOWEST_S if flood else min(delay, _SLOWEST_S)
        if len(wrong) >= _GUESSES:
            return Refusal(429, "too many wrong tokens from this address: wait a minute", delay)
        return Refusal(401, "this is not the token", delay)

    def remember(self, request: web.Request, response: web.StreamResponse) -> None:
        """Let the browser that gets `response` in from now on, below the path that it knows the page by."""
        if self._token is not None:
            # Without a path it is the folder of what was asked for: two boards behind one proxy have one each.
            response.headers.add(
                "Set-Cookie",
                f"{self._cookie}={self._session}; Max-Age={_REMEMBER_S}; HttpOnly; SameSite=Strict"
                + ("; Secure" if self.asked(request).secure else ""),
            )

    def is_proxy(self, address: str) -> bool:
        """Whether `address` speaks for visitors behind it."""
        try:
            number = ipaddress.ip_address(address.split("%")[0])
        except ValueError:
            return False
        mapped = getattr(number, "ipv4_mapped", None)
        return any((mapped or number) in network for network in self._proxies)

    def _is_token(self, offered: str) -> bool:
        return self._token is not None and hmac.compare_digest(_octets(offered), self._token)

    def _has_session(self, request: web.Request) -> bool:
        return hmac.compare_digest(_octets(request.cookies.get(self._cookie, "")), self._session.encode())

    def _bearer(self, request: web.Request) -> Optional[str]:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def _own_host(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name.split("%")[0])
        except ValueError:
            return name.lower().rstrip(".") in self._names
        return True


def _octets(text: str) -> bytes:
    """Header values and arguments may hold what is no UTF-8."""
    return text.encode("utf-8", "backslashreplace")


def _forged(request: web.Request, host: str) -> Optional[str]:
    """Why a request that changes something was not made by our own page (or a script); None where it was."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        # Browsers say so themselves, whatever a proxy makes of the host.
        return None if site in ("same-origin", "none") else "asked for by another site"
    origin = request.headers.get("Origin")
    try:
        cross_site = origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:
        cross_site = True
    return "asked for by another site" if cross_site else None


log = logging.getLogger(__name__)

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]

LEAST_TOKEN = 8
_DEFAULT_PORT = 8080
_HINT = "give a port, or HOST:PORT such as 0.0.0.0:8080 or [::1]:8080"


@dataclass(frozen=True)
class Address:
    """A host (name or number, without brackets) and a port; port 0 takes a free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Only programs on this machine can reach it."""
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host).is_loopback
        try:
            entries = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        except OSError:
            return False
        return all(ipaddress.ip_address(str(entry[4][0]).split("%")[0]).is_loopback for entry in entries)

    def url(self, port: int) -> str:
        """The address for a browser; a wildcard becomes the address that other machines would use."""
        host = self.host
        with contextlib.suppress(ValueError):
            number = ipaddress.ip_address(host)
            if number.is_unspecified:
                host = _own_address(number.version)
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def listen(self, next_ports: int = 0) -> socket.socket:
        """A listening socket. A port that is busy gives way to one of the `next_ports` after it. Raises UsageError."""
        shown = f"--web {self.host}:{self.port}"
        try:
            entries = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        except OSError as error:
            raise UsageError(f"{shown}: {error.strerror or error}", hint="the host is one of this machine's") from None
        family, _, _, _, socket_address = entries[0]
        try:
            dual = family == socket.AF_INET6 and self.host == "::" and socket.has_dualstack_ipv6()
            listener = socket.create_server(socket_address, family=family, backlog=128, dualstack_ipv6=dual)
        except OSError as error:
            if error.errno == errno.EADDRINUSE and next_ports and 0 < self.port < 65535:
                log.info("port %d is busy: trying the next one", self.port)
                return replace(self, port=self.port + 1).listen(next_ports - 1)
            raise UsageError(
                f"{shown}: {_reason(error)}", hint="choose another port, or end what uses it (ss -ltnp shows it)"
            ) from None
        listener.setblocking(False)
        return listener


def parse(text: str) -> Address:
    """`PORT` (on loopback), `HOST:PORT`, or a HOST that is a number (port 8080). Raises UsageError."""
    text = text.strip()
    with contextlib.suppress(ValueError):
        number = ipaddress.ip_address(text.strip("[]"))
        if (number.version == 6) == text.startswith("["):
            return Address(str(number), _DEFAULT_PORT)
    match = re.fullmatch(r"(?:(?P<host>\[[0-9a-fA-F:.%]+\]|[^:\[\]/\s@]+):)?(?P<port>[0-9]{1,5})", text)
    if match is None or int(match["port"]) > 65535:
        raise UsageError(f"--web {text}", hint=_HINT)
    return Address((match["host"] or "127.0.0.1").strip("[]"), int(match["port"]))


def parse_proxies(text: str) -> list[Network]:
    """`192.168.1.2,10.0.0.0/8,::1`: the proxies whose word about visitors counts. Raises UsageError."""
    try:
        return [ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"--web-behind {text}", hint="addresses or networks such as 127.0.0.1,192.168.1.0/24"
        ) from None


def check_token(token: str) -> None:
    """Raises UsageError for a token that is soon guessed."""
    if len(token.strip()) < LEAST_TOKEN:
        raise UsageError(f"--web-token is shorter than {LEAST_TOKEN} signs", hint="give one that is hard to guess")


def own_token() -> str:
    """The token that this account's pages have when none was given: made once, 16 signs, in a file of mode 600."""
    path = paths.state_dir() / "web-token"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        token = path.read_text(encoding="ascii").strip()
        if len(token) >= LEAST_TOKEN:
            return token
    token = secrets.token_urlsafe(12)
    # What cannot be remembered is another one the next time.
    with contextlib.suppress(OSError, RuntimeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with paths.atomic_write(path, "w", private=True) as handle:
            handle.write(f"{token}\n")
    return token


def group(address: str) -> str:
    """Whom an address stands for: an IPv4 address itself, an IPv6 address its /64, which one customer has."""
    try:
        number = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return address
    if isinstance(number, ipaddress.IPv6Address):
        if number.ipv4_mapped is not None:
            return str(number.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(number) >> 64 << 64, 64)))
    return str(number)


def _reason(error: OSError) -> str:
    words = (error.strerror or str(error)).split(" (while")[0]
    return words[:1].lower() + words[1:]


def _own_address(version: int) -> str:
    """This machine's address towards others; nothing is sent to find it."""
    family, far = (socket.AF_INET, "192.0.2.1") if version == 4 else (socket.AF_INET6, "2001:db8::1")
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((far, 9))
        return str(probe.getsockname()[0])
    return socket.gethostname()
