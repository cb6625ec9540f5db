"""Certificates of servers: those of the system, and a private authority's that the user names with --ca FILE."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, Optional

from edge_mnv2.errors import UsageError

if TYPE_CHECKING:
    import requests


def context(ca: Optional[str] = None) -> ssl.SSLContext:
    """What a client checks a server by: the system's authorities, and those in the PEM file `ca` beside them.

    Raises UsageError where `ca` cannot be read or holds no certificate.
    """
    checked = ssl.create_default_context()
    if ca is not None:
        try:
            checked.load_verify_locations(cafile=ca)
        except ssl.SSLError:
            raise UsageError(
                f"--ca {ca} holds no certificate", hint="a PEM file: -----BEGIN CERTIFICATE-----"
            ) from None
        except OSError as error:
            raise UsageError(f"--ca {ca} cannot be read: {error.strerror or error}") from error
        except ValueError as error:  # a NUL in the name
            raise UsageError(f"--ca {ca!r} cannot be read: {error}") from error
    return checked


def trust(session: requests.Session, ca: Optional[str]) -> None:
    """Let `session` accept servers whose certificate the authority in `ca` has signed. Raises UsageError."""
    if ca is None:
        return
    from requests.adapters import HTTPAdapter

    checked = context(ca)

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, ssl_context=checked, **options)

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
