"""Certificates of servers: those of the system, and a private authority's that the user names with --ca FILE."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Any, Optional

from edge_mnv2.errors import UsageError

if TYPE_CHECKING:
    import requests


def context(
    ca: Optional[str] = None,
    cert: Optional[str] = None,
    key: Optional[str] = None,
    *,
    option: str = "--ca",
    checked: Optional[ssl.SSLContext] = None,
) -> ssl.SSLContext:
    """What a client checks a server by: the system's authorities, and those in the PEM file `ca` beside them.

    `cert` is what it shows of itself, a PEM file; its key is in `key`, or in the same file. Raises UsageError, which
    names `option`, where a file cannot be read or holds something else. `checked`: add to this context.
    """
    checked = checked or ssl.create_default_context()
    for path, load, what in (
        (ca, lambda: checked.load_verify_locations(cafile=ca), "certificate"),
        (cert, lambda: checked.load_cert_chain(str(cert), key), "certificate with the key that belongs to it"),
    ):
        if path is None:
            continue
        try:
            load()
        except ssl.SSLError:
            raise UsageError(
                f"{option} {path} holds no {what}", hint="a PEM file: -----BEGIN CERTIFICATE-----"
            ) from None
        except OSError as error:
            raise UsageError(f"{option} {path} cannot be read: {error.strerror or error}") from error
        except ValueError as error:  # a NUL in the name
            raise UsageError(f"{option} {path!r} cannot be read: {error}") from error
    return checked


def trust(session: requests.Session, ca: Optional[str], *, system: bool = False) -> None:
    """Let `session` accept servers whose certificate the authority in `ca` has signed, or one of the system's; without
    `ca` only where `system` asks for those. Raises UsageError.
    """
    if ca is None and not system:
        return
    from requests.adapters import HTTPAdapter
    from urllib3.util.ssl_ import create_urllib3_context

    # urllib3's own context: before version 2 it compares host names itself, and Python's default one is in its way.
    checked = create_urllib3_context()
    checked.load_default_certs()
    context(ca, checked=checked)

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_context=checked, **options)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            return super().proxy_manager_for(proxy, ssl_context=checked, **options)

    session.mount("https://", Adapter())


def causes(error: BaseException) -> list[BaseException]:
    """`error` and all behind it, which libraries hide in causes, contexts, reasons and arguments; itself last."""
    chain: list[BaseException] = [error]
    for one in chain:
        behind = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        chain += [cause for cause in behind if isinstance(cause, BaseException) and cause not in chain]
    return chain[::-1]


def refusal(error: BaseException) -> Optional[tuple[str, str]]:
    """(what is wrong with a server's certificate, what to do) where that is behind `error`, else None."""
    refused = next((one for one in causes(error) if isinstance(one, ssl.SSLCertVerificationError)), None)
    text = "" if refused is None else refused.verify_message or str(refused)
    if not text:
        return None
    lowered = text.lower()
    if "expired" in lowered or "not yet valid" in lowered:
        hint = "check this computer's date, or renew the server's certificate"
    elif "mismatch" in lowered or "not valid for" in lowered:
        hint = "use the name that the certificate is for"
    else:
        hint = "name the file with its authority's certificate: --ca FILE"
    return f"its certificate is refused: {text}", hint


def failure(error: BaseException) -> Optional[str]:
    """Why there is no connection, in one phrase; None where that is not known."""
    if (certificate := refusal(error)) is not None:
        return f"{certificate[0]}; {certificate[1]}"
    for one in causes(error):
        if isinstance(one, ssl.SSLError):
            reason = one.reason or ""
            if any(sign in reason for sign in ("WRONG_VERSION", "RECORD_LAYER", "HTTP_REQUEST", "PACKET_LENGTH")):
                return "it does not speak TLS there"
            if "CERTIFICATE_REQUIRED" in reason or "HANDSHAKE_FAILURE" in reason:
                return "it asks for a certificate of this board"
            return f"TLS fails ({reason.lower().replace('_', ' ') or one})"
        if isinstance(one, socket.gaierror):
            return "its name cannot be resolved"
        if isinstance(one, ConnectionRefusedError):
            return "it refuses connections to that port"
        if isinstance(one, (TimeoutError, socket.timeout)) or "Timeout" in type(one).__name__:
            return "no answer in time"
        if isinstance(one, ConnectionError):
            return "it ended the connection"
        if isinstance(one, OSError) and one.errno is not None and one.strerror:
            return one.strerror[:1].lower() + one.strerror[1:]
    return None
