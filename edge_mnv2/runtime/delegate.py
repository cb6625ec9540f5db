"""What `--delegate` asks for, and how an accelerator that may be lost answers that.

A row of `runtime.table` that is `supervised` has a module with

    plan(request, spec, fall_back) -> Plan
    open_supervised(spec, compiled, cpu, *, runtime, threads, count, input_size, fall_back) -> [interpreter, ...]

where `request` is what `--model` says, and `fall_back` whether the CPU is to go on when the accelerator is lost.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from edge_mnv2.errors import UsageError
from edge_mnv2.runtime.table import Runtime, rows
from edge_mnv2.settings.schema import DELEGATES

if TYPE_CHECKING:
    from edge_mnv2.zoo.resolve import Resolved


@dataclass(frozen=True)
class DelegateSpec:
    """`mode` is the first word of one of `settings.schema.DELEGATES`; `kind` ("usb", "pci") and `index` narrow the
    choice among several Edge TPUs, or cores of an NPU; `library` is a file, and `options` are an external delegate's.
    """

    mode: str
    kind: Optional[str] = None
    index: Optional[int] = None
    library: Optional[str] = None
    options: tuple[tuple[str, str], ...] = ()

    @property
    def required(self) -> bool:
        """Whether an unusable accelerator is an error."""
        return self.mode not in ("none", "auto")

    @property
    def option(self) -> str:
        """The library's own `device` option: "", ":N", "usb", "usb:N", "pci", "pci:N"."""
        return (self.kind or "") + ("" if self.index is None else f":{self.index}")

    def __str__(self) -> str:
        if self.library is not None:
            return ",".join([f"{self.mode}:{self.library}", *(f"{key}={value}" for key, value in self.options)])
        parts = [self.mode, self.kind, None if self.index is None else str(self.index)]
        return ":".join(part for part in parts if part is not None)


def parse(text: str) -> DelegateSpec:
    """Read one of `DELEGATES`, in any case. Raises UsageError."""
    groups = DELEGATES.groups(text.strip(), re.IGNORECASE)
    if groups is None:
        raise UsageError(
            f"--delegate {text}: no such delegate", hint=f"{DELEGATES.expects}; edgetpu:usb is the first stick"
        )
    mode = text.strip().partition(":")[0].lower()
    if mode == "external":
        return _external(mode, groups["library"])
    kind, index = groups.get("kind"), groups.get("index")
    return DelegateSpec(mode, kind and kind.lower(), None if index is None else int(index), groups.get("library"))


def _external(mode: str, text: str) -> DelegateSpec:
    path, *rest = text.split(",")
    pairs = [part.partition("=") for part in rest]
    if not path or not all(key and equals for key, equals, _ in pairs):
        raise UsageError(f"--delegate {mode}:{text}", hint="external:PATH[,key=value...]")
    options = tuple((key.strip(), value.strip()) for key, _, value in pairs)
    return DelegateSpec(mode, library=str(Path(path).expanduser()), options=options)


@dataclass(frozen=True)
class Plan:
    """`tpu` is the compiled model to run on the accelerator (None: the CPU alone), `cpu` the model for the CPU (None:
    there is none to fall back on). `notes` are to be said once."""

    cpu: Optional[Resolved]
    tpu: Optional[Resolved] = None
    notes: tuple[str, ...] = ()

    @property
    def model(self) -> Resolved:
        """The model that results are named after."""
        model = self.tpu or self.cpu
        assert model is not None
        return model


def supervising(backend: str, delegate: str, path: Optional[str]) -> Optional[Runtime]:
    """The row with a supervision of its own that `--runtime`, `--delegate` or the model's name asks for, or None."""
    asked = (one for one in rows() if one.supervised)
    return next((one for one in asked if one.name in (backend, delegate) or (path and one.opens(path))), None)
