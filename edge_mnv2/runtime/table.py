"""The runtimes that can run a model, one row each, and the one Protocol behind which they all work.

A new runtime is one file with a function `open_model` and one row of `TABLE`. An installed package brings its own as an
entry point that names a `Runtime`:

    [project.entry-points."edge_mnv2.runtimes"]
    mine = "my_package.edge:ROW"
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Protocol, Union, runtime_checkable

from edge_mnv2.errors import EdgeMnv2Error, ModelError, UsageError
from edge_mnv2.installed import blamed, rows_of_packages

if TYPE_CHECKING:
    # `run --help` lists the rows: nothing heavy is imported for that.
    import numpy as np

log = logging.getLogger(__name__)

GROUP = "edge_mnv2.runtimes"


@dataclass(frozen=True)
class TensorSpec:
    """A model's input or output: `scale` is 0.0 where the tensor is not quantized (affine per-tensor scheme)."""

    name: str
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype
    scale: float
    zero_point: int

    @property
    def quantized(self) -> bool:
        return self.scale != 0.0

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest real value that the tensor can hold; infinite for floats."""
        if not self.quantized or self.dtype.kind not in "iu":
            return -math.inf, math.inf
        steps = 1 << 8 * self.dtype.itemsize
        least = -steps // 2 if self.dtype.kind == "i" else 0
        return self.scale * (least - self.zero_point), self.scale * (least + steps - 1 - self.zero_point)

    def dequantize(self, values: np.ndarray) -> np.ndarray:
        """Real values float32 of `values`: `scale * (q - zero_point)`; float tensors pass through."""
        if not self.quantized:
            return values.astype("float32", copy=False)
        return (values.astype("float32") - float(self.zero_point)) * self.scale

    def quantize(self, values: np.ndarray) -> np.ndarray:
        """Real `values` on the tensor's steps, in its dtype and shape (open dimensions as 1); the rest is cut off.

        Raises ModelError for NaN, which no step stands for.
        """
        shape = [max(n, 1) for n in self.shape]
        if not self.quantized:
            return values.astype(self.dtype).reshape(shape)
        if (values != values).any():
            raise ModelError("the accelerator answers with NaN")
        low, high = (round(limit / self.scale) + self.zero_point for limit in self.limits)
        return (values / self.scale + self.zero_point).round().clip(low, high).astype(self.dtype).reshape(shape)

    @property
    def size(self) -> int:
        return math.prod(max(n, 1) for n in self.shape)


class AnyInterpreter(Protocol):
    """A loaded model. `engine` is the device that made the last output ("cpu", "tpu", "gpu"); `runtime` is the package
    with its version, `delegate` what accelerates it. One thread at a time."""

    @property
    def engine(self) -> str: ...

    @property
    def delegate(self) -> str: ...

    @property
    def runtime(self) -> str: ...

    @property
    def threads(self) -> int: ...

    @property
    def inputs(self) -> list[TensorSpec]: ...

    @property
    def outputs(self) -> list[TensorSpec]: ...

    def set_input(self, values: np.ndarray, position: int = 0) -> None: ...

    def invoke(self) -> None: ...

    def output(self, position: int = 0) -> np.ndarray: ...

    def close(self) -> None: ...


@runtime_checkable
class InCamera(Protocol):
    """What an interpreter has besides, where a camera runs the network: output number `position` of its answers."""

    def complete(self, answers: Sequence[np.ndarray], position: int = 0) -> np.ndarray: ...


class RuntimeMissing(EdgeMnv2Error, ImportError):
    """No usable interpreter package in this environment."""

    exit_code = 1


class NamedRuntimeMissing(RuntimeMissing, UsageError):
    """The interpreter package that was asked for by name cannot be used."""

    exit_code = UsageError.exit_code


@dataclass(frozen=True)
class Runtime:
    """A row. `module` has `open_model(row, path, *, threads, accelerate, input_size)`, which gives an `AnyInterpreter`
    (`input_size`: (height, width) for a model whose size is open, else None), and may have `about(row)`, one line for
    `doctor`. `package` is what it imports, `distributions` what pip calls it, `suffixes` the files that it opens.

    `extra` is the optional part of this package that brings it, `elsewhere` says where else it comes from. `devices`
    are patterns of device nodes that a service must reach, or systemd's `char-GROUP`; `needs_device`: without one of
    them it cannot work. `supervised`: the module also has what `runtime.delegate` says: an accelerator that may be
    lost, with a CPU model to go on with; `in_camera`: its answers come with the camera's frames, and `open_supervised`
    gives interpreters that are `InCamera`. `twins`: it can run a full-integer `.tflite` too,
    through an ONNX file with the same integers (`runtime.twin`), where that is asked for.
    """

    name: str
    module: str
    package: str
    distributions: tuple[str, ...]
    suffixes: tuple[str, ...]
    extra: Optional[str] = None
    elsewhere: str = ""
    devices: tuple[str, ...] = ()
    needs_device: bool = False
    twins: bool = False
    supervised: bool = False
    in_camera: bool = False

    def opens(self, path: Union[Path, str]) -> bool:
        """Whether the file's name is one of its own; a name without a known ending is taken as `.tflite`."""
        suffix = Path(path).suffix.lower()
        return suffix in self.suffixes or (".tflite" in self.suffixes and suffix not in _suffixes())

    def version(self) -> Optional[str]:
        """The installed version, None where it is not installed. Nothing is imported."""
        return _installed_version(self.package.partition(".")[0], self.distributions)

    def install_hint(self) -> str:
        """What a person types who lacks it."""
        from edge_mnv2.installed import extra_hint, pip

        command = extra_hint(self.extra) if self.extra is not None else f"{pip()} {self.distributions[0]}"
        return f"{command}; {self.elsewhere}" if self.elsewhere else command

    def about(self) -> str:
        """One line for `doctor`. Raises RuntimeMissing where it cannot be used."""
        module = importlib.import_module(self.module)
        if hasattr(module, "about"):
            return str(module.about(self))
        return f"{self.distributions[0]} {self.version()}, for {' and '.join(self.suffixes)} models"

    def open(
        self,
        path: Union[Path, str],
        *,
        threads: int = 1,
        accelerate: bool = True,
        input_size: Optional[tuple[int, int]] = None,
    ) -> AnyInterpreter:
        """The loaded model. `accelerate` False keeps to the CPU. Raises ModelError, RuntimeMissing."""
        with blamed(self, TABLE, RuntimeMissing):
            module = importlib.import_module(_TWINS if self.twins and not self.opens(path) else self.module)
        with blamed(self, TABLE, ModelError):
            return module.open_model(self, path, threads=threads, accelerate=accelerate, input_size=input_size)


