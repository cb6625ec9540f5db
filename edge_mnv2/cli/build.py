"""`edge-mnv2 build`."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Optional

import typer

from edge_mnv2.cli.options import JSON, option
from edge_mnv2.cli.table import aligned
from edge_mnv2.errors import UsageError

log = logging.getLogger(__name__)


def register(app: typer.Typer) -> None:
    app.command()(build)


def build(
    out: Optional[Path] = option("--out", help="The model file to write.", metavar="FILE"),
    weights: str = option(
        "--weights",
        help="imagenet (default), or a .pth or .safetensors file.",
        metavar="imagenet|FILE",
        default="imagenet",
    ),
    width: Optional[float] = option("--width", help="Width multiplier; default: what the weights have."),
    resolution: int = option("--resolution", help="Input size in pixels (default 224).", default=224),
    classes: Optional[int] = option("--classes", help="Outputs; default: what the weights have.", min=1),
    labels: Optional[Path] = option("--labels", help="The classes' names, one a line.", metavar="FILE"),
    calibration: Optional[Path] = option(
        "--calibration", help="Pictures like those that the model will see, for new ranges.", metavar="DIR"
    ),
    ranges: Optional[Path] = option(
        "--ranges", help="Ranges that a calibration or `train --qat` wrote for these weights.", metavar="FILE"
    ),
    task: str = option("--task", help="classification (default) or regression.", default="classification"),
    bounds: Optional[str] = option(
        "--bounds", help="A regression's least and greatest value; default: linear.", metavar="LOW,HIGH"
    ),
    unit: Optional[str] = option("--unit", help="A regression's unit, for people."),
    floating: bool = option("--float", help="A float model instead of a full-integer one.", default=False),
    target: str = option("--target", help="cpu (default), or edgetpu to check its limits too.", default="cpu"),
    format: str = option("--format", help="tflite (default), or onnx (extra onnx).", default="tflite"),
    input_type: str = option("--input-type", help="Of an integer .tflite: uint8 (default) or int8.", default="uint8"),
    output_type: str = option(
        "--output-type", help="Of an integer .tflite: int8 (default) or float32.", default="int8"
    ),
    report: Optional[Path] = option(
        "--report", help="Write a page with each layer's signal to noise.", metavar="FILE.html"
    ),
    as_json: bool = JSON,
) -> None:
    """Build a .tflite or .onnx model from trained weights, and say what quantization cost."""
    if out is None:
        raise UsageError(f"no --out FILE.{format} is given", hint="say where to write the model")
    from edge_mnv2.builder.recipe import build as run_build
    from edge_mnv2.builder.request import BuildRequest

    request = BuildRequest(
        out=out,
        weights=weights,
        width=width,
        resolution=resolution,
        classes=classes,
        labels=labels,
        calibration=calibration,
        ranges=ranges,
        task=task,
        bounds=_bounds(bounds),
        unit=unit,
        floating=floating,
        target=target,
        format=format,
        input_dtype=input_type,
        output_dtype=output_type,
        report=report,
    )
    document = run_build(request, lambda line: log.info("%s", line)).as_dict()
    if as_json:
        typer.echo(json.dumps(document, indent=2))
    else:
        typer.echo(_in_words(document))


def _bounds(text: Optional[str]) -> Optional[tuple[float, float]]:
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--bounds {text}", hint="two numbers, such as 0,100") from None
    return low, high


def _in_words(report: dict[str, Any]) -> str:
    took = report["inference_ms"]
    speed = "unknown: ONNX Runtime is not installed" if took is None else f"{took:.1f} ms on this machine, one thread"
    rows = [
        ["file", f"{report['out']} ({report['bytes'] / 1e6:.2f} MB)"],
        ["sha256", report["sha256"]],
        ["network", f"{report['parameters'] / 1e6:.2f} M parameters, {report['macs'] / 1e6:.1f} M MACs"],
        ["one inference", speed],
    ]
    if report["logit_cosine"] is not None:
        if report["agreement"] is not None:
            rows.append(["same top-1 as float", f"{report['agreement']:.1%} of {report['pictures']} pictures"])
        if report["value_rms"] is not None:
            rows.append(["difference to float", f"{report['value_rms']:.4g} (rms over {report['pictures']} pictures)"])
        rows.append(["logit cosine", f"{report['logit_cosine']:.4f}"])
        rows.append(["saturated", f"{report['saturation']:.1%} of the pictures"])
    lines = [aligned(rows)]
    measured = [layer for layer in report["layers"] if layer["snr_db"] is not None]
    if measured:
        worst = sorted(measured, key=lambda layer: layer["snr_db"])[:5]
        cells = [[f"{layer['snr_db']:.1f}", f"{layer['saturation']:.2%}", layer["name"]] for layer in worst]
        lines += ["", "the noisiest layers", aligned(cells, ["dB", "values cut", "layer"], right=(0, 1))]
    return "\n".join(lines)
