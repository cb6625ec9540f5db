"""`edge-mnv2 build` and `edge-mnv2 compile`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Optional

import typer

from edge_mnv2.board.accelerators import in_words, named
from edge_mnv2.builder.compilers import FORMS, QUANTIZATIONS, TARGETS, CompileRequest, compile_model, takers
from edge_mnv2.cli.command import Command
from edge_mnv2.cli.options import JSON, argument, flag, option, with_origin
from edge_mnv2.cli.terminal import aligned, bar, json_text
from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import File, Number, Whole
from edge_mnv2.settings.more_kinds import Numbers
from edge_mnv2.settings.option import COMMAND_LINE, Value

log = logging.getLogger(__name__)


def build(
    out: Optional[Path] = option("out", "The model file to write.", File()),
    weights: str = option(
        "weights", "imagenet, or a .pth, .safetensors, .h5 or .keras file.", default="imagenet", metavar="imagenet|FILE"
    ),
    width: Optional[float] = option("width", "Width multiplier; default: what the weights have.", Number()),
    resolution: Optional[int] = option(
        "resolution", "Input size in pixels; default: 224, or what a Keras file says.", Whole()
    ),
    classes: Optional[int] = option("classes", "Outputs; default: what the weights have.", Whole(1)),
    labels: Optional[Path] = option("labels", "The classes' names, one a line.", File()),
    calibration: Optional[Path] = option(
        "calibration", "Pictures like those that the model will see, for new ranges.", File("DIR")
    ),
    ranges: Optional[Path] = option(
        "ranges", "Ranges that a calibration or `train --qat` wrote for these weights.", File()
    ),
    task: Optional[str] = option("task", "classification (default) or regression; asked for with one output."),
    mean: Optional[tuple[float, ...]] = option(
        "mean", "Pictures' mean for the weights, of 1 or of 255; default: ImageNet's.", Numbers("R", "G", "B")
    ),
    std: Optional[tuple[float, ...]] = option(
        "std", "Pictures' standard deviation for the weights, with --mean.", Numbers("R", "G", "B")
    ),
    bounds: Optional[tuple[float, float]] = option(
        "bounds",
        "A regression's least and greatest value; default: linear.",
        Numbers("LOW", "HIGH", low=-1e30, high=1e30),
    ),
    unit: Optional[str] = option("unit", "A regression's unit, for people."),
    floating: bool = flag("float", "A float model instead of a full-integer one."),
    target: str = option("target", f"{in_words('cpu, or {0.name} to check its limits too')}.", default="cpu"),
    format: str = option("format", "tflite or onnx.", default="tflite"),
    input_type: str = option("input-type", "Of an integer .tflite: uint8 or int8.", default="uint8"),
    output_type: str = option("output-type", "Of an integer .tflite: int8 or float32.", default="int8"),
    report: Optional[Path] = option("report", "Write a page with each layer's signal to noise.", File("FILE.html")),
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
        bounds=bounds,
        unit=unit,
        floating=floating,
        target=target,
        format=format,
        input_dtype=input_type,
        output_dtype=output_type,
        report=report,
        mean=mean,
        std=std,
    )
    with bar() as draw:
        document = run_build(request, lambda line: log.info("%s", line), draw).as_dict()
    if as_json:
        typer.echo(json_text(document))
    else:
        typer.echo(_in_words(document))


def _shown(values: list[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _in_words(report: dict[str, Any]) -> str:
    took = report["inference_ms"]
    speed = "unknown: ONNX Runtime is not installed" if took is None else f"{took:.1f} ms on this machine, one thread"
    rows = [
        ["file", f"{report['out']} ({report['bytes'] / 1e6:.2f} MB)"],
        ["sha256", report["sha256"]],
        ["network", f"{report['parameters'] / 1e6:.2f} M parameters, {report['macs'] / 1e6:.1f} M MACs"],
        ["one inference", speed],
        ["pictures", ", ".join(f"{name} {_shown(values)}" for name, values in report["normalization"].items())],
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


COMMAND = Command(
    build,
    examples=(
        "edge-mnv2 build --out model.tflite",
        "edge-mnv2 build --weights best.pth --labels labels.txt --calibration photos/ --out model.tflite",
    ),
)


def compile(
    model: Optional[str] = argument("MODEL", "A name from `models list`, or a .tflite file.", required=False),
    target: str = option("target", f"{FORMS}.", default=TARGETS[0].name),
    weights: Value = with_origin(option("weights", "Instead of MODEL: trained weights, as for `build`.")),
    labels: Optional[Path] = option("labels", "The classes' names, one a line.", File()),
    out: Optional[Path] = option(
        "out", "The file to write; default: MODEL_TARGET beside the file, or here for a name.", File()
    ),
    images: Optional[Path] = option(
        "images", "Pictures to choose the integers by; default: those that ship.", File("DIR")
    ),
    quantization: Optional[str] = option("quantization", f"{QUANTIZATIONS}.", default=None),
    embedding: bool = flag("embedding", f"{takers('embedding')}: without the head, which then runs on the CPU."),
    simulator: bool = flag("simulator", "Write what answers like it without the hardware, too."),
    toolkit_python: Optional[Path] = option(
        "toolkit-python", "The Python, or its environment, that has the maker's toolkit.", File("PYTHON")
    ),
    min_runtime_version: Optional[int] = option(
        "min-runtime-version",
        f"{takers('min_runtime_version')}: for an older library, as the compiler numbers them.",
        Whole(10),
    ),
    as_json: bool = JSON,
) -> None:
    """Compile a model for an accelerator, with its maker's own compiler."""
    request = CompileRequest(
        target,
        model,
        # The command line goes before the environment.
        weights=weights.value if model is None or weights.origin == COMMAND_LINE else None,
        labels=labels,
        out=out,
        images=images,
        quantization=quantization,
        embedding=embedding,
        simulator=simulator,
        toolkit_python=toolkit_python,
        min_runtime_version=min_runtime_version,
    )
    document = compile_model(request, lambda line: log.info("%s", line))
    typer.echo(json_text(document) if as_json else _compiled_in_words(document))


