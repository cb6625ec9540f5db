"""Accelerators that may be lost: held by a process of their own, used with a CPU model to go on with, and regained.

Here is what can go wrong, and what is said then.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Optional, Protocol

from edge_mnv2.errors import AcceleratorError


class DeviceRefused(AcceleratorError):
    """No device is opened: the one kind of failure that a second attempt may cure.

    `reason` is what its library said, often nothing.
    """

    def __init__(self, message: str, *, hint: Optional[str] = None, reason: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class AcceleratorLost(AcceleratorError):
    """An accelerator that was in use fails, hangs or has taken its process along."""


class DeviceHeld(AcceleratorError):
    """Another process uses the device. `pid` is None where it is unknown which; `what` is "an Edge TPU"."""

    def __init__(self, message: str, pid: Optional[int] = None, what: str = "it") -> None:
        super().__init__(message, hint=f"one process at a time can use {what}")
        self.pid = pid


class Driver(Protocol):
    """What a worker loads to reach a device: `path` for the machine, `title` for people.

    `opener`, "module:function", is called in the worker with its order and with what is told each stage that begins;
    it gives an `AnyInterpreter`, or None where the order has no model. `noun` and `refuses` are words for messages;
    `asked_twice`: a device that refuses may only need a moment.
    """

    noun: ClassVar[str]
    refuses: ClassVar[str]
    asked_twice: ClassVar[bool]

    @property
    def opener(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def title(self) -> str: ...

    def hint(self, cause: str, name: str = "") -> Optional[str]:
        """What to do about a cause, a word of `explain`; `name` is that of a library that is missing."""


@dataclass(frozen=True)
class Package:
    """A driver of which nothing more is known than its name."""

    title: str
    path: str
    opener: str
    noun: ClassVar[str] = "accelerator"
    refuses: ClassVar[str] = "refuses"
    asked_twice: ClassVar[bool] = False

    def hint(self, cause: str, name: str = "") -> Optional[str]:  # noqa: ARG002 - as `Driver` has it
        return "does it belong to this version of the runtime, and to this board?"


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
    r"Encountered unresolved custom op: \w+-custom-op\.?|See instructions: \S+"
    r"|Node number \d+ \([^)]*\) failed to \w+\.?"
)


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


def explain(ending: Ending, driver: Driver, runtime: str, device: str) -> AcceleratorError:
    """The error for `ending`, with the native one as its cause. `runtime` is "package version"."""
    error = _error(ending, driver, runtime, device)
    if ending.kind is not None:
        error.__cause__ = _CAUSES.get(ending.kind, RuntimeError)(ending.text)
    return error


def _error(ending: Ending, driver: Driver, runtime: str, device: str) -> AcceleratorError:
    newer = re.search(
        r"requires runtime (?:version )?\(?(\d+)\)?", " ".join((ending.text, *ending.native)), re.IGNORECASE
    )
    if newer:
        return AcceleratorError(
            f"the model was compiled for {driver.noun} runtime {newer.group(1)}, newer than {driver.title}",
            hint=driver.hint("newer"),
        )
    if ending.kind is not None:
        return _reported(ending, driver, runtime, device)
    doing = _DOING.get(ending.stage, ending.stage)
    if ending.waited_s is not None:
        text = f"{device} did not answer within {ending.waited_s:g} s while {doing}"
        return AcceleratorLost(text, hint=driver.hint("device"))
    name = ending.signal_name
    # What worked before and then crashed fits the runtime: there the device or its cable gave the reason.
    hint = driver.hint("unfit" if ending.stage != "use" and name != "SIGABRT" else "device")
    if name in _CRASHES:
        return AcceleratorLost(f"{driver.title} crashed ({name}) under {runtime} while {doing}", hint=hint)
    fatal = _last_words(ending.native)
    ended = "gave up" if name == "SIGABRT" else f"was ended by {name}" if name else f"ended with code {ending.code}"
    return AcceleratorLost(f"{driver.title} {ended} while {doing}{f' ({fatal})' if fatal else ''}", hint=hint)


def _reported(ending: Ending, driver: Driver, runtime: str, device: str) -> AcceleratorError:
    words = _plain(ending.text)
    if ending.stage == "library" or (ending.stage == "create" and ending.kind in ("OSError", "AttributeError")):
        return _unloadable(ending, driver, words)
    if ending.kind == "ImportError" or ending.stage == "runtime":
        return AcceleratorError(f"the worker process has no interpreter: {words}", hint=driver.hint("interpreter"))
    if ending.stage == "create":
        said = words.replace(f"Failed to load delegate from {driver.path}", "").strip(" .:;")
        text = f"{driver.title} {driver.refuses} ({device})" + (f": {said}" if said else "")
        return DeviceRefused(text, hint=driver.hint("refused"), reason=said)
    if "Unsupported data type in custom op handler" in words:
        return AcceleratorError(f"{driver.title} does not fit {runtime}: {words}", hint=driver.hint("unfit"))
    if ending.stage == "open":
        return AcceleratorError(f"{device} refuses the model: {words}", hint=driver.hint("model"))
    return AcceleratorLost(f"{device} fails when the model runs: {words}", hint=driver.hint("device"))


def _unloadable(ending: Ending, driver: Driver, words: str) -> AcceleratorError:
    if ending.kind == "AttributeError":
        text = f"{driver.path} is a library, but no {driver.noun} delegate: {words}"
        return AcceleratorError(text, hint=driver.hint("no delegate"))
    needed = re.match(r"(\S+): cannot open shared object file", words)
    if needed and (name := needed.group(1)).rsplit("/", 1)[-1] != driver.path.rsplit("/", 1)[-1]:
        return AcceleratorError(f"{driver.title} needs {name}, which is missing", hint=driver.hint("needs", name))
    return AcceleratorError(f"{driver.path} cannot be loaded: {words}", hint=driver.hint("file"))


def _plain(text: str) -> str:
    """The first lines, without what the runtime adds to every failure of a custom operator."""
    own_words = _RUNTIME_ADDS.sub("", text)
    lines = [line.strip() for line in (own_words if own_words.strip() else text).splitlines() if line.strip()]
    return "; ".join(lines[:3]).rstrip(". ") or "no reason given"


def _last_words(native: Sequence[str]) -> str:
    """The library's fatal line ("F driver/usb/usb_driver.cc:1148] ..."), else its last one."""
    fatal = [line for line in native if re.match(r"F(?:\d{4})? ", line)]
    lines = fatal or [line for line in native if line.strip()]
    return lines[-1].strip()[:200] if lines else ""
