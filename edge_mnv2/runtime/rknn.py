"""Rockchip's NPU (RK3588, RK3566, ...): `.rknn` files by rknn-toolkit-lite2 on the board, else by the simulator.

The NPU is used from a worker process under the same supervision as an Edge TPU: a crash, a hang or a lost driver costs
no frame where the model's `.tflite` lies beside it. What goes in and comes out are that model's own integers: a file
says which (`builder.compile_source.Source.facts`). Without an NPU, the recipe that `compile --simulator` wrote is
compiled again by rknn-toolkit2, and simulated.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import numpy as np

from edge_mnv2.errors import AcceleratorError, ModelError, UsageError
from edge_mnv2.runtime.table import AnyInterpreter, Runtime, RuntimeMissing, TensorSpec, row
from edge_mnv2.runtime.toolkit import Toolkit

if TYPE_CHECKING:
    from edge_mnv2.runtime.delegate import DelegateSpec, Plan
    from edge_mnv2.runtime.supervised.contact import Target
    from edge_mnv2.runtime.supervised.supervisor import SupervisedInterpreter
    from edge_mnv2.zoo.resolve import Resolved

NAME = "rknn"
SIMULATOR = ".simulator.npz"
_CHIPS = Path("/proc/device-tree/compatible")
_FACTS = re.compile(rb'\{"edge-mnv2": [^}]{1,8000}\]\]\]\}')
_LIMITS_S = {"open": 60.0, "invoke": 30.0}
_SIMULATED_S = {"open": 900.0, "invoke": 120.0, "use": 60.0}
"""The simulator quantizes the model first, and is slow on a busy PC."""

TOOLKIT = Toolkit(
    "rknn",
    "rknn-toolkit2",
    ("rknn", "onnx"),
    ("rknn-toolkit2", "setuptools<81"),
    ((3, 9), (3, 12)),
    ("x86_64", "aarch64"),
)


def about(asked: Runtime) -> str:
    """One line for `doctor`."""
    return f"rknn-toolkit-lite2 {asked.version()}, for .rknn models (`edge-mnv2 compile --target rknn:CHIP` makes them)"


def open_model(
    asked: Runtime,
    path: Union[Path, str],
    *,
    threads: int = 1,
    accelerate: bool = True,
    input_size: Optional[tuple[int, int]] = None,
) -> AnyInterpreter:
    """As `Runtime.open` says, without a CPU model to go on with. Raises AcceleratorError, RuntimeMissing."""
    from edge_mnv2.runtime.supervised.contact import WorkerInterpreter

    if not accelerate:
        raise UsageError(f"{path} runs on a Rockchip NPU only, and --delegate none keeps to the CPU")
    target = _target(asked, Path(path), None, threads, input_size)
    return WorkerInterpreter(target, _limits_s(target))


def plan(request: Optional[str], spec: DelegateSpec, fall_back: bool) -> Plan:
    """The `.rknn` to run and its CPU twin: `request` may be either. Raises ModelError, AcceleratorError."""
    from edge_mnv2.runtime.delegate import Plan
    from edge_mnv2.zoo.registry import DEFAULT_MODEL
    from edge_mnv2.zoo.resolve import resolve
    from edge_mnv2.zoo.sidecar import outdated

    model = resolve(request or DEFAULT_MODEL)
    if spec.mode == "none":
        raise UsageError(f"{model.name} runs on a Rockchip NPU only, and --delegate none keeps to the CPU")
    if model.path.suffix == ".rknn":
        stem = re.sub(r"_rk\d{4}$", "", model.path.stem)
        twin = model.path.with_name(f"{stem}.tflite")
        cpu = resolve(str(twin)) if twin.is_file() else None
        if cpu is None and stem == Path(resolve(DEFAULT_MODEL).path).stem:
            cpu = resolve(DEFAULT_MODEL)
        older = ""
        if cpu is not None and outdated(model.path, cpu.path, cpu.sha256):
            cpu, older = None, " is another one by now"
        notes = () if cpu else (f"no CPU model to go on with when the NPU is lost: {stem}.tflite beside it{older}",)
        return Plan(cpu if fall_back else None, model, notes)
    return Plan(model if fall_back else None, _compiled(model))


def _compiled(model: Resolved) -> Resolved:
    """What `compile` made of `model`: beside it, or in the working folder."""
    from edge_mnv2.zoo.resolve import resolve
    from edge_mnv2.zoo.sidecar import outdated

    try:
        chips = _CHIPS.read_text("utf-8", "replace")
    except OSError:
        chips = ""
    problem = "is not compiled for a Rockchip NPU"
    for folder in (model.path.parent, Path()):
        files = sorted(folder.glob(f"{model.path.stem}_rk*.rknn"))
        # Those for this board's chip come first.
        for path in sorted(files, key=lambda one: one.stem.rpartition("_")[2] not in chips):
            if not outdated(path, model.path, model.sha256):
                return resolve(str(path.absolute()))
            problem = f"has changed since {path.name} was compiled from it"
    raise AcceleratorError(
        f"{model.name} {problem}",
        hint=f"edge-mnv2 compile --target rknn:rk3588 {model.path.name}, on a PC; the .rknn belongs beside the model",
    )


def open_supervised(
    spec: DelegateSpec,
    compiled: Path,
    cpu: Optional[Path],
    *,
    threads: int = 1,
    count: int = 1,
    input_size: Optional[tuple[int, int]] = None,
    **_: Any,
) -> list[SupervisedInterpreter]:
    """As `runtime.delegate` says. Each has a context of its own; the driver shares the cores."""
    from edge_mnv2.runtime.supervised.contact import WorkerInterpreter
    from edge_mnv2.runtime.supervised.supervisor import Device, supervised

    target = _target(row(NAME), compiled, spec.index, threads, input_size)
    contact = partial(WorkerInterpreter, limits=_limits_s(target))
    opened: list[SupervisedInterpreter] = []
    try:
        for _number in range(count):
            opened.append(supervised(Device(target), contact(target), cpu, contact))
    except BaseException:
        for one in opened:
            one.close()
        raise
    if dict(target.options)["recipe"]:
        opened[0].notes.append(f"there is no NPU here: {target.library.title} simulates it, far slower than it is")
    return opened


def _limits_s(target: Target) -> dict[str, float]:
    return _SIMULATED_S if dict(target.options)["recipe"] else _LIMITS_S


def _target(
    asked: Runtime, path: Path, core: Optional[int], threads: int, input_size: Optional[tuple[int, int]]
) -> Target:
    """How the worker opens `path`. Raises RuntimeMissing where neither the NPU's package nor a simulator is here."""
    from edge_mnv2.runtime.supervised import Package
    from edge_mnv2.runtime.supervised.contact import Target

    inputs, _ = facts_of(path, input_size)
    recipe, name = path.with_suffix(SIMULATOR), f"{NAME}:{'auto' if core is None else core}"
    options = {"core": "" if core is None else str(core), "recipe": "", "shape": json.dumps(inputs[0].shape)}
    version, python = asked.version(), None
    if version is not None:
        title = f"{asked.distributions[0]} {version}"
    elif recipe.is_file():
        python, title = TOOLKIT.find()
        options["recipe"], name = str(recipe.absolute()), f"{NAME}:simulator"
    else:
        raise RuntimeMissing(
            f"{path} needs the package rknn-toolkit-lite2, on a board with a Rockchip NPU", hint=asked.install_hint()
        )
    target = Target(
        Package(title, title, f"{__name__}:open_in_worker"),
        name,
        model=str(path.absolute()),
        threads=threads,
        options=tuple(options.items()),
        engine="npu",
    )
    return target if python is None else target.by(python)


