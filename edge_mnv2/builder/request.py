"""What to build and what of it cannot go together; and the report of what was built, as JSON and as a page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.board import accelerators
from edge_mnv2.builder.comparison import Comparison
from edge_mnv2.builder.inference import LOGITS, Normalization, Operation
from edge_mnv2.builder.weights import Weights
from edge_mnv2.errors import UsageError
from edge_mnv2.html_report import cards, page, section, table
from edge_mnv2.network.blocks import Convolution, Linear
from edge_mnv2.network.network import Head, Network
from edge_mnv2.svg_chart import STYLE, fragment, options
from edge_mnv2.zoo.sidecar import check_target

IMAGENET = "imagenet"
"""The weights that are known by name: torchvision's MobileNetV2, width 1.0, 1000 classes."""

TASKS = ("classification", "regression")
TARGETS = ("cpu", *(one.name for one in accelerators.TABLE if one.limits))
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
        if (row := accelerators.named(self.target)) is not None and (self.floating or self.format != "tflite"):
            other = "--float" if self.floating else "--format onnx"
            raise UsageError(
                f"{other} and --target {row.name} exclude each other",
                hint=f"{row.one()} runs full-integer .tflite files",
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


@dataclass(frozen=True)
class BuildReport:
    """The model that was written and what is known about it; without pictures there is no `comparison`.

    `crops` is how many crops calibrated it, None where shipped ranges did, or none were needed.
    """

    request: BuildRequest
    network: Network
    weights: Weights
    pictures: Normalization
    sha256: str
    bytes: int
    inference_ms: Optional[float]
    steps: tuple[Operation, ...]
    comparison: Optional[Comparison] = None
    crops: Optional[int] = None
    written: tuple[Path, ...] = ()

    def layers(self) -> list[dict[str, Any]]:
        """One row a layer: its cost, and what quantization did to it."""
        last = self.network.classifier
        costs = {
            layer.norm if isinstance(layer, Convolution) else LOGITS if layer is last else layer.name: layer
            for layer in self.network.layers()
            if isinstance(layer, (Convolution, Linear))
        }
        rows = []
        for step in self.steps:
            if step.kind == "pad":
                continue
            noise = self.comparison.layers.get(step.output) if self.comparison else None
            layer = costs.get(step.output)
            rows.append(
                {
                    "name": step.output,
                    "operator": step.kind,
                    "output": list(step.shape),
                    "parameters": layer.parameters if layer else 0,
                    "macs": layer.macs if layer else 0,
                    "snr_db": noise.snr_db if noise else None,
                    "saturation": noise.saturation if noise else None,
                }
            )
        return rows

    def as_dict(self) -> dict[str, Any]:
        """The JSON document of `build`, by the names of the command line's contract."""
        compared = self.comparison
        return {
            "out": str(self.request.out),
            "sha256": self.sha256,
            "bytes": self.bytes,
            "format": self.request.format,
            "agreement": compared.agreement if compared else None,
            "logit_cosine": round(compared.logit_cosine, 6) if compared else None,
            "saturation": compared.saturation if compared else None,
            "value_rms": compared.value_rms if compared else None,
            "pictures": compared.pictures if compared else None,
            "crops": self.crops,
            "network": self.network.name,
            "weights_sha256": self.weights.sha256,
            "normalization": {"mean": list(self.pictures.mean), "std": list(self.pictures.std)},
            "left_out": list(self.weights.left_out),
            "assumed": list(self.weights.assumed),
            "parameters": self.network.parameters,
            "macs": self.network.macs,
            "inference_ms": self.inference_ms,
            "layers": self.layers(),
            "written": [str(path) for path in self.written],
        }


_STYLE = "h1,p{overflow-wrap:anywhere}@media(max-width:44rem){svg{max-width:none;width:42rem}}"

_NOTE = (
    "Signal to noise of each layer's values in decibels, integer against float model, every layer before it quantized "
    "too: 20 dB is an error of a tenth, 40 dB of a hundredth. What is low on the way and recovers did no harm; a layer "
    "that stays far below its neighbours is where to look."
)
_UNMEASURED = "Without --calibration DIR there are no pictures to compare the integer and the float model on."


def report_page(report: BuildReport) -> str:
    """The document; everything in it is inline."""
    document = report.as_dict()
    layers = document["layers"]
    pictures = " and ".join(
        f"{name} {', '.join(f'{value:g}' for value in values)}" for name, values in document["normalization"].items()
    )
    content = [
        f'<p class="soft">{escape(document["network"])} · sha256 {document["sha256"]}</p>',
        f'<p class="soft">Pictures normalized inside the model with {pictures} (of 1).</p>',
        *(f'<p class="soft">Assumed: {escape(sentence)}.</p>' for sentence in document["assumed"]),
        cards(_figures(document)),
    ]
    if report.comparison is not None:
        content.append(section("Signal to noise by layer", chart(layers), _NOTE))
    elif not report.request.floating:
        content.append(f'<p class="soft">{_UNMEASURED}</p>')
    header = ("layer", "operator", "output", "parameters", "M MACs", "SNR, dB", "values cut")
    rows = [
        [
            escape(layer["name"]),
            layer["operator"],
            "x".join(map(str, layer["output"])),
            f"{layer['parameters']:,}" if layer["parameters"] else "",
            f"{layer['macs'] / 1e6:.2f}" if layer["macs"] else "",
            "" if layer["snr_db"] is None else f"{layer['snr_db']:.1f}",
            "" if layer["saturation"] is None else f"{layer['saturation']:.2%}",
        ]
        for layer in layers
    ]
    content.append(section("Layers", table(header, rows, numeric=(3, 4, 5, 6))))
    return page(f"Build of {report.request.out.name}", "\n".join(content), STYLE + _STYLE)


def _figures(document: dict[str, Any]) -> list[tuple[str, str]]:
    known: list[tuple[str, Optional[str]]] = [
        ("same top-1 as float", _share(document["agreement"])),
        ("difference to float (rms)", _number(document["value_rms"], ".4g")),
        ("logit cosine", _number(document["logit_cosine"], ".4f")),
        ("pictures with cut logits", _share(document["saturation"])),
        ("size", f"{document['bytes'] / 1e6:.2f} MB"),
        ("parameters", f"{document['parameters'] / 1e6:.2f} M"),
        ("cost", f"{document['macs'] / 1e6:.1f} M MACs"),
        ("one inference here", _number(document["inference_ms"], ".1f", " ms")),
    ]
    return [(name, figure) for name, figure in known if figure is not None]


def _number(value: Optional[float], form: str, unit: str = "") -> Optional[str]:
    return None if value is None else f"{value:{form}}{unit}"


def _share(value: Optional[float]) -> Optional[str]:
    return None if value is None else f"{value:.1%}"


def chart(layers: list[dict[str, Any]]) -> str:
    """One bar a layer in the order of the network, one colour an operator."""
    import pygal

    drawn = pygal.StackedBar(
        y_title="dB", x_title="layers in the order of the network", show_x_labels=False, **options(height=320)
    )
    for kind in dict.fromkeys(layer["operator"] for layer in layers):
        drawn.add(
            kind,
            [
                {"value": layer["snr_db"], "label": layer["name"]} if layer["operator"] == kind else None
                for layer in layers
            ],
            formatter=lambda value: "" if value is None else f"{value:.1f} dB",
        )
    return fragment(drawn, "Signal to noise by layer")
