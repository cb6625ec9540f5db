"""A `.tflite` in a runtime that reads ONNX: through its ONNX twin, made once and kept in the cache."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Union

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.table import AnyInterpreter, Runtime, TensorSpec
from edge_mnv2.zoo.digest import sha256_of

log = logging.getLogger(__name__)


def open_twin(row: Runtime, path: Union[Path, str], *, threads: int = 1, accelerate: bool = True) -> AnyInterpreter:
    """The twin of the `.tflite` at `path` in the runtime of `row`; its input has the scale of the `.tflite`.

    Its output is real numbers, float32. Raises ModelError where there is no twin or the runtime refuses it.
    """
    with _twin(Path(path)) as (twin, image):
        interpreter = row.open(twin, threads=threads, accelerate=accelerate)
        interpreter.inputs[:] = [image]
        return interpreter


def twin_place(path: Path) -> Path:
    """Where the twin of a model is kept: named by the model's content and the form of twins."""
    from edge_mnv2.tflite.onnx_twin import FORM

    return paths.cache_dir() / "twins" / f"{sha256_of(path)[:32]}-{FORM}.onnx"


def ensure_twin(path: Path) -> None:
    """Make the twin now, if it is not there, for whoever opens it later. Raises ModelError, OSError."""
    with _twin(path):
        pass


@contextlib.contextmanager
def _twin(path: Path) -> Iterator[tuple[Path, TensorSpec]]:
    """The twin's file and its input. It is written to the cache, or for the while of the block only, where that fails."""
    place = twin_place(path)
    described = place.with_suffix(".json")
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        fields = json.loads(described.read_text(encoding="utf-8"))
        # A damaged twin would answer wrongly, and is made again.
        if fields.pop("sha256") == sha256_of(place):
            fields["dtype"] = np.dtype(fields["dtype"])
            image = TensorSpec("image", 0, **{**fields, "shape": tuple(fields["shape"])})
            yield place, image
            return
    from edge_mnv2.tflite.graph import read
    from edge_mnv2.tflite.onnx_twin import NoTwin, onnx_twin

    began = time.monotonic()
    try:
        content, picture = onnx_twin(read(path.read_bytes(), str(path)))
    except NoTwin as error:
        raise ModelError(f"{path} has no ONNX twin: {error.message}", hint="--runtime litert runs it") from None
    image = TensorSpec("image", 0, picture.shape, np.dtype(picture.dtype), picture.scale, picture.zero_point)
    log.info("made the ONNX twin of %s in %.1f s", path.name, time.monotonic() - began)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        paths.write_together([(place, content), (described, _described(content, image))])
    except OSError as error:
        log.debug("the twin is not kept: %s", error)
        with tempfile.NamedTemporaryFile(suffix=".onnx") as handle:
            handle.write(content)
            handle.flush()
            yield Path(handle.name), image
        return
    yield place, image


def _described(content: bytes, image: TensorSpec) -> bytes:
    import hashlib

    fields = {"sha256": hashlib.sha256(content).hexdigest(), "shape": image.shape, "dtype": image.dtype.name}
    return json.dumps({**fields, "scale": image.scale, "zero_point": image.zero_point}).encode()
