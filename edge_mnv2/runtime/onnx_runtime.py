"""ONNX Runtime, for `.onnx` files (extra `onnx`). It is the way to a Jetson's GPU.

Its own execution providers stand for delegates: TensorRT and CUDA where they are there and may be used, else its CPU
kernels, whose integer sums are exact in every session that is opened here.
"""

from __future__ import annotations

import contextlib
import logging
import platform
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.interpreter import first_line, native_stderr_logged
from edge_mnv2.runtime.preprocess import sized_shape
from edge_mnv2.runtime.table import Runtime, RuntimeMissing, TensorSpec, row

log = logging.getLogger(__name__)

NAME = "onnxruntime"

_GPU = {"TensorrtExecutionProvider": "tensorrt", "CUDAExecutionProvider": "cuda"}
_CPU = "CPUExecutionProvider"
_NUMBERS = {"float": "float32", "double": "float64", **{name: name for name in ("uint8", "int8", "float16")}}
_NUMBERS.update({name: name for name in ("int16", "int32", "int64", "uint16", "uint32", "uint64", "bool")})
_CPUINFO = Path("/proc/cpuinfo")


def import_onnxruntime() -> ModuleType:
    """The module. Raises RuntimeMissing where it is not installed or cannot be loaded."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissing(
            f"ONNX models need the package onnxruntime ({error})", hint=row(NAME).install_hint()
        ) from error
    return onnxruntime


def about(_row: Runtime) -> str:
    """One line for `doctor`: version and where it runs. Raises RuntimeMissing."""
    module = import_onnxruntime()
    used = [one if isinstance(one, str) else one[0] for one in providers(module)]
    shown = ", ".join(name.replace("ExecutionProvider", "") for name in used)
    return f"{NAME} {module.__version__}, on {shown} (run uses it for .onnx models)"


def providers(module: ModuleType, gpu: bool = True) -> list[Any]:
    """The execution providers to use, best first, with their options."""
    chosen: list[Any] = []
    for name in module.get_available_providers():
        if name not in _GPU or not gpu:
            continue
        # Building a TensorRT engine takes minutes on a Jetson: it is kept.
        cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(paths.cache_dir() / "tensorrt")}
        chosen.append((name, cache) if name == "TensorrtExecutionProvider" else name)
    return [*chosen, _CPU]


def session_options(module: ModuleType, threads: int = 1) -> Any:
    """What every session of ours is opened with: `threads` threads, quiet, exact integer sums."""
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait by spinning take the time that capture and outputs need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if sums_overflow():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def sums_overflow(machine: str = "", cpuinfo: Path = _CPUINFO) -> bool:
    """Whether this processor multiplies uint8 with int8 through sums of 16 bits, which saturate.

    That is x86 without dot products (VNNI, AMX): it cost 5 points of top-1. Unknown processors count as such.
    """
    if (machine or platform.machine()).lower() not in ("x86_64", "amd64", "i686", "i386"):
        return False
    try:
        flags = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return True
    return not any(word in flags for word in ("avx512_vnni", "avx_vnni", "amx_int8"))


class OnnxInterpreter:
    """A loaded ONNX model, as `edge_mnv2.runtime.table.AnyInterpreter`. One thread at a time."""

    engine = "cpu"

    def __init__(self, session: Any, path: str, runtime: str, threads: int, size: Optional[tuple[int, int]]) -> None:
        self._session = session
        self.runtime = runtime
        self.threads = threads
        self.delegate = next((_GPU[name] for name in session.get_providers() if name in _GPU), "none")
        if self.delegate != "none":
            self.engine = "gpu"
        self.inputs = [_spec(argument, index) for index, argument in enumerate(session.get_inputs())]
        if len(self.inputs) == 1:
            shape = sized_shape(path, self.inputs[0].shape, size)
            self.inputs = [TensorSpec(self.inputs[0].name, 0, shape, self.inputs[0].dtype, 0.0, 0)]
        # Outputs that are no tensors of numbers (lists of dictionaries, the best class's name) cannot be scores.
        listed = [(index, one) for index, one in enumerate(session.get_outputs()) if _dtype(one) is not None]
        self.outputs = [_spec(argument, index) for index, argument in listed]
        self._names = [spec.name for spec in self.outputs]
        self._fed: dict[str, np.ndarray] = {}
        self._answers: list[np.ndarray] = []
        if any(n < 1 for spec in self.outputs for n in spec.shape):
            self._learn_open_shapes()

    def _learn_open_shapes(self) -> None:
        """How many scores there are where the file leaves it open: an inference of zeros shows it."""
        with contextlib.suppress(Exception):  # what fails here fails with its reason when it is run in earnest
            zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.inputs}
            shapes = [answer.shape for answer in self._session.run(self._names, zeros)]
            self.outputs = [replace(spec, shape=shape) for spec, shape in zip(self.outputs, shapes)]

    def set_input(self, values: np.ndarray, position: int = 0) -> None:
        """Remember `values` (the input's own shape and dtype) as input number `position` until `invoke`."""
        self._fed[self.inputs[position].name] = values

    def invoke(self) -> None:
        """Run the model once. Raises ModelError with the runtime's own words."""
        try:
            self._answers = self._session.run(self._names, self._fed)
        except Exception as error:  # each kind of failure has a class of its own there
            raise ModelError(f"the model fails when it runs: {first_line(error)}") from error

    def output(self, position: int = 0) -> np.ndarray:
        """Output number `position`, in the tensor's own dtype; made anew by each `invoke`."""
        return self._answers[position]

    def close(self) -> None:
        self._session = None
        self._answers = []


def open_model(
    row: Runtime,
    path: Union[Path, str],
    *,
    threads: int = 1,
    accelerate: bool = True,
    input_size: Optional[tuple[int, int]] = None,
) -> OnnxInterpreter:
    """As `Runtime.open` says; `threads` are those of the CPU part."""
    module = import_onnxruntime()
    chosen = providers(module, accelerate)
    try:
        session = _session(module, path, session_options(module, threads), chosen)
    except Exception as error:  # InvalidProtobuf, InvalidGraph, NotImplemented, Fail, NoSuchFile, ...
        if re.search("external (data|initializer)", str(error).replace(str(path), ""), re.IGNORECASE):
            hint = f"copy it too, whole: exporters call it {Path(path).name}.data"
            raise ModelError(f"{path} has its weights in another file, which is not beside it", hint=hint) from error
        if len(chosen) == 1:
            # Float64 above all.
            advice = "export it in float32, or try --runtime openvino" if "NOT_IMPLEMENTED" in str(error) else None
            raise ModelError(f"{path} cannot be loaded: {_reason(error)}", hint=advice) from error
        log.warning("the GPU cannot be used (%s): going on without it", _reason(error))
        return open_model(row, path, threads=threads, accelerate=False, input_size=input_size)
    try:
        return OnnxInterpreter(session, str(path), f"{NAME} {module.__version__}", threads, input_size)
    except ModelError as error:
        text = error.message if error.message.startswith(str(path)) else f"{path}: {error.message}"
        raise ModelError(text, hint=error.hint) from None


def _session(module: ModuleType, path: Union[Path, str], options: Any, chosen: list[Any]) -> Any:
    model = str(path) if paths.utf8_named(Path(path)) else Path(path).read_bytes()
    with native_stderr_logged():
        # The package's own way back to the CPU prints to stdout.
        return module.InferenceSession(model, options, providers=chosen, enable_fallback=0)


def _reason(error: Exception) -> str:
    text = first_line(error)
    # "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from x.onnx failed:Protobuf parsing failed"
    return text.split(" : ", 2)[-1] if text.startswith("[ONNXRuntimeError]") else text


def _dtype(argument: Any) -> Optional[str]:
    """The type of an input's or output's numbers; None where it has none."""
    return _NUMBERS.get(argument.type[len("tensor(") : -1]) if argument.type.startswith("tensor(") else None


def _spec(argument: Any, index: int) -> TensorSpec:
    dtype = _dtype(argument)
    if dtype is None:
        raise ModelError(f"the model's '{argument.name}' is {argument.type}", hint="uint8, int8 and floats can be fed")
    shape = tuple(n if isinstance(n, int) and n > 0 else -1 for n in argument.shape)
    # A batch of any size is run with one picture.
    shape = (1, *shape[1:]) if shape and shape[0] == -1 else shape
    return TensorSpec(argument.name, index, shape, np.dtype(dtype), 0.0, 0)
