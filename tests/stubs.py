"""Tiny real `.tflite` models whose answers are known: row 0 says red, row 1 green, row 2 blue, further rows nothing."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path
from typing import Optional

import numpy as np

from edge_mnv2.tflite import graph
from edge_mnv2.tflite.ir import Graph, Operator, Quantization, Subgraph, Tensor

GAIN = 8.0


def colour_model(
    dtype: str = "uint8",
    *,
    height: int = 8,
    width: int = 8,
    channels: int = 3,
    outputs: int = 3,
    softmax: bool = True,
    batch_signature: int = 1,
    input_scale: Optional[float] = None,
    output_scale: Optional[float] = None,
) -> bytes:
    """A model of mean → fully connected (→ softmax) with `dtype` inside and out.

    Real input values are (pixel - 127.5) / 127.5; a logit is `GAIN` times the mean of its colour.
    """
    quantized = dtype != "float32"
    zero = {"uint8": 128, "int8": 0, "float32": 0}[dtype]
    scale = input_scale or 1 / 127.5

    def tensor(name: str, shape: tuple[int, ...], scale: float, zero: int) -> Tensor:
        quantization = Quantization.per_tensor(scale, zero) if quantized else None
        return Tensor(name, shape, dtype, quantization=quantization)

    image = tensor("image", (1, height, width, channels), scale, zero)
    if batch_signature != 1:
        image.shape_signature = (batch_signature, height, width, channels)
    pooled = tensor("pooled", (1, channels), scale, zero)
    logits = tensor("logits", (1, outputs), output_scale or 0.1, zero)
    weights = np.zeros((outputs, channels), np.float32)
    for row in range(min(outputs, channels)):
        weights[row, row] = GAIN
    if quantized:
        stored = np.rint(weights / (GAIN / 127)).astype(np.int8)
        if dtype == "uint8":
            kernel = Tensor.constant("weights", (stored.astype(np.int16) + 128).astype(np.uint8))
            kernel.quantization = Quantization.per_tensor(GAIN / 127, 128)
        else:
            kernel = Tensor.constant("weights", stored, Quantization.per_tensor(GAIN / 127))
        bias = Tensor.constant("bias", np.zeros(outputs, np.int32), Quantization.per_tensor(GAIN / 127 * scale))
    else:
        kernel = Tensor.constant("weights", weights)
        bias = Tensor.constant("bias", np.zeros(outputs, np.float32))
    axes = Tensor.constant("axes", np.array([1, 2], np.int32))
    operators = [
        Operator(
            "MEAN", [image, axes], [pooled], "ReducerOptions", {"keep_dims": False}, version=2 if quantized else 1
        ),
        Operator(
            "FULLY_CONNECTED",
            [pooled, kernel, bias],
            [logits],
            "FullyConnectedOptions",
            version={"int8": 4, "uint8": 2, "float32": 1}[dtype],
        ),
    ]
    last = logits
    if softmax:
        last = tensor("scores", (1, outputs), 1 / 256, {"uint8": 0, "int8": -128, "float32": 0}[dtype])
        operators.append(
            Operator("SOFTMAX", [logits], [last], "SoftmaxOptions", {"beta": 1.0}, version=2 if dtype == "int8" else 1)
        )
    tensors = [image, axes, pooled, kernel, bias, logits] + ([last] if softmax else [])
    return graph.write(Graph([Subgraph(tensors, [image], [last], operators)], description="colour stub"))


def solid(colour: tuple[int, int, int], height: int = 48, width: int = 64) -> np.ndarray:
    """An RGB uint8 picture of one colour."""
    return np.full((height, width, 3), colour, np.uint8)


RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def stub_at(folder: Path, labels: str = "[red, green, blue]") -> Path:
    """A colour model in `folder` with its labels beside it."""
    path = folder / "colours.tflite"
    path.write_bytes(colour_model())
    path.with_suffix(".yaml").write_text(f"labels: {labels}\n")
    return path


def free_port() -> int:
    """A port that nobody uses and that the kernel gives to nobody by itself, until a server binds it, and between two.

    Whoever asks for any port, or connects from one, may be given one that was free a moment ago.
    """
    given_out = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.SystemRandom().sample(range(min(given_out, 32768) // 2, min(given_out, 32768)), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")