def facts_of(
    path: Path, input_size: Optional[tuple[int, int]] = None
) -> tuple[list[TensorSpec], Optional[list[TensorSpec]]]:
    """(inputs, outputs) that the compiled file at `path` stands for; outputs None for a file that is not of ours.

    Raises ModelError for another kind of file, UsageError where its input's size has to be said.
    """
    try:
        with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[:4] != b"RKNN":
                raise ModelError(f"{path} is no .rknn file", hint="`edge-mnv2 compile --target rknn:CHIP` makes one")
            line = _FACTS.search(content)
            described = None if line is None else json.loads(line.group())["edge-mnv2"]
    except (OSError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} cannot be read: {error}") from error
    if described is None:
        if input_size is None:
            raise UsageError(f"{path} does not say how large its input is", hint="--input-size WxH")
        return [TensorSpec("image", 0, (1, *input_size, 3), np.dtype(np.uint8), 0.0, 0)], None
    return _specs(described[0]), _specs(described[1])


def _specs(described: Sequence[Any]) -> list[TensorSpec]:
    return [
        TensorSpec(f"tensor{number}", number, tuple(shape), np.dtype(dtype), scale, zero)
        for number, (shape, dtype, scale, zero) in enumerate(described)
    ]


@dataclass
class Npu:
    """A model on the NPU, in the worker, as `AnyInterpreter`. `infer`: uint8 (1, rows, columns, 3) → real outputs."""

    infer: Callable[[np.ndarray], Optional[Sequence[np.ndarray]]]
    release: Callable[[], object]
    runtime: str
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    engine: str = "npu"
    delegate: str = NAME
    threads: int = 1

    def set_input(self, values: np.ndarray, position: int = 0) -> None:  # noqa: ARG002 - there is one
        # The same value counted from 0: the file takes uint8.
        self._picture = values.view(np.uint8) ^ 0x80 if values.dtype == np.int8 else values

    def invoke(self) -> None:
        answers = self.infer(self._picture)
        if answers is None:
            raise RuntimeError("the NPU gives no answer")
        self._answers = answers

    def output(self, position: int = 0) -> np.ndarray:
        return self.outputs[position].quantize(np.asarray(self._answers[position], np.float32))

    def close(self) -> None:
        self.release()


