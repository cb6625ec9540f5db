"""What to build, and what of it cannot go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from edge_mnv2.builder.inference import Normalization
from edge_mnv2.errors import UsageError
from edge_mnv2.network.network import Head
from edge_mnv2.zoo.sidecar import check_target

IMAGENET = "imagenet"
"""The weights that are known by name: torchvision's MobileNetV2, width 1.0, 1000 classes."""

TASKS = ("classification", "regression")
TARGETS = ("cpu", "edgetpu")
FORMATS = ("tflite", "onnx")
INPUT_TYPES = ("uint8", "int8")
OUTPUT_TYPES = ("int8", "float32")


@dataclass(frozen=True)
class BuildRequest:
    """What to build. `weights` is "imagenet" or a `.pth` or `.safetensors` file; None where the weights decide.

    `ranges` is a file of calibration ranges that belongs to the weights, instead of pictures to find them on: what an
    earlier calibration or quantization-aware training wrote. With both, the pictures only measure.

    `mean` and `std` (RGB) are how pictures were normalized for the weights: of 1, or of 255 where one is above 1.

    `report` is a page about the result. `input_dtype` and `output_dtype` are an integer `.tflite`'s own: an ONNX file
    takes uint8 and gives floats.
    """

    out: Path
    weights: str = IMAGENET
    width: Optional[float] = None
    resolution: Optional[int] = None
    classes: Optional[int] = None
    labels: Optional[Path] = None
    calibration: Optional[Path] = None
    ranges: Optional[Path] = None
    task: Optional[str] = None
    bounds: Optional[tuple[float, float]] = None
    unit: Optional[str] = None
    floating: bool = False
    target: str = "cpu"
    format: str = "tflite"
    input_dtype: str = "uint8"
    output_dtype: str = "int8"
    report: Optional[Path] = None
    mean: Optional[tuple[float, ...]] = None
    std: Optional[tuple[float, ...]] = None

    def check(self) -> None:
        """Raises UsageError for the first thing that cannot be, or cannot go together."""
        for option, value, known in (
            ("--task", self.task or TASKS[0], TASKS),
            ("--target", self.target, TARGETS),
            ("--format", self.format, FORMATS),
            ("--input-type", self.input_dtype, INPUT_TYPES),
            ("--output-type", self.output_dtype, OUTPUT_TYPES),
        ):
            if value not in known:
                raise UsageError(f"{option} {value}", hint=" or ".join(known))
        if self.target == "edgetpu" and (self.floating or self.format != "tflite"):
            other = "--float" if self.floating else "--format onnx"
            raise UsageError(
                f"{other} and --target edgetpu exclude each other", hint="an Edge TPU runs full-integer .tflite files"
            )
        default = (self.input_dtype, self.output_dtype) == (INPUT_TYPES[0], OUTPUT_TYPES[0])
        if not default and (self.floating or self.format != "tflite"):
            raise UsageError("--input-type and --output-type are those of a full-integer .tflite")
        if self.weights == IMAGENET:
            self._check_imagenet()
        check_target("--out", self.out, f".{self.format}")
        if self.report is not None:
            check_target("--report", self.report, ".html")
        if self.ranges is not None and self.floating:
            raise UsageError("--ranges are those of integers", hint="leave out --float or --ranges")
        # Says what is wrong with the bounds.
        Head(self.task or TASKS[0], bounds=self.bounds)
        self.pictures()

    def pictures(self) -> Optional[Normalization]:
        """The normalization that `mean` and `std` say, of 1. Raises UsageError where they cannot be."""
        if self.mean is None and self.std is None:
            return None
        if self.mean is None or self.std is None:
            raise UsageError("--mean and --std go together", hint="such as --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5")
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise UsageError("--std must be above 0, and --mean and --std plain numbers")
        scale = 255.0 if max(*self.mean, *self.std) > 1 else 1.0
        return Normalization(tuple(value / scale for value in self.mean), tuple(value / scale for value in self.std))

    def _check_imagenet(self) -> None:
        if self.width not in (None, 1.0):
            raise UsageError(
                f"the imagenet weights exist for width 1.0 only, not {self.width:g}", hint="give --weights FILE"
            )
        if self.classes not in (None, 1000):
            raise UsageError(f"the imagenet weights have 1000 classes, not {self.classes}")
        if self.task not in (None, "classification"):
            raise UsageError("the imagenet weights are a classifier's", hint="give --weights FILE of a regression")
        if self.mean is not None or self.std is not None:
            raise UsageError("--mean and --std are known for the imagenet weights", hint="give --weights FILE")
