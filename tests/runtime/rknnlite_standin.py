"""Stands for rknn-toolkit-lite2, which runs on boards with a Rockchip NPU only: its class with the methods of 2.3.

Its models are `.tflite` files behind the head of an `.rknn` file, answered in real numbers as the package does.
`installed(FOLDER)` puts it on the path of worker processes. The file FOLDER/fault makes it misbehave: dies, refuses,
silent, nan, missing. FOLDER/calls has a line for each context: the mask of its cores.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pytest

from edge_mnv2.errors import ModelError
from edge_mnv2.runtime.interpreter import open_interpreter

_MARK = b"TFLITE:"
ROOT = Path(__file__).parents[2]


def compiled(model: bytes, *, facts: bool = True) -> bytes:
    """What the compiler makes of a `.tflite`."""
    with open_interpreter(model) as one:
        shown = [
            [[list(spec.shape), spec.dtype.str, spec.scale, spec.zero_point] for spec in specs]
            for specs in (one.inputs, one.outputs)
        ]
    line = json.dumps({"edge-mnv2": shown}).encode() if facts else b""
    return b"RKNN" + bytes(28) + line + bytes(4) + _MARK + model


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "rknnlite"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "api.py").write_text(f"from {__name__} import RKNNLite\n")
    (folder / "rknn_toolkit_lite2-2.3.2.dist-info").mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("STANDIN_RKNN", str(folder))


def _fault() -> str:
    file = Path(os.environ["STANDIN_RKNN"], "fault")
    return file.read_text() if file.exists() else ""


class RKNNLite:
    NPU_CORE_AUTO, NPU_CORE_0, NPU_CORE_1, NPU_CORE_2, NPU_CORE_0_1_2 = 0, 1, 2, 4, 7

    def __init__(self, verbose: bool = False, verbose_file: Optional[str] = None) -> None:
        self._model: Any = None

    def load_rknn(self, path: str) -> int:
        content = Path(path).read_bytes()
        try:
            self._model = open_interpreter(content.partition(_MARK)[2])
        except ModelError:
            return -1
        return 0

    def init_runtime(self, core_mask: int = NPU_CORE_AUTO) -> int:
        with Path(os.environ["STANDIN_RKNN"], "calls").open("a") as calls:
            calls.write(f"{core_mask}\n")
        return -1 if _fault() == "missing" else 0

    def inference(self, inputs: list[np.ndarray], data_format: Optional[list[str]] = None) -> Any:
        if _fault() == "dies":
            os.abort()
        if _fault() == "silent":
            return None
        assert data_format == ["nhwc"] and inputs[0].dtype == np.uint8
        spec = self._model.inputs[0]
        picture = inputs[0] if spec.dtype == np.uint8 else (inputs[0].astype(np.int16) - 128).astype(np.int8)
        self._model.set_input(picture)
        self._model.invoke()
        factor = np.float32("nan" if _fault() == "nan" else 1)
        return [
            factor * output.dequantize(self._model.output(number)).reshape(output.shape)
            for number, output in enumerate(self._model.outputs)
        ]

    def release(self) -> None:
        self._model = None