def open_in_worker(order: dict[str, Any], begin: Callable[[str], None]) -> Npu:
    """As `supervised.Driver.opener`. Raises RuntimeError with what the package says."""
    begin("open")
    options, path = order["options"], Path(order["model"])
    shape = tuple(json.loads(options["shape"]))
    inputs, outputs = facts_of(path, shape[1:3])
    infer, release = _simulated(options["recipe"]) if options["recipe"] else _on_board(path, options["core"])
    npu = Npu(infer, release, order["library"], inputs, outputs or [])
    npu.set_input(np.zeros(shape, inputs[0].dtype))
    if outputs is None:
        npu.invoke()
        floats = [np.asarray(one, np.float32) for one in npu._answers]
        npu.outputs = [
            TensorSpec(f"output{n}", n, one.shape, np.dtype(np.float32), 0.0, 0) for n, one in enumerate(floats)
        ]
    return npu


_Opened = tuple[Callable[[np.ndarray], Optional[Sequence[np.ndarray]]], Callable[[], object]]


def _on_board(path: Path, core: str) -> _Opened:
    from rknnlite.api import RKNNLite  # type: ignore[import-not-found, unused-ignore]

    lite = RKNNLite(verbose=False)
    if lite.load_rknn(str(path)) != 0:
        raise RuntimeError("it cannot be loaded: is it for this chip, and by a toolkit no newer than librknnrt.so?")
    # Chips with one core know no mask.
    mask = {"core_mask": getattr(RKNNLite, f"NPU_CORE_{core}")} if core else {}
    if lite.init_runtime(**mask) != 0:
        raise RuntimeError("the NPU cannot be opened: is its driver loaded, and is librknnrt.so in /usr/lib?")
    return lambda picture: lite.inference(inputs=[picture], data_format=["nhwc"]), lite.release


def _simulated(recipe: str) -> _Opened:
    import os
    import tempfile

    # Not to the end: a worker may be killed.
    with tempfile.TemporaryDirectory(prefix="edge-mnv2-simulator-") as folder:
        os.chdir(folder)
        simulator = built(Path(recipe))
        ready = simulator.init_runtime() == 0
        os.chdir("/")
    if not ready:
        raise RuntimeError("the simulator does not start")
    return lambda picture: simulator.inference(inputs=[picture], data_format=["nhwc"]), simulator.release


def build_in_toolkit(order: dict[str, Any]) -> dict[str, Any]:
    """In the toolkit's Python: compile the `recipe` of `builder.rknn_compile` into the file `out`."""
    built(Path(order["recipe"])).export_rknn(order["out"])
    return {}


def built(recipe: Path) -> Any:
    """The toolkit's object with a model that is quantized and compiled. Raises RuntimeError."""
    from rknn.api import RKNN  # type: ignore[import-not-found, unused-ignore]

    with np.load(recipe) as content:
        chip, quantization, facts = (str(content[name]) for name in ("chip", "quantization", "facts"))
        onnx, pictures = content["onnx"].tobytes(), content["pictures"]
        mean, std = content["mean"].tolist(), content["std"].tolist()
    Path("model.onnx").write_bytes(onnx)
    names = []
    for number, picture in enumerate(pictures):
        names.append(str(Path(f"{number}.npy").absolute()))
        np.save(names[-1], picture.transpose(2, 0, 1)[None])
    Path("pictures.txt").write_text("\n".join(names) + "\n")
    toolkit = RKNN(verbose=True)
    algorithm = quantization if quantization in ("kl_divergence", "mmse") else "normal"
    steps = (
        lambda: toolkit.config(
            mean_values=[mean],
            std_values=[std],
            target_platform=chip,
            quantized_algorithm=algorithm,
            custom_string=facts,
        ),
        lambda: toolkit.load_onnx("model.onnx"),
        lambda: toolkit.build(
            do_quantization=quantization != "fp16", dataset="pictures.txt", auto_hybrid=quantization == "hybrid"
        ),
    )
    for step in steps:
        if step() != 0:
            raise RuntimeError("rknn-toolkit2 refuses the model")
    return toolkit