_TWINS = "edge_mnv2.runtime.twin"
_OPENVINO = ("edge_mnv2.runtime.openvino", "openvino", ("openvino",), (".onnx",), "openvino")
_RKNN = ("edge_mnv2.runtime.rknn", "rknnlite", ("rknn-toolkit-lite2",), (".rknn",), None, "librknnrt.so is the board's")
_IMX500 = ("edge_mnv2.runtime.imx500", "picamera2", ("picamera2",), (".rpk",), None, "sudo apt install imx500-all")
TABLE = (
    Runtime(
        "litert",
        "edge_mnv2.runtime.interpreter",
        "ai_edge_litert.interpreter",
        ("ai-edge-litert",),
        (".tflite",),
    ),
    Runtime(
        "tflite-runtime",
        "edge_mnv2.runtime.interpreter",
        "tflite_runtime.interpreter",
        ("tflite-runtime",),
        (".tflite",),
    ),
    Runtime(
        "onnxruntime",
        "edge_mnv2.runtime.onnx_runtime",
        "onnxruntime",
        ("onnxruntime", "onnxruntime-gpu"),
        (".onnx",),
        extra="onnx",
        elsewhere="on a Jetson, NVIDIA's onnxruntime-gpu for its JetPack",
        devices=("/dev/nvhost-*", "/dev/nvmap", "char-nvidia*"),
        twins=True,
    ),
    Runtime("openvino", *_OPENVINO, twins=True),
    Runtime("openvino-gpu", *_OPENVINO, devices=("/dev/dri/renderD*",), needs_device=True, twins=True),
    Runtime("openvino-npu", *_OPENVINO, devices=("/dev/accel/accel*",), needs_device=True, twins=True),
    Runtime("rknn", *_RKNN, devices=("/dev/dri/*", "/dev/rknpu"), supervised=True),
    Runtime("imx500", *_IMX500, devices=("/dev/v4l-subdev*",), needs_device=True, supervised=True, in_camera=True),
)
"""In the order in which `auto` tries them."""


