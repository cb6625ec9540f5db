"""`edge-mnv2 classify`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import typer

from edge_mnv2.cli.command import Command
from edge_mnv2.cli.options import JSON, MODEL, argument, settings
from edge_mnv2.errors import PARTIAL, SourceError

if TYPE_CHECKING:
    from edge_mnv2.settings.profile import Settings


def classify(
    images: list[str] = argument("IMAGE...", "Pictures, or folders of pictures.", many=True),
    resolved: Settings = settings(*MODEL, "output.top_k"),
    as_json: bool = JSON,
) -> None:
    """Classify still pictures."""
    from edge_mnv2.runtime.opening import open_engines
    from edge_mnv2.runtime.stills import classify_files

    engines = open_engines(resolved, resolved.model.labels, workers=1)
    for said in engines.notes:
        typer.echo(said, err=True)
    rows: list[dict[str, Any]] = []
    failed = 0
    with engines:
        for result in classify_files(engines.engines[0], images):
            if result.error is not None:
                failed += 1
                rows.append({"file": result.file, "error": result.error})
                typer.echo(f"edge-mnv2: error: {result.error}", err=True)
                continue
            top = [{"label": one.label, "index": one.index, "score": round(one.score, 4)} for one in result.top]
            rows.append({"file": result.file, "top": top, "inference_ms": result.inference_ms})
            if not as_json:
                typer.echo(result.file)
                for one in result.top:
                    figure = f"{one.score:.1%}" if one.unit is None else one.figure
                    typer.echo(f"  {figure:>6}  {one.label}")
    if as_json:
        typer.echo(json.dumps({"model": engines.model, "results": rows}, ensure_ascii=False, indent=2))
    if failed:
        raise typer.Exit(SourceError.exit_code if failed == len(rows) else PARTIAL)


COMMAND = Command(
    classify, examples=("edge-mnv2 classify cat.jpg", "edge-mnv2 classify photos/ --model model.tflite --json")
)
