"""Why an RTSP camera gives no stream: FFmpeg, which plays it, only says that it does not work.

A short conversation of our own (RFC 2326) tells a wrong password from a wrong path, a closed port, an unknown host, a
camera without video and one that refuses a transport.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
from typing import Optional
from urllib.parse import urlsplit

from edge_mnv2.addresses import StreamUrl, redact
from edge_mnv2.camera.http_client import authorization, best, parse_challenges, port, why_unreachable
from edge_mnv2.camera.live import PasswordRefused
from edge_mnv2.camera.settings import CameraSettings
from edge_mnv2.certificates import context, refusal
from edge_mnv2.errors import SourceError

_MAX_ANSWER = 1 << 18
_HOW_TO_PASSWORD = "put them into the address: rtsp://USER:PASSWORD@HOST/..."


def check_answers(url: StreamUrl, name: str, limit_s: float, ca: Optional[str] = None) -> None:
    """Raise SourceError unless an RTSP server answers at `url` within `limit_s` seconds."""
    with _Conversation(url, name, limit_s, ca) as server:
        server.ask("OPTIONS")


def why_no_stream(url: StreamUrl, name: str, limit_s: float, settings: CameraSettings) -> SourceError:
    """The reason, found by asking as a player does, for a stream that could not be opened."""
    try:
        with _Conversation(url, name, limit_s, settings.ca) as server:
            return _judged(server, url, name, settings.rtsp_transport)
    except SourceError as error:
        return error


def _judged(server: _Conversation, url: StreamUrl, name: str, transport: str) -> SourceError:
    answer = server.ask("DESCRIBE", {"Accept": "application/sdp"})
    if answer.code in (401, 403):
        if url.user is None:
            return PasswordRefused(f"{name} asks for a user name and password ({answer.code})", hint=_HOW_TO_PASSWORD)
        return PasswordRefused(f"{name} refuses the user name or password ({answer.code})")
    if answer.code == 404:
        return SourceError(f"{name} has no such path (404)", hint="look for the stream's path in the camera's manual")
    if answer.code != 200:
        return SourceError(f"{name} answers {answer.code} {answer.reason}")
    tracks = re.findall(r"(?m)^m=(\w+) ", answer.content)
    if "video" not in tracks:
        return SourceError(f"{name} has no video track, only: {', '.join(tracks) or 'nothing'}")
    section = re.split(r"(?m)^m=", answer.content[answer.content.index("m=video") + 2 :])[0]
    codec = re.search(r"(?m)^a=rtpmap:\d+ ([^/\s]+)", section)
    shown = codec[1] if codec else "video"
    control = re.search(r"(?m)^a=control:(\S+)", section)
    track = _joined(answer.headers.get("content-base", url.bare), control[1] if control else "")
    refused = {
        word
        for word, header in (
            ("tcp", "RTP/AVP/TCP;unicast;interleaved=0-1"),
            ("udp", "RTP/AVP;unicast;client_port=49152-49153"),
        )
        if server.ask("SETUP", {"Transport": header}, track).code == 461
    }
    if transport in refused:
        other = "udp" if transport == "tcp" else "tcp"
        hint = f"--rtsp-transport {other}" if other not in refused else None
        return SourceError(f"{name} refuses {transport.upper()} (461)", hint=hint)
    if refused == {"tcp"}:
        return SourceError(f"{name} offers UDP only, and nothing arrives", hint="let UDP through the firewall")
    return SourceError(
        f"{name} offers {shown}, and no picture of it comes or can be decoded",
        hint="choose H.264 in the camera's settings, or its second stream",
    )


def _joined(base: str, control: str) -> str:
    if re.match(r"[a-z]+://", control):
        return control
    return base if control in ("", "*") else base.rstrip("/") + "/" + control


class _Answer:
    def __init__(self, text: str) -> None:
        head, _, self.content = text.partition("\r\n\r\n")
        status, *lines = head.split("\r\n")
        parts = status.split(" ", 2)
        self.code = int(parts[1]) if len(parts) > 1 and parts[1].isdecimal() else 0
        self.reason = parts[2] if len(parts) > 2 else ""
        pairs = [(key.strip().lower(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]
        self.headers = dict(pairs)
        self.challenges = [value for key, value in pairs if key == "www-authenticate"]


class _Conversation:
    """Requests and answers over one connection. A context manager; every step raises SourceError with its reason."""

    def __init__(self, url: StreamUrl, name: str, limit_s: float, ca: Optional[str]) -> None:
        self._url, self._name = url, name
        self._count = 0
        self._challenge: Optional[tuple[str, dict[str, str]]] = None
        host = urlsplit(url.bare).hostname or ""
        try:
            self._socket = socket.create_connection((host, port(url)), timeout=limit_s)
            if url.scheme == "rtsps":
                checked = context(ca) if ca is not None else ssl._create_unverified_context()
                self._socket = checked.wrap_socket(self._socket, server_hostname=host)
        except (OSError, UnicodeError) as error:
            certificate = refusal(error)
            if certificate is not None:
                raise SourceError(f"{name}: {certificate[0]}", hint=certificate[1]) from None
            reason = why_unreachable(error, url) or redact(str(error))
            raise SourceError(
                f"{name} cannot be reached: {reason}", hint="check the address and that the camera is on"
            ) from None

    def __enter__(self) -> _Conversation:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def ask(self, method: str, headers: Optional[dict[str, str]] = None, uri: str = "") -> _Answer:
        """The answer to a request; a challenge is answered where there is a password."""
        answer = self._exchange(method, uri or self._url.bare, headers or {})
        if answer.code == 401 and self._url.user is not None and self._challenge is None:
            self._challenge = best(parse_challenges(answer.challenges))
            if self._challenge is not None:
                answer = self._exchange(method, uri or self._url.bare, headers or {})
        return answer

    def _exchange(self, method: str, uri: str, headers: dict[str, str]) -> _Answer:
        self._count += 1
        lines = [f"{method} {uri} RTSP/1.0", f"CSeq: {self._count}", "User-Agent: edge-mnv2"]
        lines += [f"{key}: {value}" for key, value in headers.items()]
        if self._challenge is not None:
            user, password = self._url.user or "", self._url.password or ""
            lines.append(f"Authorization: {authorization(self._challenge, user, password, method, uri, self._count)}")
        try:
            self._socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
            text = self._received()
        except OSError as error:
            reason = why_unreachable(error, self._url) or redact(str(error))
            raise SourceError(f"{self._name} does not answer: {reason}") from None
        if not text.startswith("RTSP/"):
            raise SourceError(f"{self._name} does not speak RTSP", hint="check the port, which is 554 for most cameras")
        return _Answer(text)

    def _received(self) -> str:
        data = b""
        while b"\r\n\r\n" not in data and len(data) < _MAX_ANSWER:
            more = self._socket.recv(4096)
            if not more:
                return data.decode("latin-1")
            data += more
        head, _, content = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length\s*:\s*(\d+)", head)
        wanted = min(int(length[1]), _MAX_ANSWER) if length else 0
        with contextlib.suppress(TimeoutError, socket.timeout):
            while len(content) < wanted:
                more = self._socket.recv(4096)
                if not more:
                    break
                content += more
        return (head + b"\r\n\r\n" + content).decode("latin-1")
