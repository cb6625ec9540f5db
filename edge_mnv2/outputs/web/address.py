"""Where the page is served, and who can reach it there."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass

from edge_mnv2.errors import UsageError

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

    def listen(self) -> socket.socket:
        """A listening socket. Raises UsageError where that cannot be had."""
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
            raise UsageError(
                f"{shown}: {_reason(error)}", hint="choose another port, or end what uses it (ss -ltnp shows it)"
            ) from None
        listener.setblocking(False)
        return listener


def parse(text: str) -> Address:
    """`PORT` (on loopback) or `HOST:PORT`. Raises UsageError."""
    match = re.fullmatch(r"(?:(?P<host>\[[0-9a-fA-F:.%]+\]|[^:\[\]/\s@]+):)?(?P<port>[0-9]{1,5})", text.strip())
    if match is None or int(match["port"]) > 65535:
        raise UsageError(f"--web {text}", hint=_HINT)
    return Address((match["host"] or "127.0.0.1").strip("[]"), int(match["port"]))


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
