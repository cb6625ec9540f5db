"""Rockchip's NPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_mnv2.runtime.toolkit import Toolkit

TOOLKIT = Toolkit(
    "rknn",
    "rknn-toolkit2",
    ("rknn", "onnx"),
    ("rknn-toolkit2", "'setuptools<81'"),
    ((3, 8), (3, 12)),
    ("x86_64", "aarch64"),
)


def build_in_toolkit(order: dict[str, Any]) -> dict[str, Any]:
    """In the toolkit's Python: compile the `recipe` of `builder.rknn_compile` into the file `out`."""
    _built(Path(order["recipe"])).export_rknn(order["out"])
    return {}


def _built(recipe: Path) -> Any:
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
