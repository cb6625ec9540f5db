"""HTTP as cameras speak it: user names and passwords by every challenge, redirects, private certificates, reasons.

Challenges and digests are those of RFC 7616 and RFC 7617. Cameras are reached directly, never through a proxy.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import select
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import urlsplit

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.camera.live import PasswordRefused
from edge_mnv2.certificates import causes, refusal, trust
from edge_mnv2.errors import SourceError
from edge_mnv2.messages import first_line

if TYPE_CHECKING:
    import requests

Hash = Callable[[bytes], Any]
_HASHES: dict[str, Hash] = {
    "SHA-256": hashlib.sha256,
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data),
    "MD5": hashlib.md5,
}
"""The best first."""
_CHALLENGE = re.compile(
    r"""(?x) (?:^|,)\s* ([A-Za-z][\w-]*) \s+ (?= [\w-]+\s*= )    # a scheme before its first parameter
        | (?:^|,)\s* ([A-Za-z][\w-]*) \s* (?=,|$)                # a scheme without parameters
        | ([\w-]+) \s*=\s* (?: "((?:[^"\\]|\\.)*)" | ([^\s,]*) )"""
)


class HttpClient:
    """Asks one address, again and again, over connections that are kept. `name` is shown in errors."""

    def __init__(self, url: StreamUrl, name: str, ca: Optional[str] = None) -> None:
        import requests

        self._url, self._name = url, name
        # Its debug messages hold addresses with everything in them.
        logging.getLogger("urllib3").setLevel(logging.WARNING)
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({"User-Agent": "edge-mnv2", "Accept": "*/*", "Accept-Encoding": "identity"})
        if url.user is not None:
            self._session.auth = _Credentials(url)
        trust(self._session, ca)

    def get(self, connect_s: float, silence_s: float) -> Answer:
        """The answer, with its content still to be read; no read waits longer than `silence_s`. Raises SourceError."""
        import requests

        try:
            response = self._session.get(self._url.bare, stream=True, timeout=(connect_s, silence_s))
        except requests.TooManyRedirects:
            raise SourceError(f"{self._name} redirects in a circle") from None
        except (requests.RequestException, OSError, ValueError) as error:
            raise self._explained(error) from None
        if response.status_code < 300:
            return Answer(response)
        response.close()
        raise self._refused(response)

    def close(self) -> None:
        self._session.close()

    def _refused(self, response: requests.Response) -> SourceError:
        code, name = response.status_code, self._name
        if code == 404:
            return SourceError(f"{name} has no such path (404)", hint="look for the stream's own address")
        if code not in (401, 403):
            return SourceError(f"{name} answers {code} {response.reason}")
        schemes = [scheme for scheme, _ in challenges(response)]
        if self._url.user is None:
            hint: Optional[str] = "put them into the address: http://USER:PASSWORD@HOST/..."
        elif code == 401 and schemes and not {"basic", "digest"} & set(schemes):
            return PasswordRefused(f"{name} asks for a password by {', '.join(schemes)}, which is not supported")
        elif urlsplit(response.url).hostname != urlsplit(self._url.bare).hostname:
            hint = f"it redirects to {urlsplit(response.url).hostname}, which gets no password: give that address"
        else:
            hint = None
        return PasswordRefused(f"{name} refuses the user name or password ({code})", hint=hint)

    def _explained(self, error: BaseException) -> SourceError:
        certificate = refusal(error)
        if certificate is not None:
            return SourceError(f"{self._name}: {certificate[0]}", hint=certificate[1])
        reason = why_unreachable(error, self._url)
        if reason is None:
            return SourceError(f"{self._name} does not speak HTTP: {redact(first_line(causes(error)[0]))}")
        return SourceError(
            f"{self._name} cannot be reached: {reason}", hint="check the address and that the camera is on"
        )


