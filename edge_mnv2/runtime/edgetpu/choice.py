"""Whether an Edge TPU is worth trying, and which model runs where.

Every start pays for this module, so it imports little.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Protocol, Union

from edge_mnv2.errors import AcceleratorError, Check, EdgeMnv2Error, ModelError
from edge_mnv2.runtime.delegate import Attached, DelegateSpec, Plan, compiled_for
from edge_mnv2.runtime.edgetpu import LIBRARY_VARIABLE, NAME, present
from edge_mnv2.zoo.registry import DEFAULT_MODEL
from edge_mnv2.zoo.resolve import Resolved, resolve
from edge_mnv2.zoo.sidecar import outdated

if TYPE_CHECKING:
    from edge_mnv2.runtime.supervised.supervisor import SupervisedInterpreter

log = logging.getLogger(__name__)

DEFAULT_COMPILED = "mobilenet_v2_1.0_224_quant_edgetpu"
"""What a TPU runs where no model was named: our default has no compiled twin of the same weights."""

_SUFFIX = "_edgetpu"


@dataclass(frozen=True)
class Twin:
    """The other of a pair: its name where one is known, the file where it is on this machine."""

    name: Optional[str] = None
    model: Optional[Resolved] = None


def worth_trying(root: Union[Path, str] = "/") -> bool:
    """Whether `auto` should try a TPU: one is attached, or a variable names a library, which may know of one."""
    if present(root):
        return True
    if not (os.environ.get(LIBRARY_VARIABLE) or os.environ.get("LD_LIBRARY_PATH")):
        return False
    from edge_mnv2.runtime.edgetpu import library

    installed = library.find(root)
    return installed is not None and installed.by_hand


def count() -> int:
    """How many are attached."""
    from edge_mnv2.runtime.edgetpu.discovery import find

    return len(find(held=False))


def attached(root: Union[Path, str] = "/") -> Attached:
    """As `runtime.delegate` says."""
    from edge_mnv2.runtime.edgetpu import library
    from edge_mnv2.runtime.edgetpu.checks import checks
    from edge_mnv2.runtime.edgetpu.discovery import find

    devices = find(root)
    cells = [
        (
            item.name,
            item.state,
            item.node or item.path,
            "-" if item.speed_mbps is None else f"{item.speed_mbps:g} Mbit/s",
            "-" if item.temp_c is None else f"{item.temp_c:g} °C",
        )
        for item in devices
    ]
    missing = "no Edge TPU found: looked on USB and PCIe"
    return Attached(devices, library.find(root), cells, checks(root), missing)


def diagnose(root: Union[Path, str] = "/") -> Iterator[Check]:
    """As `runtime.delegate` says."""
    from edge_mnv2.runtime.edgetpu.checks import checks

    rows = checks(root)
    yield from rows
    wrong = {row.id for row in rows if row.status != "ok"}
    if str(root) == "/" and worth_trying() and not wrong & {"edgetpu-library", "edgetpu-rights", "edgetpu-held"}:
        yield contact()


def contact() -> Check:
    """Whether the first device answers."""
    from edge_mnv2.runtime.edgetpu.opening import try_device

    try:
        compiled = resolve(DEFAULT_COMPILED).path
    except ModelError:
        compiled = None
    try:
        return Check("edgetpu-contact", "ok", try_device(compiled))
    except AcceleratorError as error:
        return Check("edgetpu-contact", "warn", error.message, error.hint)


def plan(request: Optional[str], spec: DelegateSpec, fall_back: bool) -> Plan:
    """As `runtime.delegate` says."""
    return choose(request, spec, True, Zoo(), fall_back=fall_back)


def without(model: Resolved, spec: DelegateSpec) -> Plan:
    """As `runtime.delegate` says."""
    return _without_tpu(model, spec, Zoo())


def open_supervised(*arguments: Any, **options: Any) -> list[SupervisedInterpreter]:
    """As `runtime.delegate` says."""
    from edge_mnv2.runtime.edgetpu import opening

    return opening.open_supervised(*arguments, **options)


class Models(Protocol):
    """Where models come from."""

    def resolve(self, request: str) -> Resolved:
        """A name or path as a file that is there. Raises ModelError."""

    def compiled(self, model: Resolved) -> bool:
        """Whether it is compiled for the Edge TPU."""

    def twin(self, model: Resolved) -> Twin:
        """The same network for the other of CPU and TPU."""

    def fetch(self, name: str) -> Resolved:
        """Pull `name` and resolve it. Raises EdgeMnv2Error."""


class Zoo:
    """Models of the registry, and files that lie beside each other under the compiler's names (x, x_edgetpu)."""

    def resolve(self, request: str) -> Resolved:
        return resolve(request)

    def compiled(self, model: Resolved) -> bool:
        row = compiled_for(model)
        return row is not None and row.name == NAME

    def twin(self, model: Resolved) -> Twin:
        name = model.entry.twin if model.entry is not None else None
        model_here = self._here(name) if name is not None else None
        return Twin(name, model_here) if model_here is not None else self._beside(model, name)

    def fetch(self, name: str) -> Resolved:
        from edge_mnv2.zoo.pull import fetch

        log.info("pulling %s, once", name)
        fetch(name)
        return resolve(name)

    def _here(self, name: str) -> Optional[Resolved]:
        try:
            return resolve(name)
        except ModelError as error:
            log.debug("%s", error)
            return None

    def _beside(self, model: Resolved, name: Optional[str]) -> Twin:
        stem, is_compiled = model.path.stem, self.compiled(model)
        other = stem[: -len(_SUFFIX)] if is_compiled and stem.endswith(_SUFFIX) else stem + _SUFFIX
        path = model.path.with_name(other + model.path.suffix)
        if other == stem or (is_compiled and not stem.endswith(_SUFFIX)) or not path.is_file():
            return Twin(name)
        model_here = self._here(str(Path(path).absolute()))
        if model_here is not None:
            compiled, cpu = (model, model_here) if is_compiled else (model_here, model)
            if outdated(compiled.path, cpu.path, cpu.sha256):
                log.warning("%s has changed since %s was compiled from it", cpu.path.name, compiled.path.name)
                return Twin(name)
        try:
            return (
                Twin(name, model_here)
                if model_here is not None and self.compiled(model_here) != is_compiled
                else Twin(name)
            )
        except ModelError as error:
            log.debug("%s", error)
            return Twin(name)


