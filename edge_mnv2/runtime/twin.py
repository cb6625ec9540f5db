"""A `.tflite` in a runtime that reads ONNX: through its ONNX twin, made once and kept in the cache."""

from __future__ import annotations

import contextlib
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Optional, Union

import numpy as np

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError
from edge_mnv2.files import sha256_of
from edge_mnv2.runtime.table import AnyInterpreter, Runtime, TensorSpec

FORM = 1
"""Raised when the same `.tflite` gives another twin: those in the cache are then made again."""

log = logging.getLogger(__name__)


def open_model(
    row: Runtime,
    path: Union[Path, str],
    *,
    threads: int = 1,
    accelerate: bool = True,
    input_size: Optional[tuple[int, int]] = None,
) -> AnyInterpreter:
    """The twin of the `.tflite` at `path` in the runtime of `row`; its input has the scale of the `.tflite`.

    Its output is real numbers, float32. Raises ModelError where there is no twin or the runtime refuses it.
    """
    with _twin(Path(path)) as (twin, image):
        interpreter = row.open(twin, threads=threads, accelerate=accelerate, input_size=input_size)
        interpreter.inputs[:] = [image]
        return interpreter


@contextlib.contextmanager
def _twin(path: Path) -> Iterator[tuple[Path, TensorSpec]]:
    """The twin's file and its input. Where the cache cannot be written, the file lasts as long as the block."""
    # Named by the model's content.
    place = paths.cache_dir() / "twins" / f"{sha256_of(path)[:32]}-{FORM}.onnx"
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
        raise ModelError(
            f"{path}: no ONNX twin can be made: {error.message}", hint="--runtime litert runs it"
        ) from None
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
