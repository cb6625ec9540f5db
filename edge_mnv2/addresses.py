"""Addresses of streams: user names and passwords made fit for a library, and never shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, unquote

from edge_mnv2.errors import UsageError

_SAFE = "-._~!$&'()*+,;="
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PORT = re.compile(r"(?:\[[^\]]*\]|[^:]*)(?::\d*)?")
_END = re.compile(r"[/?#]")
_CERTAIN_HOST = re.compile(
    r"""(?x) (?:\d{1,3}(?:\.\d{1,3}){3} | \[[0-9A-Fa-f:.]+\] | localhost | [\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,})
        (?::\d{1,5})? (?=[/?#]|$)"""
)
_SECRET_WORDS = re.compile(
    r"""(?ix) \b (user(?:name)? | user-?id | user-pw | pass(?:word|wd)? | pwd | token | auth | key)
        (\s*=\s*) ("[^"]*" | '[^']*' | [^\s&!]+)"""
)


@dataclass(frozen=True)
class StreamUrl:
    """`scheme://user:password@place`, taken apart. `user` and `password` are plain text, not percent-encoded."""

    scheme: str
    user: Optional[str]
    password: Optional[str]
    place: str

    @classmethod
    def parse(cls, text: str) -> StreamUrl:
        """Take `text` apart, with a password that holds `@`, `:`, `/`, `?` or `#` unescaped as well.

        Raises UsageError, which does not repeat a password, where there is no host.
        """
        match = _ADDRESS.fullmatch(text.strip())
        if not match:
            raise UsageError(f"'{redact(text)}' is not an address", hint="for instance rtsp://camera.local/stream")
        scheme, rest = match[1].lower(), match[2]
        user = password = None
        split = _end_of_credentials(rest)
        if split is not None:
            credentials, rest = rest[:split], rest[split + 1 :]
            user, colon, secret = credentials.partition(":")
            user, password = unquote(user), unquote(secret) if colon else None
        host = _END.split(rest, maxsplit=1)[0]
        if not _PORT.fullmatch(host) or host[:1] in ("", ":"):
            raise UsageError(f"the address {scheme}://... has no host", hint="for instance rtsp://camera.local/stream")
        return cls(scheme, user, password, rest)

    @property
    def shown(self) -> str:
        """The address for people: no user, no password, no query, and no path that could be a piece of a password."""
        place, mark, _ = self.place.partition("?")
        if "@" in self.place:
            place = _END.split(place, maxsplit=1)[0] + "/..."
        return f"{self.scheme}://{place}{'?...' if mark else ''}"

    @property
    def bare(self) -> str:
        """The address without credentials, for a client that takes them apart from it."""
        return f"{self.scheme}://{self.place}"

    @property
    def full(self) -> str:
        """The address with percent-encoded credentials, for a library. Never show it."""
        if self.user is None:
            return self.bare
        secret = "" if self.password is None else ":" + quote(self.password, safe=_SAFE)
        return f"{self.scheme}://{quote(self.user, safe=_SAFE)}{secret}@{self.place}"


def _end_of_credentials(rest: str) -> Optional[int]:
    """Where the @ is that ends `user:password` in what follows `://`; None where there are no credentials.

    A password that was not percent-encoded may hold every sign that ends a host, and a path may hold an @.
    """
    authority = _END.split(rest, maxsplit=1)[0]
    if "@" not in authority and _PORT.fullmatch(authority):
        return None
    marks = [match.start() for match in re.finditer("@", rest)]
    before_query = [mark for mark in marks if "?" not in rest[:mark]]
    for group in (before_query, marks):
        certain = [mark for mark in group if _CERTAIN_HOST.match(rest, mark + 1)]
        if certain:
            return certain[-1]
    last = authority.rfind("@")
    return last if last >= 0 else marks[-1] if marks else None


def redact(text: str) -> str:
    """`text` with what looks like credentials taken out: `user:password@` in addresses, `password=...` and the like."""
    text = re.sub(r"(?i)([a-z][a-z0-9+.-]*://)[^\s\"'!]*@", r"\1...@", text)
    return _SECRET_WORDS.sub(r"\1\2...", text)