def choose(
    request: Optional[str], spec: DelegateSpec, attached: bool, models: Models, *, fall_back: bool = True
) -> Plan:
    """The models for `request` (None: none was named) under `spec`, where `attached` says whether a TPU can be tried.

    `fall_back`: the CPU is to take over when the TPU is lost. Nothing is downloaded but for `edgetpu` asked for by
    name. Raises ModelError (a compiled model that nothing here can run), AcceleratorError (`edgetpu` asked for, and no
    compiled model).
    """
    use_tpu = spec.required or (spec.mode == "auto" and attached)
    if request is None:
        return _default(spec, models, fall_back) if use_tpu else Plan(models.resolve(DEFAULT_MODEL))
    model = models.resolve(request)
    if models.compiled(model):
        return _on_tpu(model, spec, models, fall_back) if use_tpu else _without_tpu(model, spec, models)
    if not use_tpu:
        return Plan(model)
    twin = models.twin(model)
    if twin.model is not None:
        note = f"{twin.model.name} runs on the Edge TPU in place of {model.name}, its CPU twin"
        return Plan(model if fall_back else None, twin.model, (note,))
    if spec.required:
        return _compiled_twin_required(model, twin, models, fall_back)
    if twin.name is not None:
        note = f"{model.name} stays on the CPU; for the Edge TPU: edge-mnv2 pull {twin.name}"
    else:
        note = (
            f"{model.name} stays on the CPU: it has no twin compiled for the Edge TPU ({DEFAULT_COMPILED} is compiled)"
        )
    return Plan(model, notes=(note,))


def _default(spec: DelegateSpec, models: Models, fall_back: bool) -> Plan:
    try:
        compiled = models.resolve(DEFAULT_COMPILED)
    except ModelError as error:
        if not spec.required:
            note = f"an Edge TPU is attached; to use it: edge-mnv2 pull {DEFAULT_COMPILED}"
            return Plan(models.resolve(DEFAULT_MODEL), notes=(note,))
        compiled = _fetched(DEFAULT_COMPILED, models, error)
    plan = _on_tpu(compiled, spec, models, fall_back)
    note = f"model {compiled.name}: the default one is not compiled for the Edge TPU"
    return Plan(plan.cpu, plan.tpu, (note, *plan.notes))


def _on_tpu(model: Resolved, spec: DelegateSpec, models: Models, fall_back: bool) -> Plan:
    if not fall_back:
        return Plan(None, model)
    twin = models.twin(model)
    if twin.model is None and twin.name is not None and spec.required:
        try:
            twin = Twin(twin.name, models.fetch(twin.name))
        except EdgeMnv2Error as error:
            log.debug("%s", error)
    if twin.model is not None:
        return Plan(twin.model, model)
    wanted = f"edge-mnv2 pull {twin.name}" if twin.name else "put its CPU twin beside it, without _edgetpu in the name"
    return Plan(None, model, (f"no CPU model to go on with when the Edge TPU is lost: {wanted}",))


def _without_tpu(model: Resolved, spec: DelegateSpec, models: Models) -> Plan:
    twin = models.twin(model)
    if twin.model is not None:
        why = "no Edge TPU is in use" if spec.mode == "auto" else f"--delegate {spec}"
        note = f"{model.name} is compiled for the Edge TPU; its CPU twin {twin.model.name} is used ({why})"
        return Plan(twin.model, notes=(note,))
    hint = (
        f"edge-mnv2 pull {twin.name}, its CPU twin"
        if twin.name
        else "attach one, or use the model it was compiled from"
    )
    raise ModelError(f"{model.name} is compiled for the Coral Edge TPU and cannot run on a CPU", hint=hint)


def _compiled_twin_required(model: Resolved, twin: Twin, models: Models, fall_back: bool) -> Plan:
    if twin.name is None:
        raise AcceleratorError(
            f"{model.name} has no twin compiled for the Edge TPU", hint=f"--model {DEFAULT_COMPILED} is compiled"
        )
    compiled = _fetched(twin.name, models, None)
    note = f"{compiled.name} runs on the Edge TPU in place of {model.name}, its CPU twin"
    return Plan(model if fall_back else None, compiled, (note,))


def _fetched(name: str, models: Models, missing: Optional[ModelError]) -> Resolved:
    try:
        return models.fetch(name)
    except EdgeMnv2Error as error:
        raise AcceleratorError(
            f"the Edge TPU needs {name}, which is not on this device ({missing or error})",
            hint=f"edge-mnv2 pull {name}",
        ) from error