def _compiled_in_words(document: dict[str, Any]) -> str:
    operators, row = document["operators"], named(document["delegate"])
    on_it = operators.get("tpu", operators.get("accelerator"))
    rows = [["file", f"{document['out']} ({document['bytes'] / 1e6:.2f} MB)"]]
    if row is not None and row.limits:
        rows += [
            ["compiler", document["compiler"] or "unknown version"],
            ["operators", f"the {row.title} runs {_known(on_it)} of {_known(operators['total'])}"],
            ["weights on the chip", f"{_megabytes(document['on_chip_used_bytes'])}"],
            ["streamed each time", f"{_megabytes(document['off_chip_bytes'])}"],
        ]
    else:
        rows += [
            ["compiler", f"{document['toolkit']}, {document['compile_ms'] / 1e3:.0f} s"],
            ["quantized", f"{document['quantization']}{_pictures(document)}"],
            ["layers", f"the accelerator runs {_known(on_it)} of {_known(operators['total'])}"],
            *([["head", "left to the CPU"]] if document.get("embedding") else []),
            *([name, value] for name, value in _memory(document["memory"])),
        ]
    if (cycles := document.get("estimate", {}).get("cycles")) is not None:
        estimate = f"{cycles / 1e6:.2f} M cycles, {document['estimate']['ms_at_1_ghz']:g} ms at 1 GHz"
        rows.append(["estimate", f"{estimate} (by the compiler)"])
    lines = [aligned(rows)]
    left = [row for row in document["table"] if not row["mapped"]]
    if left:
        cells = [[str(row.get("count", 1)), row["operator"], row.get("status", row.get("name"))] for row in left]
        lines += ["", "left on the CPU", aligned(cells, right=(0,))]
    lines += ["", document.get("next") or f"edge-mnv2 run --model {document['out']} --delegate {document['delegate']}"]
    return "\n".join(lines)


def _pictures(document: dict[str, Any]) -> str:
    return f", by {document['pictures']} pictures{_agreement(document)}" if document["pictures"] else ""


def _agreement(document: dict[str, Any]) -> str:
    """How near the answers to these pictures are to the float network's, where the compiler tells."""
    if document.get("agreement") is not None:
        return f", {document['agreement']:.0%} of them answered as by floats"
    return f", cosine to floats {document['cosine']:.3f}" if document.get("cosine") is not None else ""


def _memory(memory: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name.replace("_bytes", "").replace("_", " "), _megabytes(value)) for name, value in memory.items()]


def _known(number: Optional[int]) -> str:
    return "an unknown number" if number is None else str(number)


def _megabytes(number: Optional[int]) -> str:
    return "unknown" if number is None else f"{number / 1e6:.2f} MB"


COMPILE = Command(compile, examples=tuple(one.example for one in TARGETS))