class Answer:
    """An answer whose content is read as it comes."""

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        self.type = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
        length = response.headers.get("Content-Length", "")
        self.length = int(length) if length.isdecimal() else None
        # The standard library's response: it alone gives what has arrived, and does not wait for more.
        raw: Any = response.raw
        self._raw = raw._fp
        # A second descriptor of the same connection: shutting it down ends a read in another thread.
        with contextlib.suppress(OSError, AttributeError, ValueError):
            self._socket: Optional[socket.socket] = socket.socket(fileno=os.dup(self._raw.fileno()))

    _socket: Optional[socket.socket] = None

    def read(self, size: int = 1 << 18) -> bytes:
        """What has arrived, at most `size` bytes; waits for the first, empty at the end.

        Raises TimeoutError and other OSErrors, and ValueError where the content breaks HTTP.
        """
        from http.client import HTTPException

        try:
            return bytes(self._raw.read1(size))
        except socket.timeout as error:
            raise TimeoutError("it has gone silent") from error
        except (HTTPException, AttributeError) as error:
            raise ValueError(f"its answer breaks off: {error}") from error

    def whole(self, limit: int, before: int = 0) -> bytes:
        """All that comes, which ends before `limit` bytes; `before` were read already. Raises as `read`."""
        content = b""
        while (data := self.read()) and len(content) <= limit:
            content += data
        if self.length is not None and before + len(content) < self.length:
            raise ValueError(f"{before + len(content)} of {self.length} bytes came")
        self._response.close()
        return content

    def more_within(self, seconds: float) -> bool:
        """Whether a read would return (data or the end) within `seconds`; a read that times out would end the rest."""
        connection = getattr(getattr(self._raw.fp, "raw", None), "_sock", None)
        if connection is None or getattr(connection, "pending", lambda: 0)():
            return True
        return bool(select.select([connection], [], [], seconds)[0])

    def interrupt(self) -> None:
        """End a read that another thread is in."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._response.close()
        if self._socket is not None:
            self._socket.close()


class _Credentials:
    """Answers challenges of the host that was asked for, and of no other."""

    def __init__(self, url: StreamUrl) -> None:
        self._user, self._password = url.user or "", url.password or ""
        self._host = urlsplit(url.bare).hostname
        self._challenge: Optional[tuple[str, dict[str, str]]] = None
        self._count = 0

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._challenge is not None:
            request.headers["Authorization"] = self._header(request)
        request.register_hook("response", self._answered)
        return request

    def _answered(self, response: requests.Response, **options: Any) -> requests.Response:
        # Twice, because a nonce that we kept may have become stale.
        for _ in range(2):
            if response.status_code != 401 or urlsplit(response.url).hostname != self._host:
                break
            before, self._challenge = self._challenge, best(challenges(response))
            sent = response.request.headers.get("Authorization")
            if self._challenge is None or (sent and before == self._challenge):
                break
            self._count = 0
            response.close()
            request = response.request.copy()
            request.headers["Authorization"] = self._header(request)
            again: requests.Response = response.connection.send(request, **options)
            again.history.append(response)
            again.request = request
            response = again
        return response

    def _header(self, request: requests.PreparedRequest) -> str:
        assert self._challenge is not None
        self._count += 1
        method, uri = request.method or "GET", request.path_url
        return authorization(self._challenge, self._user, self._password, method, uri, self._count)


def challenges(response: requests.Response) -> list[tuple[str, dict[str, str]]]:
    """(scheme, parameters) of every challenge; several may stand in one header, or in one each."""
    return parse_challenges(response.raw.headers.getlist("WWW-Authenticate"))


def parse_challenges(lines: list[str]) -> list[tuple[str, dict[str, str]]]:
    """The same of the values of `WWW-Authenticate` headers."""
    return [challenge for line in lines for challenge in _parsed(line)]


def _parsed(line: str) -> Iterator[tuple[str, dict[str, str]]]:
    scheme = ""
    parameters: dict[str, str] = {}
    for match in _CHALLENGE.finditer(line):
        name = match[1] or match[2]
        if name:
            if scheme:
                yield scheme, parameters
            scheme, parameters = name.lower(), {}
        elif match[3]:
            value = match[4] if match[4] is not None else match[5]
            parameters[match[3].lower()] = re.sub(r"\\(.)", r"\1", value or "")
    if scheme:
        yield scheme, parameters


def best(offered: list[tuple[str, dict[str, str]]]) -> Optional[tuple[str, dict[str, str]]]:
    """The challenge to answer: the strongest digest, else Basic, else None."""
    order = list(_HASHES)

    def rank(challenge: tuple[str, dict[str, str]]) -> int:
        return order.index(_algorithm(challenge[1])) if challenge[0] == "digest" else len(order)

    known = [
        (scheme, parameters)
        for scheme, parameters in offered
        if scheme == "basic" or (scheme == "digest" and _algorithm(parameters) in order)
    ]
    return min(known, key=rank, default=None)


def _algorithm(parameters: dict[str, str]) -> str:
    name = parameters.get("algorithm", "MD5").upper()
    return name[: -len("-SESS")] if name.endswith("-SESS") else name


def authorization(
    challenge: tuple[str, dict[str, str]], user: str, password: str, method: str, uri: str, count: int
) -> str:
    """The `Authorization` header that answers a challenge as `best` gives it, for the `count`th time."""
    scheme, parameters = challenge
    if scheme == "basic":
        return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
    return digest(parameters, user, password, method, uri, count)


def digest(parameters: dict[str, str], user: str, password: str, method: str, uri: str, count: int) -> str:
    """The `Authorization` header that answers a digest challenge; RFC 7616, section 3.4."""
    function = _HASHES[_algorithm(parameters)]

    def hashed(text: str) -> str:
        return str(function(text.encode()).hexdigest())

    realm, nonce = parameters.get("realm", ""), parameters.get("nonce", "")
    cnonce = secrets.token_hex(8)
    secret = hashed(f"{user}:{realm}:{password}")
    if parameters.get("algorithm", "").upper().endswith("-SESS"):
        secret = hashed(f"{secret}:{nonce}:{cnonce}")
    offered = [word.strip().lower() for word in parameters.get("qop", "").split(",") if word.strip()]
    qop = "auth" if "auth" in offered else offered[0] if offered else ""
    action = hashed(f"{method}:{uri}" + (f":{hashed('')}" if qop == "auth-int" else ""))
    protected = (f"{count:08x}", cnonce, qop) if qop else ()
    by_name = parameters.get("userhash", "").lower() == "true"
    fields = [
        ("username", hashed(f"{user}:{realm}") if by_name else user),
        ("realm", realm),
        ("nonce", nonce),
        ("uri", uri),
        ("response", hashed(":".join((secret, nonce, *protected, action)))),
    ]
    if "opaque" in parameters:
        fields.append(("opaque", parameters["opaque"]))
    text = ", ".join(f'{name}="{_quoted(value)}"' for name, value in fields)
    if "algorithm" in parameters:
        text += f", algorithm={parameters['algorithm']}"
    if qop:
        text += f', qop={qop}, nc={count:08x}, cnonce="{cnonce}"'
    return f"Digest {text}" + (", userhash=true" if by_name else "")


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def why_unreachable(error: BaseException, url: StreamUrl) -> Optional[str]:
    """Why there is no connection to `url`, in words; None where there was one."""
    host = urlsplit(url.bare).hostname
    for one in causes(error):
        if isinstance(one, socket.gaierror) or "resolve" in type(one).__name__.lower() or "NameResolution" in str(one):
            return f"no computer is called {host}"
        if isinstance(one, UnicodeError):
            return f"{host} cannot be a computer's name"
        if isinstance(one, ConnectionRefusedError):
            return f"it refuses connections to port {port(url)}"
        if isinstance(one, (TimeoutError, socket.timeout)) or "Timeout" in type(one).__name__:
            return "no answer in time"
        if isinstance(one, OSError) and one.errno is not None and one.strerror:
            return redact(one.strerror)
    return None


def port(url: StreamUrl) -> int:
    """The port of an address, by its scheme where it names none."""
    return urlsplit(url.bare).port or {"https": 443, "rtsp": 554, "rtsps": 322}.get(url.scheme, 80)
