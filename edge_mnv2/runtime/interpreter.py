"""The runtimes for `.tflite` files, LiteRT and its predecessor: one interpreter over both packages.

`ai-edge-litert` ("litert") is tried first, `tflite-runtime` where it is missing. The native loaders check little, so
`edge_mnv2.tflite.model_file.check` looks at a file before they see it.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Union

import numpy as np

from edge_mnv2.board import accelerators
from edge_mnv2.errors import EdgeMnv2Error, ModelError
from edge_mnv2.installed import pip
from edge_mnv2.messages import visible
from edge_mnv2.paths import utf8_named
from edge_mnv2.runtime import table
from edge_mnv2.runtime.preprocess import sized_shape
from edge_mnv2.runtime.table import (
    TABLE,
    AnyInterpreter,
    NamedRuntimeMissing,
    Runtime,
    RuntimeMissing,
    TensorSpec,
    candidates,
    reference,
)
from edge_mnv2.tflite.model_file import pool_among_outputs, with_pool_output

log = logging.getLogger(__name__)


def import_runtime(name: str = "auto") -> tuple[ModuleType, str]:
    """The interpreter module for `name` ("auto", "litert", "tflite-runtime") and "package version".

    A runtime that takes twins of `.tflite` files stands for "auto".
    Raises UsageError for an unknown name, RuntimeMissing where the package cannot be imported, and NamedRuntimeMissing,
    which is both, where that one was asked for.
    """
    reasons = []
    rows = candidates("model.tflite", name)
    if not rows[0].opens("model.tflite"):
        # A profile may name a runtime that takes twins; whoever comes here needs the model's own graph.
        log.debug("%s opens no .tflite itself: going on with %s", name, reference().name)
        rows, name = candidates("model.tflite"), "auto"
    for row in rows:
        try:
            module = importlib.import_module(row.package)
        except ImportError as error:
            reasons.append(f"{row.distributions[0]}: {error}")
            continue
        return module, f"{row.distributions[0]} {row.version() or 'unknown'}"
    if name != "auto":
        raise NamedRuntimeMissing(f"no runtime {reasons[0]}", hint=f"{row.install_hint()}, or --runtime auto")
    wanted = "ai-edge-litert, or tflite-runtime with 'numpy<2'"
    raise RuntimeMissing(f"no interpreter: {'; '.join(reasons)}", hint=f"{pip()} {wanted}")


def installed_runtimes() -> list[str]:
    """Short names of the packages for `.tflite` files that are installed (nothing is imported)."""
    return [row.name for row in TABLE if row.opens("model.tflite") and row.version() is not None]


_one_redirects = threading.RLock()
"""Descriptor 2 is the whole process's: threads that redirect it at the same time would put back each other's."""


@contextlib.contextmanager
def native_stderr_logged() -> Iterator[None]:
    """Send what native code writes to file descriptor 2 to our debug log instead of the user's terminal."""
    with _one_redirects, _redirected():
        yield


@contextlib.contextmanager
def _redirected() -> Iterator[None]:
    try:
        sys.stderr.flush()
        saved = os.dup(2)
    except (OSError, ValueError, AttributeError):
        yield
        return
    try:
        sink = os.fdopen(memory_file("edge-mnv2-stderr"), "w+b")
    except OSError:
        os.close(saved)
        yield
        return
    with sink:
        try:
            os.dup2(sink.fileno(), 2)
            try:
                yield
            finally:
                os.dup2(saved, 2)
        finally:
            os.close(saved)
            sink.seek(0)
            for line in sink.read().decode(errors="replace").splitlines():
                if line.strip():
                    log.debug("native: %s", line.strip())


def memory_file(name: str) -> int:
    """A descriptor on an empty file in memory, else in the folder for temporary files. Raises OSError."""
    try:
        return os.memfd_create(name)
    except (AttributeError, OSError):
        descriptor, path = tempfile.mkstemp(prefix=f"{name}-")
        Path(path).unlink()
        return descriptor


