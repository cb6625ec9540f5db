"""A build's report as one HTML file: the summary, each layer's signal-to-noise ratio as a chart, and a table."""

from __future__ import annotations

from html import escape
from typing import Any, Optional

from edge_mnv2.builder.report import BuildReport
from edge_mnv2.html_report import cards, page, section, table
from edge_mnv2.svg_chart import STYLE, fragment, options

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
    body = [
        f'<p class="soft">{escape(document["network"])} · sha256 {document["sha256"]}</p>',
        cards(_figures(document)),
    ]
    if report.comparison is not None:
        body.append(section("Signal to noise by layer", chart(layers), _NOTE))
    elif not report.request.floating:
        body.append(f'<p class="soft">{_UNMEASURED}</p>')
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
    body.append(section("Layers", table(header, rows, numeric=(3, 4, 5, 6))))
    return page(f"Build of {report.request.out.name}", "\n".join(body), STYLE + _STYLE)


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