@functools.cache
def _installed_version(package: str, distributions: tuple[str, ...]) -> Optional[str]:
    spec = importlib.util.find_spec(package)
    places = (list(spec.submodule_search_locations or ()) or [spec.origin or ""]) if spec is not None else []
    if not places:
        return None
    # A folder's name says it; `importlib.metadata` takes 8 ms to import on a PC.
    for distribution in distributions:
        name = f"{distribution.replace('-', '_')}-"
        folders = [folder.name for place in places for folder in Path(place).parent.glob(f"{name}*.dist-info")]
        if len(folders) == 1:
            return folders[0][len(name) : -len(".dist-info")]
    from importlib import metadata

    for distribution in distributions:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(distribution)
    return None


def names() -> list[str]:
    """Every word of `--runtime` but "auto"."""
    return [row.name for row in rows()]


def rows() -> tuple[Runtime, ...]:
    """Our rows, then those of installed packages; a name of ours is never replaced."""
    ours = {one.name for one in TABLE}
    return (*TABLE, *(one for _, one in rows_of_packages(GROUP, Runtime) if one.name not in ours))


def row(name: str) -> Runtime:
    """The row of that name. Raises UsageError."""
    # Packages are asked for only where no row of ours has the name.
    known = next((one for one in TABLE if one.name == name), None) or next(
        (one for one in rows() if one.name == name), None
    )
    if known is None:
        raise UsageError(f"unknown runtime '{name}'", hint=f"one of auto, {', '.join(names())}")
    return known


def reference() -> Runtime:
    """The row that `auto` takes for a `.tflite`, the first that is installed: others are compared with it."""
    rows_for_it = candidates("model.tflite")
    return next((one for one in rows_for_it if one.version() is not None), rows_for_it[0])


def installed() -> list[Runtime]:
    """The rows whose package is installed (nothing is imported)."""
    return [one for one in rows() if one.version() is not None]


def own_format(path: Union[Path, str]) -> bool:
    """Whether a package's runtime opens such files, whose format nobody here knows: neither `.tflite` nor `.onnx`."""
    suffix = Path(path).suffix.lower()
    return suffix not in (".tflite", ".onnx") and any(suffix in one.suffixes for one in rows())


def service_devices(path: Union[Path, str], runtime: str) -> list[str]:
    """What a service with this model and `--runtime` must reach, of what is there, as DeviceAllow= takes it."""
    asked = [row(runtime)] if runtime != "auto" else [one for one in installed() if one.opens(path) or one.twins]
    patterns = [pattern for one in asked for pattern in one.devices]
    # systemd takes no wildcards in paths.
    nodes = [
        [str(node) for node in Path("/").glob(one[1:])] if "*" in one and one[0] == "/" else [one] for one in patterns
    ]
    return [node for listed in nodes for node in sorted(listed)]


def candidates(path: Union[Path, str], name: str = "auto") -> list[Runtime]:
    """The rows to try for a model file, in order. Raises UsageError where the one of that name does not open it."""
    if name != "auto":
        named = row(name)
        if not named.opens(path) and not ((named.twins or named.supervised) and TABLE[0].opens(path)):
            others = ", ".join(one.name for one in rows() if one.opens(path))
            raise UsageError(
                f"{name} runs {' and '.join(named.suffixes)} models only, not {path}",
                hint=f"--runtime {others or 'auto'}",
            )
        return [named]
    return [one for one in TABLE if one.opens(path)] or [one for one in rows() if one.opens(path)]


def open_model(
    path: Union[Path, str],
    *,
    runtime: str = "auto",
    threads: int = 1,
    accelerate: bool = True,
    input_size: Optional[tuple[int, int]] = None,
) -> AnyInterpreter:
    """Load `path` in the first runtime that opens such files and is installed.

    Raises ModelError where it refuses the file, UsageError for a runtime that cannot run it, RuntimeMissing.
    """
    missing: list[RuntimeMissing] = []
    for one in candidates(path, runtime):
        try:
            return one.open(path, threads=threads, accelerate=accelerate, input_size=input_size)
        except RuntimeMissing as error:
            missing.append(error)
    if not missing:
        raise UsageError(f"no runtime opens {path}", hint=f"files that can be opened: {', '.join(sorted(_suffixes()))}")
    if runtime != "auto":
        raise NamedRuntimeMissing(missing[0].message, hint=missing[0].hint) from missing[0]
    if len(missing) == 1:
        raise missing[0]
    reasons = "; ".join(error.message for error in missing)
    raise RuntimeMissing(f"no runtime can be used: {reasons}", hint=missing[0].hint) from missing[0]


def _suffixes() -> set[str]:
    return {suffix for one in rows() for suffix in one.suffixes}
