"""What `--delegate` asks for, and how an accelerator that may be lost answers that.

A row of `board.accelerators`, and one of `runtime.table` that is `supervised`, has a module with

    plan(request, spec, fall_back) -> Plan
    open_supervised(spec, compiled, cpu, *, runtime, threads, count, input_size, fall_back) -> [interpreter, ...]

where `request` is what `--model` says, and `fall_back` whether the CPU is to go on when the accelerator is lost. One
that is `automatic` also has

    worth_trying() -> bool               whether one is likely to be there: every start asks, so it imports little
    count() -> int                       how many are attached
    without(model, spec) -> Plan         for a model that is compiled for it, when it is not used

and one that is `visible`

    attached(root) -> Attached
    diagnose(root) -> iterator of Check  with what it takes to touch it, where `root` is this machine's
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Optional, TypeVar, Union

from edge_mnv2.board import accelerators
from edge_mnv2.board.accelerators import Accelerator
from edge_mnv2.errors import AcceleratorError, Check, EdgeMnv2Error, UsageError
from edge_mnv2.installed import blamed
from edge_mnv2.runtime import table
from edge_mnv2.runtime.table import Runtime, own_format, rows
from edge_mnv2.settings.schema import DELEGATES
from edge_mnv2.tflite import model_file
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import Resolved, resolve

if TYPE_CHECKING:
    from edge_mnv2.runtime.supervised.supervisor import SupervisedInterpreter

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class DelegateSpec:
    """`mode` is the first word of one of `settings.schema.DELEGATES`; `kind` ("usb", "pci") and `index` narrow the
    choice among several devices, or cores of one; `library` is a file, and `options` are what its delegate is told.
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
    mode = text.strip().partition(":")[0].lower()
    row = accelerators.named(mode)
    # The pattern of a package may take what its name does not stand in front of.
    if groups is None or (row is None and mode not in ("auto", "none")):
        examples = (one.example for one in accelerators.rows() if one.example)
        raise UsageError(f"--delegate {text}: no such delegate", hint="; ".join([DELEGATES.expects, *examples]))
    if row is not None and row.options and "library" in groups:
        return _with_options(mode, groups["library"])
    kind, index = groups.get("kind"), groups.get("index")
    if index is not None and not index.isdecimal():
        raise UsageError(f"--delegate {text}: '{index}' is no number of a device")
    return DelegateSpec(mode, kind and kind.lower(), None if index is None else int(index), groups.get("library"))


def _with_options(mode: str, text: str) -> DelegateSpec:
    path, *rest = text.split(",")
    pairs = [part.partition("=") for part in rest]
    if not path or not all(key and equals for key, equals, _ in pairs):
        raise UsageError(f"--delegate {mode}:{text}", hint=f"{mode}:PATH[,key=value...]")
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


@dataclass(frozen=True)
class Attached:
    """What is seen of a kind of accelerator without touching it: `devices` and their `library` (dataclasses), `cells`
    of a table for people (name, state, device, link, die), and what is wrong. `missing` is said where there is none."""

    devices: Sequence[Any]
    library: Any
    cells: Sequence[tuple[str, ...]]
    checks: Sequence[Check]
    missing: str


def worth_trying() -> Optional[Accelerator]:
    """What `auto` should try, None for the CPU."""
    automatic = (one for one in accelerators.rows() if one.automatic)
    answers = accelerators.answers(automatic, lambda one: one.load().worth_trying())
    return next((one for one, worth in answers if worth), None)


def rival_of_cpu(spec: DelegateSpec, fixed: bool) -> Optional[Accelerator]:
    """What is compared with the CPU: what was asked for (`fixed`: by a person), or what is there."""
    if fixed and spec.mode == "none":
        return None
    if not spec.required:
        return worth_trying()
    return accelerators.named(spec.mode) if fixed or worth_trying() is not None else None


def compiled_for(model: Resolved) -> Optional[Accelerator]:
    """What `model` is compiled for, None for an ordinary one. Raises ModelError."""
    if model.entry is not None:
        return accelerators.named(model.entry.runs_on)
    return None if own_format(model.path) else accelerators.compiled_for(model_file.check(model.path).custom_ops)


def on_cpu(request: Optional[str], spec: DelegateSpec) -> Plan:
    """`request` (None: the default) on the CPU, or its twin. Raises ModelError where it is compiled and has none."""
    model = resolve(request or DEFAULT_MODEL)
    row = compiled_for(model) if request is not None else None
    return Plan(model) if row is None else planned(row, lambda module: module.without(model, spec))


def ask(row: Union[Accelerator, Runtime], question: Callable[[ModuleType], Answer]) -> Answer:
    """What `question` gets of the row's module. Raises what the module raises; where that is a package's and no error
    of ours, AcceleratorError."""
    with blamed(row, (*accelerators.TABLE, *table.TABLE), AcceleratorError):
        return question(importlib.import_module(row.module))


def planned(row: Union[Accelerator, Runtime], question: Callable[[ModuleType], Plan]) -> Plan:
    """As `ask`, of a plan."""

    def whole(module: ModuleType) -> Plan:
        plan = question(module)
        if not isinstance(plan, Plan) or not isinstance(plan.tpu or plan.cpu, Resolved):
            raise TypeError(f"it plans {plan!r}, which is no Plan of a model")
        return plan

    return ask(row, whole)


def opened(row: Union[Accelerator, Runtime], *model: Any, **order: Any) -> list[SupervisedInterpreter]:
    """As `ask`, of what `open_supervised` opens."""

    def whole(module: ModuleType) -> list[SupervisedInterpreter]:
        interpreters = module.open_supervised(*model, **order)
        if not isinstance(interpreters, list) or not all(hasattr(one, "notes") for one in interpreters or [None]):
            raise TypeError(f"it opens {interpreters!r}, which are no interpreters")
        return interpreters

    return ask(row, whole)


@contextlib.contextmanager
def unless_required(row: Accelerator, spec: DelegateSpec, notes: list[str]) -> Iterator[None]:
    """Where nobody asked for a package's accelerator, its errors go into `notes`, and the CPU is left."""
    try:
        yield
    except EdgeMnv2Error as error:
        if spec.required or row in accelerators.TABLE:
            raise
        notes.append(f"no {row.title or row.name}: {error}")
