"""`edge-mnv2 compile`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Optional

import typer

from edge_mnv2.cli.command import Command
from edge_mnv2.cli.options import JSON, argument, option
from edge_mnv2.cli.terminal import aligned, json_text
from edge_mnv2.settings.kinds import File, Whole

log = logging.getLogger(__name__)


def compile(
    model: str = argument("MODEL", "A name from `models list`, or a full-integer .tflite file."),
    out: Optional[Path] = option(
        "out",
        "The file to write; default: MODEL_edgetpu.tflite beside the file, or here for a name.",
        File("FILE.tflite"),
    ),
    min_runtime_version: Optional[int] = option(
        "min-runtime-version", "For an older Edge TPU library, as the compiler numbers them.", Whole(10)
    ),
    as_json: bool = JSON,
) -> None:
    """Compile a model for the Coral Edge TPU, with Google's compiler."""
    from edge_mnv2.builder.edgetpu_compile import compile_for_edgetpu

    document = compile_for_edgetpu(
        model, out, min_runtime_version=min_runtime_version, say=lambda line: log.info("%s", line)
    )
    typer.echo(json_text(document) if as_json else _in_words(document))


def _in_words(document: dict[str, Any]) -> str:
    operators = document["operators"]
    rows = [
        ["file", f"{document['out']} ({document['bytes'] / 1e6:.2f} MB)"],
        ["compiler", document["compiler"] or "unknown version"],
        ["operators", f"the Edge TPU runs {_known(operators['tpu'])} of {_known(operators['total'])}"],
        ["weights on the chip", f"{_megabytes(document['on_chip_used_bytes'])}"],
        ["streamed each time", f"{_megabytes(document['off_chip_bytes'])}"],
    ]
    lines = [aligned(rows)]
    left = [row for row in document["table"] if not row["mapped"]]
    if left:
        cells = [[str(row["count"]), row["operator"], row["status"]] for row in left]
        lines += ["", "left on the CPU", aligned(cells, right=(0,))]
    lines += ["", f"edge-mnv2 run --model {document['out']} --delegate edgetpu"]
    return "\n".join(lines)


def _known(number: Optional[int]) -> str:
    return "an unknown number" if number is None else str(number)


def _megabytes(number: Optional[int]) -> str:
    return "unknown" if number is None else f"{number / 1e6:.2f} MB"


COMMAND = Command(compile, examples=("edge-mnv2 compile model.tflite",))