class Interpreter:
    """A loaded model with allocated tensors. Use it from one thread at a time; `close` frees the native memory."""

    def __init__(self, native: Any, runtime: str, threads: int, delegate: Optional[str] = None) -> None:
        self._native = native
        self.runtime = runtime
        self.threads = threads
        # An input's size is fixed by now, whatever its signature leaves open.
        self.inputs = [_spec(details, details["shape"]) for details in native.get_input_details()]
        self.outputs = [_spec(details) for details in native.get_output_details()]
        self.delegate = delegate or ("xnnpack" if _delegated(native) else "none")

    @property
    def engine(self) -> str:
        """ "cpu", whatever a delegate takes from it."""
        return "cpu"

    def set_input(self, values: np.ndarray, position: int = 0) -> None:
        """Copy `values` (the input's own shape and dtype) into input number `position`."""
        self._native.set_tensor(self.inputs[position].index, values)

    def invoke(self) -> None:
        """Run the model once. Raises ModelError with the runtime's own words."""
        try:
            self._native.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"the model fails when it runs: {first_line(error)}") from error

    def output(self, position: int = 0) -> np.ndarray:
        """A copy of output number `position`, in the tensor's own dtype. No view of native memory ever leaves here.

        Raises ModelError where the model gives none.
        """
        try:
            return self._native.get_tensor(self.outputs[position].index)
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"the model gives no output: {first_line(error)}") from error

    def tensor(self, index: int) -> np.ndarray:
        """A copy of any tensor by index (all are kept only with `preserve_all_tensors`)."""
        return self._native.get_tensor(index)

    def tensor_details(self) -> list[dict]:
        """The runtime's own description of every tensor (name, index, shape, dtype, quantization)."""
        return self._native.get_tensor_details()

    def ops_details(self) -> list[dict]:
        """The executed operators (`op_name`, `inputs`, `outputs`), after delegation; empty where not offered."""
        try:
            return self._native._get_ops_details()
        except AttributeError:
            return []

    def operator_count(self, but: Sequence[str] = ()) -> int:
        """Operators of the graph as it was loaded, whoever runs them; those called as in `but` are left out."""
        names = [details.get("op_name") for details in self.ops_details()]
        return sum(name not in ("DELEGATE", *but) for name in names)

    def close(self) -> None:
        self._native = None

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class EmbeddingInterpreter(Interpreter):
    """With the model's embedding: its own output number `place`, else one behind them."""

    def __init__(self, opened: Interpreter, place: Optional[int] = None) -> None:
        super().__init__(opened._native, opened.runtime, opened.threads, opened.delegate)
        self._embedding = self.outputs.pop() if place is None else self.outputs[place]

    def embedding(self) -> np.ndarray:
        """Real values float32 of what the model saw in the last input, of any size."""
        return self._embedding.dequantize(self._native.get_tensor(self._embedding.index).reshape(-1))


def open_interpreter(
    model: Union[Path, str, bytes],
    *,
    runtime: str = "auto",
    threads: int = 1,
    delegates: Sequence[Any] = (),
    delegate_name: Optional[str] = None,
    xnnpack: bool = True,
    preserve_all_tensors: bool = False,
    quiet: bool = True,
    input_size: Optional[tuple[int, int]] = None,
) -> Interpreter:
    """Load `model` (a path, or the bytes of a file) and allocate its tensors.

    `delegates` are native delegate objects, `delegate_name` what to call them in results. `xnnpack=False` turns the
    default CPU delegate off: the runtime's plain kernels then give bit-equal results between packages. `quiet=False`
    leaves what native code says while it loads on stderr, for a process that may not live to pass it on. `input_size`
    is the (height, width) of an input whose size is open.
    Raises ModelError where the runtime refuses the file, RuntimeMissing where there is no runtime.
    """
    module, version = import_runtime(runtime)
    arguments: dict[str, Any] = {"num_threads": threads}
    if isinstance(model, bytes):
        arguments["model_content"] = model
        name = "model"
    else:
        name = str(model)
        arguments.update(_file_argument(Path(model)))
    if delegates:
        arguments["experimental_delegates"] = list(delegates)
    if preserve_all_tensors:
        arguments["experimental_preserve_all_tensors"] = True
    if not xnnpack:
        resolver = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        arguments["experimental_op_resolver_type"] = resolver
    try:
        with native_stderr_logged() if quiet else contextlib.nullcontext():
            native = module.Interpreter(**arguments)
            _set_size(native, name, input_size)
            native.allocate_tensors()
            return Interpreter(native, version, threads, delegate_name)
    except EdgeMnv2Error:
        raise
    except (RuntimeError, ValueError) as error:
        if "failed to create XNNPACK runtime" in str(error):
            reason = "there is too little memory, or its weights and scales are larger than any arithmetic takes"
            raise ModelError(f"{name} cannot be prepared: {reason}") from error
        raise _explained(name, error) from error
    except MemoryError as error:
        raise ModelError(f"{name} needs more memory than there is") from error
    except (ImportError, SystemError, AttributeError) as error:
        # numpy 2 under a runtime built for numpy 1 fails here, not at import.
        raise RuntimeMissing(
            f"{version} does not work with numpy {np.__version__}", hint=f"{pip()} 'numpy<2' or ai-edge-litert"
        ) from error


