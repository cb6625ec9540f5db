"""OpenVINO, for `.onnx` files and for the twins of `.tflite` files (extra `openvino`): x86 and 64-bit Arm.

Three rows of the table share this file: the CPU, an Intel GPU, and an Intel NPU.
"""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.interpreter import first_line, native_stderr_logged
from edge_mnv2.runtime.preprocess import sized_shape
from edge_mnv2.runtime.table import Runtime, RuntimeMissing, TensorSpec

log = logging.getLogger(__name__)

_DEVICES = {"openvino": "CPU", "openvino-gpu": "GPU", "openvino-npu": "NPU"}
_NUMBERS = {"u8": "uint8", "i8": "int8", "f16": "float16", "f32": "float32", "f64": "float64"}
_NUMBERS.update({"i32": "int32", "i64": "int64"})


def import_openvino(asked: Runtime) -> ModuleType:
    """The module. Raises RuntimeMissing where it is not installed or cannot be loaded."""
    try:
        with native_stderr_logged():
            import openvino  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise RuntimeMissing(f"{asked.name} needs the package openvino ({error})", hint=asked.install_hint()) from error
    return openvino


def about(row: Runtime) -> str:
    """One line for `doctor`. Raises RuntimeMissing."""
    module = import_openvino(row)
    with native_stderr_logged():
        there = ", ".join(module.Core().available_devices)
    return f"openvino {_version(module)}, on {there} (run compares it with litert, by answers and speed)"


def _version(module: ModuleType) -> str:
    return str(module.__version__.split("-")[0])


class OpenVinoInterpreter:
    """A compiled model, as `edge_mnv2.runtime.table.AnyInterpreter`. One thread at a time."""

    def __init__(self, compiled: Any, path: str, device: str, runtime: str, threads: int) -> None:
        self._request = compiled.create_infer_request()
        self.engine = device.lower()
        self.runtime = runtime
        self.threads = threads
        self.delegate = "none" if device == "CPU" else self.engine
        self.inputs = [_spec(path, port, index) for index, port in enumerate(compiled.inputs)]
        self.outputs = [_spec(path, port, index) for index, port in enumerate(compiled.outputs)]
        self._fed = [self._request.get_input_tensor(index).data for index in range(len(self.inputs))]

    def set_input(self, values: np.ndarray, position: int = 0) -> None:
        """Copy `values` (the input's own shape and dtype) into input number `position`."""
        self._fed[position][:] = values

    def invoke(self) -> None:
        """Run the model once. Raises ModelError with the runtime's own words."""
        try:
            self._request.infer()
        except RuntimeError as error:
            raise ModelError(f"the model fails when it runs: {first_line(error)}") from error

    def output(self, position: int = 0) -> np.ndarray:
        """A copy of output number `position`, in the tensor's own dtype."""
        return self._request.get_output_tensor(position).data.copy()

    def close(self) -> None:
        self._fed = []
        self._request = None


def open_model(
    asked: Runtime,
    path: Union[Path, str],
    *,
    threads: int = 1,
    accelerate: bool = True,
    input_size: Optional[tuple[int, int]] = None,
) -> OpenVinoInterpreter:
    """As `Runtime.open` says. Raises RuntimeMissing where the row's device is not there or may not be used."""
    module = import_openvino(asked)
    device = _DEVICES[asked.name]
    with native_stderr_logged():
        core = module.Core()
        there = {name.split(".")[0] for name in core.available_devices}
    if device not in there or (device != "CPU" and not accelerate):
        why = "--delegate none keeps to the CPU" if device in there else f"it sees {', '.join(sorted(there))} only"
        raise RuntimeMissing(f"OpenVINO has no {device} to use: {why}", hint="--runtime auto")
    try:
        with native_stderr_logged():
            model = core.read_model(_content(path))
            if len(model.inputs) == 1:
                shape = model.inputs[0].get_partial_shape()
                known = tuple(-1 if one.is_dynamic else one.get_length() for one in shape)
                model.reshape(list(sized_shape(str(path), (1, *known[1:]), input_size)))
            compiled = core.compile_model(model, device, _options(device, threads))
    except RuntimeError as error:
        raise ModelError(f"{path} cannot be loaded: {_reason(error)}") from error
    return OpenVinoInterpreter(compiled, str(path), device, f"openvino {_version(module)}", threads)


def _options(device: str, threads: int) -> dict[str, Any]:
    options: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device == "CPU":
        # What is float stays float32 where the processor offers bfloat16; threads stay free to move, as LiteRT's.
        precise = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False}
        options.update(precise, INFERENCE_NUM_THREADS=threads, NUM_STREAMS=1)
    else:
        # Compiling for these takes seconds.
        options["CACHE_DIR"] = str(paths.cache_dir() / "openvino")
    return options


def _content(path: Union[Path, str]) -> Union[str, bytes]:
    return str(path) if paths.utf8_named(Path(path)) else Path(path).read_bytes()


def _reason(error: Exception) -> str:
    """OpenVINO's messages begin with places in its source: the last line that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Exception from", "Check '", "While "))]
    return (lines or [first_line(error)])[-1].rstrip(". ")


def _spec(path: str, port: Any, index: int) -> TensorSpec:
    # By name: OpenVINO's own way to numpy gives another type of the same size for what numpy does not have.
    kind = port.get_element_type().get_type_name()
    if kind not in _NUMBERS:
        raise ModelError(f"{path}: '{port.get_any_name()}' is {kind}", hint="uint8, int8 and floats can be fed")
    dtype = np.dtype(_NUMBERS[kind])
    shape = tuple(-1 if one.is_dynamic else one.get_length() for one in port.get_partial_shape())
    return TensorSpec(port.get_any_name(), index, shape, dtype, 0.0, 0)
