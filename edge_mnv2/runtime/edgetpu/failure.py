"""From what a worker process left behind to one line for a person, and what to do."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from edge_mnv2.errors import AcceleratorError
from edge_mnv2.runtime.edgetpu.library import COMMUNITY_BUILDS, VARIABLE, Library

_DOING = {
    "start": "starting",
    "runtime": "loading the runtime",
    "library": "loading the library",
    "create": "opening the device",
    "open": "loading the model",
    "invoke": "running the model for the first time",
    "use": "running the model",
}
_CAUSES = {error.__name__: error for error in (OSError, AttributeError, ValueError, RuntimeError, ImportError)}
_CRASHES = ("SIGSEGV", "SIGILL", "SIGBUS", "SIGFPE")

_RUNTIME_ADDS = re.compile(
    r"Encountered unresolved custom op: edgetpu-custom-op\.?|See instructions: \S+"
    r"|Node number \d+ \([^)]*\) failed to \w+\.?"
)

FIT = f"install a libedgetpu built for TensorFlow 2.17 or newer ({COMMUNITY_BUILDS}, see docs/edgetpu.md)"
RESEAT = "plug it in again, into a USB 3 port with its own short cable or behind a powered hub"


class DeviceRefused(AcceleratorError):
    """The library opens no device: the one kind of failure that a second attempt may cure.

    `reason` is what the library said, often nothing.
    """

    def __init__(self, message: str, *, hint: Optional[str] = None, reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class AcceleratorLost(AcceleratorError):
    """An Edge TPU that was in use fails, hangs or has taken its process along."""


@dataclass(frozen=True)
class Ending:
    """How a worker came to its end.

    `stage` is what it was doing ("use" once it had worked). Either it reported an error (`kind`, `text`), or it was
    ended by a signal or with exit code `code`, or did not answer for `waited_s`. `native` are the last lines that
    native code wrote.
    """

    stage: str
    kind: Optional[str] = None
    text: str = ""
    code: Optional[int] = None
    waited_s: Optional[float] = None
    native: Sequence[str] = ()

    @property
    def signal_name(self) -> Optional[str]:
        if self.code is None or self.code >= 0:
            return None
        try:
            return signal.Signals(-self.code).name
        except ValueError:
            return f"signal {-self.code}"


def explain(ending: Ending, library: Library, runtime: str, device: str) -> AcceleratorError:
    """The error for `ending`, with the native one as its cause. `runtime` is "package version"."""
    error = _told(ending, library, runtime, device)
    if ending.kind is not None:
        error.__cause__ = _CAUSES.get(ending.kind, RuntimeError)(ending.text)
    return error


def _told(ending: Ending, library: Library, runtime: str, device: str) -> AcceleratorError:
    newer = re.search(
        r"requires runtime (?:version )?\(?(\d+)\)?", " ".join((ending.text, *ending.native)), re.IGNORECASE
    )
    if newer:
        return AcceleratorError(
            f"the model was compiled for Edge TPU runtime {newer.group(1)}, newer than {library.title}",
            hint="install a newer libedgetpu, or compile the model with --min_runtime_version",
        )
    if ending.kind is not None:
        return _reported(ending, library, runtime, device)
    doing = _DOING.get(ending.stage, ending.stage)
    if ending.waited_s is not None:
        return AcceleratorLost(f"{device} did not answer within {ending.waited_s:g} s while {doing}", hint=RESEAT)
    name = ending.signal_name
    # What worked before and then crashed fits the runtime: there the device or its cable gave the reason.
    unfit = ending.stage != "use" and name != "SIGABRT"
    if name in _CRASHES:
        return AcceleratorLost(
            f"{library.title} crashed ({name}) under {runtime} while {doing}", hint=FIT if unfit else RESEAT
        )
    fatal = _last_words(ending.native)
    ended = "gave up" if name == "SIGABRT" else f"was ended by {name}" if name else f"ended with code {ending.code}"
    return AcceleratorLost(
        f"{library.title} {ended} while {doing}{f' ({fatal})' if fatal else ''}", hint=FIT if unfit else RESEAT
    )


def _reported(ending: Ending, library: Library, runtime: str, device: str) -> AcceleratorError:
    words = _plain(ending.text)
    if ending.stage == "library" or (ending.stage == "create" and ending.kind in ("OSError", "AttributeError")):
        return _unloadable(ending, library, words)
    if ending.kind == "ImportError" or ending.stage == "runtime":
        return AcceleratorError(f"the worker process has no interpreter: {words}")
    if ending.stage == "create":
        said = words.replace(f"Failed to load delegate from {library.path}", "").strip(" .:;")
        return DeviceRefused(
            f"{library.title} opens no Edge TPU ({device})" + (f": {said}" if said else ""),
            hint="is it attached, free, and yours to open? `edge-mnv2 doctor` tells",
            reason=said,
        )
    if "Unsupported data type in custom op handler" in words:
        return AcceleratorError(f"{library.title} does not fit {runtime}: {words}", hint=FIT)
    if ending.stage == "open":
        return AcceleratorError(
            f"{device} refuses the model: {words}", hint="compile it again with edgetpu_compiler, or update libedgetpu"
        )
    return AcceleratorLost(f"{device} fails when the model runs: {words}", hint=RESEAT)


def _unloadable(ending: Ending, library: Library, words: str) -> AcceleratorError:
    if ending.kind == "AttributeError":
        return AcceleratorError(
            f"{library.path} is a library, but no Edge TPU delegate: {words}",
            hint=f"install libedgetpu, or set {VARIABLE} to the right file",
        )
    needed = re.match(r"(\S+): cannot open shared object file", words)
    if needed and needed.group(1).rsplit("/", 1)[-1] != library.path.rsplit("/", 1)[-1]:
        package = "libusb-1.0-0" if needed.group(1).startswith("libusb-1.0") else None
        hint = f"sudo apt install {package}" if package else f"install what provides {needed.group(1)}"
        return AcceleratorError(f"{library.title} needs {needed.group(1)}, which is missing", hint=hint)
    return AcceleratorError(f"{library.path} cannot be loaded: {words}", hint="install libedgetpu again")


def _plain(text: str) -> str:
    """The first lines, without what the runtime adds to every failure of a custom operator."""
    told = _RUNTIME_ADDS.sub("", text)
    lines = [line.strip() for line in (told if told.strip() else text).splitlines() if line.strip()]
    return "; ".join(lines[:3]).rstrip(". ") or "no reason given"


def _last_words(native: Sequence[str]) -> str:
    """The library's fatal line ("F driver/usb/usb_driver.cc:1148] ..."), else its last one."""
    fatal = [line for line in native if re.match(r"F(?:\d{4})? ", line)]
    lines = fatal or [line for line in native if line.strip()]
    return lines[-1].strip()[:200] if lines else ""