def open_model(
    row: Runtime,
    path: Union[Path, str],
    *,
    threads: int = 1,
    accelerate: bool = True,  # noqa: ARG001 - XNNPACK is part of it
    input_size: Optional[tuple[int, int]] = None,
) -> Interpreter:
    """As `Runtime.open` says."""
    return open_interpreter(path, runtime=row.name, threads=threads, input_size=input_size)


def open_with_embedding(
    path: Union[Path, str], *, runtime: str = "auto", threads: int = 1, **more: Any
) -> AnyInterpreter:
    """As `table.open_model`; an `EmbeddingInterpreter` where the file has an embedding and the runtime is ours."""
    if any(row.module == __name__ and row.opens(path) for row in candidates(path, runtime)):
        # What is wrong with the file or the runtime is said below.
        with contextlib.suppress(OSError, EdgeMnv2Error):
            model, place = with_pool_output(Path(path)), pool_among_outputs(Path(path))
            if model is not None or place is not None:
                size = more.get("input_size")
                with_it = open_interpreter(model or path, runtime=runtime, threads=threads, input_size=size)
                return EmbeddingInterpreter(with_it, place)
    return table.open_model(path, runtime=runtime, threads=threads, **more)


def _set_size(native: Any, name: str, size: Optional[tuple[int, int]]) -> None:
    """Give an open input its size. Raises UsageError where `size` is missing or does not fit."""
    inputs = native.get_input_details()
    if len(inputs) != 1:
        return
    shape = _spec(inputs[0]).shape
    if len(shape) == 4 and (size is not None or min(shape[1:]) < 1):
        wanted = sized_shape(name, shape, size)
        if wanted[1:] != shape[1:]:
            native.resize_tensor_input(inputs[0]["index"], wanted)


def _file_argument(path: Path) -> dict[str, Any]:
    if utf8_named(path):
        return {"model_path": str(path)}
    try:
        return {"model_content": path.read_bytes()}
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error


def first_line(error: BaseException) -> str:
    """The first non-empty line of an error's text, without the node, trailing dots or blanks; all of it visible."""
    lines = [one.strip() for one in (str(error).partition("Node number")[0] or str(error)).splitlines() if one.strip()]
    return visible(lines[0].rstrip(". ")).replace("\t", "\\t") if lines else type(error).__name__


def _explained(name: str, error: Exception) -> EdgeMnv2Error:
    text = str(error)
    if row := next((one for one in accelerators.rows() if one.operator and one.operator in text), None):
        return row.not_on_cpu(name)
    if "_ARRAY_API" in text or "numpy.core.multiarray" in text:
        return RuntimeMissing(
            f"the installed runtime does not work with numpy {np.__version__}",
            hint=f"{pip()} 'numpy<2' or ai-edge-litert",
        )
    return ModelError(f"{name} cannot be loaded: {first_line(error)}")


def _delegated(native: Any) -> bool:
    try:
        return any(details["op_name"] == "DELEGATE" for details in native._get_ops_details())
    except (AttributeError, KeyError):
        return False


def _spec(details: dict, shape: Optional[Sequence[int]] = None) -> TensorSpec:
    scale, zero_point = details["quantization"]
    if shape is None:
        shape = details.get("shape_signature", details["shape"])
        shape = details["shape"] if len(shape) != len(details["shape"]) else shape
    return TensorSpec(
        name=details["name"],
        index=int(details["index"]),
        shape=tuple(int(n) for n in shape),
        dtype=np.dtype(details["dtype"]),
        scale=float(scale),
        zero_point=int(zero_point),
    )
