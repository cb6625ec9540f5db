"""The second backend: ONNX Runtime, for `.onnx` files (extra `onnx`). It is the way to a Jetson's GPU.

A model takes one picture as uint8 (1, rows, columns, 3) RGB, the form that `edge-mnv2 build --format onnx` writes;
float32 in the same layout is fed as float `.tflite` models are. ONNX Runtime's own execution providers stand for
delegates: TensorRT and CUDA where they are there and may be used, else its CPU kernels.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError
from edge_mnv2.installed import extra_hint
from edge_mnv2.runtime.interpreter import RuntimeMissing, TensorSpec, first_line, native_stderr_logged

log = logging.getLogger(__name__)

NAME = "onnxruntime"

_GPU = {"TensorrtExecutionProvider": "tensorrt", "CUDAExecutionProvider": "cuda"}
_CPU = "CPUExecutionProvider"
_DTYPES = {"tensor(uint8)": np.uint8, "tensor(int8)": np.int8, "tensor(float)": np.float32}


def install_hint() -> str:
    """How to get ONNX Runtime here."""
    return f"{extra_hint('onnx')}; on a Jetson, NVIDIA's onnxruntime-gpu for its JetPack"


def is_onnx(path: Union[Path, str]) -> bool:
    """Whether a model's name says that it is for this backend."""
    return Path(path).suffix.lower() == ".onnx"


def import_onnxruntime() -> ModuleType:
    """The module. Raises RuntimeMissing where it is not installed or cannot be loaded."""
    try:
        import onnxruntime
    except ImportError as error:
        raise RuntimeMissing(f"ONNX models need the package onnxruntime ({error})", hint=install_hint()) from error
    return onnxruntime


def providers(module: ModuleType, gpu: bool = True) -> list[Any]:
    """The execution providers to use, best first, with their options."""
    found: list[Any] = []
    for name in module.get_available_providers():
        if name not in _GPU or not gpu:
            continue
        # Building a TensorRT engine takes minutes on a Jetson: it is kept.
        cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(paths.cache_dir() / "tensorrt")}
        found.append((name, cache) if name == "TensorrtExecutionProvider" else name)
    return [*found, _CPU]


class OnnxInterpreter:
    """A loaded ONNX model, as `edge_mnv2.runtime.interpreter.AnyInterpreter`. One thread at a time."""

    engine = "cpu"

    def __init__(self, session: Any, runtime: str, threads: int) -> None:
        self._session = session
        self.runtime = runtime
        self.threads = threads
        self.delegate = next((_GPU[name] for name in session.get_providers() if name in _GPU), "none")
        if self.delegate != "none":
            self.engine = "gpu"
        self.inputs = [_spec(argument, index) for index, argument in enumerate(session.get_inputs())]
        self.outputs = [_spec(argument, index) for index, argument in enumerate(session.get_outputs())]
        self._names = [spec.name for spec in self.outputs]
        self._given: dict[str, np.ndarray] = {}
        self._answers: list[np.ndarray] = []

    def set_input(self, values: np.ndarray, position: int = 0) -> None:
        """Remember `values` (the input's own shape and dtype) as input number `position` until `invoke`."""
        self._given[self.inputs[position].name] = values

    def invoke(self) -> None:
        """Run the model once. Raises ModelError with the runtime's own words."""
        try:
            self._answers = self._session.run(self._names, self._given)
        except Exception as error:  # each kind of failure has a class of its own there
            raise ModelError(f"the model fails when it runs: {first_line(error)}") from error

    def output(self, position: int = 0) -> np.ndarray:
        """Output number `position`, in the tensor's own dtype; made anew by each `invoke`."""
        return self._answers[position]

    def close(self) -> None:
        self._session = None
        self._answers = []


def open_onnx(path: Union[Path, str], *, threads: int = 1, gpu: bool = True) -> OnnxInterpreter:
    """Load `path` with `threads` threads for the CPU part. `gpu=False` leaves the board's GPU alone.

    Raises RuntimeMissing without ONNX Runtime, ModelError where it refuses the file.
    """
    module = import_onnxruntime()
    options = module.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that wait by spinning take the time that capture and outputs need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    wanted = providers(module, gpu)
    try:
        session = _session(module, path, options, wanted)
    except Exception as error:  # InvalidProtobuf, InvalidGraph, NotImplemented, Fail, NoSuchFile, ...
        if len(wanted) == 1:
            raise ModelError(f"{path} cannot be loaded: {_reason(error)}") from error
        log.warning("the GPU cannot be used (%s): going on without it", _reason(error))
        return open_onnx(path, threads=threads, gpu=False)
    try:
        return OnnxInterpreter(session, f"{NAME} {module.__version__}", threads)
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", hint=error.hint) from None


def _session(module: ModuleType, path: Union[Path, str], options: Any, wanted: list[Any]) -> Any:
    model = str(path) if paths.utf8_named(Path(path)) else Path(path).read_bytes()
    with native_stderr_logged():
        # The package's own way back to the CPU prints to stdout.
        return module.InferenceSession(model, options, providers=wanted, enable_fallback=0)


def version() -> Optional[str]:
    """The installed version of ONNX Runtime, None where there is none. Nothing is loaded."""
    from importlib import metadata

    for name in (NAME, f"{NAME}-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _reason(error: Exception) -> str:
    text = first_line(error)
    # "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from x.onnx failed:Protobuf parsing failed"
    return text.split(" : ", 2)[-1] if text.startswith("[ONNXRuntimeError]") else text


def _spec(argument: Any, index: int) -> TensorSpec:
    if argument.type not in _DTYPES:
        raise ModelError(f"the model's '{argument.name}' is {argument.type}", hint="uint8 and float32 can be used")
    shape = tuple(n if isinstance(n, int) else -1 for n in argument.shape)
    # A batch of any size is run with one picture.
    shape = (1, *shape[1:]) if shape and shape[0] == -1 else shape
    return TensorSpec(argument.name, index, shape, np.dtype(_DTYPES[argument.type]), 0.0, 0)
