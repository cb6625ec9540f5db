"""What a build says about itself: as one JSON document, and as a page with each layer's signal-to-noise ratio."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.builder.comparison import Comparison
from edge_mnv2.builder.inference import LOGITS, Normalization, Operation
from edge_mnv2.builder.request import BuildRequest
from edge_mnv2.builder.weights import Weights
from edge_mnv2.html_report import cards, page, section, table
from edge_mnv2.network.layers import Convolution, Linear
from edge_mnv2.network.network import Network
from edge_mnv2.svg_chart import STYLE, fragment, options


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
