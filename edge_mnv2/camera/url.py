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
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        # Without an @ in the plain authority it is host[:port], unless "port" is no number: then a password with a
        # slash (or ? or #) has split it, and the last @ ends the credentials.
        split = authority.rfind("@")
        if split < 0 and not _PORT.fullmatch(authority):
            split = rest.rfind("@")
        if split >= 0:
            credentials, rest = rest[:split], rest[split + 1 :]
            user, colon, secret = credentials.partition(":")
            user, password = unquote(user), unquote(secret) if colon else None
        host = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if not _PORT.fullmatch(host) or not host.strip(":"):
            raise UsageError(f"the address {scheme}://... has no host", hint="for instance rtsp://camera.local/stream")
        return cls(scheme, user, password, rest)

    @property
    def shown(self) -> str:
        """The address for people: no user, no password, no query."""
        place, mark, _ = self.place.partition("?")
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


def redact(text: str) -> str:
    """`text` with what looks like credentials taken out: `user:password@` in addresses, `password=...` and the like."""
    text = re.sub(r"(?i)([a-z][a-z0-9+.-]*://)[^\s\"'!]*@", r"\1...@", text)
    return _SECRET_WORDS.sub(r"\1\2...", text)
