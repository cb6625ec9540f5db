"""Where the page is served, and who can reach it there."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import re
import secrets
import socket
from dataclasses import dataclass, replace
from typing import Union

from edge_mnv2 import paths
from edge_mnv2.errors import UsageError

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
