"""Addresses of cameras, brokers and web services: taken apart in one way, and their secrets never shown."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, unquote, urlsplit

from edge_mnv2.errors import UsageError

_SAFE = "-._~!$&'()*+,;="
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PORT = re.compile(r"(?:\[[^\]]*\]|[^:]*)(?::\d*)?")
_END = re.compile(r"[/?#]")
_NUMBER_HOST = re.compile(r"(?:\d{1,3}(?:\.\d{1,3}){3}|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?(?=[/?#]|$)")
_CERTAIN_HOST = re.compile(
    r"""(?x) (?:\d{1,3}(?:\.\d{1,3}){3} | \[[0-9A-Fa-f:.]+\] | localhost | [\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,})
        (?::\d{1,5})? (?=[/?#]|$)"""
)
_WORDS = (
    r"(?<![A-Za-z])(?:user(?:name)?|usr|user-?id|user-pw|login|pass(?:word|wd|phrase)?|pwd|psw|secret|token"
    r"|access[_-]?token|auth(?:orization)?|api[_-]?key|key|sig(?:nature)?|session(?:[_-]?id)?|sid|credentials?)"
)
_SECRET_WORDS = re.compile(rf"(?i)({_WORDS})(\s*=\s*)(\"[^\"]*\"|'[^']*'|[^\s&!]+)")
_ANY_ADDRESS = re.compile(r"(?i)([a-z][a-z0-9+.-]*(?::/{1,3}|//)|//)[^\s\"'!]*@")
_SCHEME = re.compile(r"\A(?:[A-Za-z][A-Za-z0-9+.-]*(?::/{1,3}|//)|//)")
_SCHEME_ONLY = re.compile(r"\A[A-Za-z][A-Za-z0-9+.-]*:(?=[^@]*:[^@]*@)")
_NO_SCHEME = re.compile(r"[^\s\"'!/:=]+:[^\s\"'!]*@(?=[\w\[])")
_TEST_PATTERN = re.compile(r"test:[\dx.]*@[\d.]+(?:e\d+)?(?![\w.-])|test:WIDTHxHEIGHT@")
"""Of the sources that are no addresses, the one with an @ in it."""
_PLACEHOLDER = re.compile(r"(?:[a-z[\]]*:?//)?USER:PASSWORD@|test\[:WxH@|(?i:key=value)[.\]]*")
"""What our own help and hints say instead of a secret."""


_known: set[str] = set()
"""Secrets of this process in each form that a message may show them in."""
_shown: set[str] = set()


@dataclass(frozen=True)
class StreamUrl:
    """`scheme://user:password@place`, taken apart. `user` and `password` are plain text, not percent-encoded."""

    scheme: str
    user: Optional[str]
    password: Optional[str]
    place: str

    @classmethod
    def parse(cls, text: str, example: str = "rtsp://camera.local/stream") -> StreamUrl:
        """Take `text` apart, with a password that holds `@`, `:`, `/`, `?` or `#` unescaped as well.

        Raises UsageError, which does not repeat a password, where there is no host, or where the host cannot be told
        from a password.
        """
        remember_secrets([text])
        match = _ADDRESS.fullmatch(text.strip())
        if not match:
            raise UsageError(f"'{redact(text)}' is not an address", hint=f"for instance {example}")
        scheme, rest = match[1].lower(), match[2]
        user = password = None
        split = _end_of_credentials(rest)
        if split is not None:
            credentials, rest = rest[:split], rest[split + 1 :]
            user, colon, secret = credentials.partition(":")
            user, password = unquote(user), unquote(secret) if colon else None
        host = _END.split(rest, maxsplit=1)[0]
        if not _PORT.fullmatch(host) or host[:1] in ("", ":"):
            raise UsageError(f"the address {scheme}://... has no host", hint=f"for instance {example}")
        return cls(scheme, user, password, rest)

    @property
    def host(self) -> str:
        """The host's name or number, without brackets."""
        return urlsplit(f"//{self.place}").hostname or ""

    @property
    def port(self) -> Optional[int]:
        """Raises UsageError where it is none."""
        try:
            return urlsplit(f"//{self.place}").port
        except ValueError:
            raise UsageError(f"{self.shown}: this is no port", hint="ports go from 1 to 65535") from None

    @property
    def origin(self) -> str:
        """Scheme, host and port alone: what may be shown where the path itself can be a secret."""
        return f"{self.scheme}://{_END.split(self.place, maxsplit=1)[0]}"

    @property
    def shown(self) -> str:
        """The address for people: no user, no password, no query, and no path that could hold a password."""
        path, mark, _ = self.place.partition("?")
        path, hash_mark, _ = path.partition("#")
        if "@" in self.place or _SECRET_WORDS.search(path):
            path = _END.split(path, maxsplit=1)[0] + "/..."
        return f"{self.scheme}://{path}{'?...' if mark else '#...' if hash_mark else ''}"

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

    A password that was not percent-encoded may hold every sign that ends a host, and a path may hold an @. Raises
    UsageError where `name:digits/...@...` may be both.
    """
    authority = _END.split(rest, maxsplit=1)[0]
    marks = [match.start() for match in re.finditer("@", rest)]
    if not marks:
        return None
    # No address of ours has a fragment: what stands behind # belongs to a password.
    behind_hash = ":" in rest.partition("#")[0] and "#" in rest[: marks[-1]]
    if "@" not in authority and _PORT.fullmatch(authority) and not behind_hash:
        # Digits behind a colon are a port, or the beginning of a password that goes on behind / or ?.
        if ":" not in authority or _NUMBER_HOST.match(rest):
            return None
        behind = rest[len(authority) :]
        if behind.startswith("/"):
            if "@" not in behind.partition("?")[0]:
                return None
            if _CERTAIN_HOST.match(rest) or not any(_CERTAIN_HOST.match(rest, mark + 1) for mark in marks):
                raise UsageError(
                    "an address can be read in two ways: with a port, or with a password that holds a /",
                    hint="in a password write / as %2F, in a path write @ as %40",
                )
    before_query = [mark for mark in marks if "?" not in rest[:mark]]
    for group in (before_query, marks):
        certain = [mark for mark in group if _CERTAIN_HOST.match(rest, mark + 1)]
        if certain:
            return certain[-1]
    last = authority.rfind("@")
    return marks[-1] if last < 0 or behind_hash else last


def secrets_of(text: str) -> list[str]:
    """What in `text`, an address or a mistyped one, looks like credentials: `user:password`, the password alone, values
    of `password=` and the like. Longest first."""
    text = text.strip()
    if _TEST_PATTERN.match(text):
        return []
    secrets = {match[3].strip("\"'") for match in _SECRET_WORDS.finditer(text)}
    # With the scheme as it should be, with a mistyped one, without one.
    for rest in {text, _SCHEME.sub("", text, count=1), _SCHEME_ONLY.sub("", text, count=1)}:
        with contextlib.suppress(UsageError):
            split = _end_of_credentials(rest)
            if split is None and _SCHEME.match(text) is None:
                split = rest.rfind("@")
            if split is not None and split > 0 and (":" in rest[:split] or rest != text):
                credentials = rest[:split]
                password = credentials.partition(":")[2]
                secrets |= {credentials, password, unquote(password)}
    return sorted((secret for secret in secrets if secret), key=len, reverse=True)


def remember_secrets(texts: Iterable[str], *, whole: bool = False) -> None:
    """From now on no message of this process shows the secrets in `texts` (with `whole`, the texts themselves)."""
    for text in texts:
        for secret in [text] if whole else secrets_of(text) if "@" in text or "=" in text else []:
            _known.update((secret, quote(secret, safe=""), quote(secret, safe=_SAFE), repr(secret)[1:-1]))
            _known.add(json.dumps(secret)[1:-1])


def show_on_purpose(secret: str) -> None:
    """Let messages show `secret`: it was made for the person who reads them."""
    _shown.add(secret)


def redact(text: str) -> str:
    """`text` without what looks like credentials: secrets of this process, `user:password@`, `password=...`."""
    text = hide_known(text, 4)

    def ours(match: re.Match[str]) -> bool:
        return (
            _PLACEHOLDER.fullmatch(match[0]) is not None or _TEST_PATTERN.match(match.string, match.start()) is not None
        )

    text = _ANY_ADDRESS.sub(lambda match: match[0] if ours(match) else f"{match[1]}...@", text)
    text = _NO_SCHEME.sub(lambda match: match[0] if ours(match) else "...@", text)
    return _SECRET_WORDS.sub(
        lambda match: match[0] if match[3] in _shown or ours(match) else f"{match[1]}{match[2]}...", text
    )


def hide_known(text: str, least: int = 8) -> str:
    """`text` without the secrets of this process that have at least `least` signs and are no plain lower-case word.

    Results pass this: their names of fields and numbers stay as they are.
    """
    for secret in sorted(_known, key=len, reverse=True):
        if len(secret) >= least and secret in text and (least < 8 or not re.fullmatch(r"[a-z_0-9.]+", secret)):
            text = text.replace(secret, "...")
    return text
