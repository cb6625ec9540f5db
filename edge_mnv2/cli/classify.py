"""`edge-mnv2 classify`."""

from __future__ import annotations

import json
from typing import Any, Optional

import typer

from edge_mnv2.cli.options import JSON, option, setting_overrides
from edge_mnv2.errors import PARTIAL, SourceError


def register(app: typer.Typer) -> None:
    app.command()(classify)


def classify(
    context: typer.Context,
    images: list[str] = typer.Argument(
        ..., metavar="IMAGE...", help="Pictures, or folders of pictures.", show_default=False
    ),
    model: Optional[str] = option("--model", help="A name from `models list`, or a .tflite file.", metavar="NAME|PATH"),
    labels: Optional[str] = option("--labels", help="A label file for the model.", metavar="FILE"),
    resize: Optional[str] = option("--resize", help="crop (default), stretch or letterbox."),
    top_k: Optional[str] = option("--top-k", help="How many classes to name (default 5).", metavar="K"),
    threads: Optional[str] = option("--threads", help="Interpreter threads: auto or a number.", metavar="auto|N"),
    runtime: Optional[str] = option("--runtime", help="auto, litert, tflite-runtime, or onnxruntime for .onnx models."),
    delegate: Optional[str] = option("--delegate", help="auto, none, edgetpu[:N|:usb[:N]|:pci[:N]]."),
    as_json: bool = JSON,
) -> None:
    """Classify still pictures."""
    from edge_mnv2.runtime.opening import open_engines
    from edge_mnv2.runtime.stills import classify_files
    from edge_mnv2.settings.profile import resolve

    engines = open_engines(resolve(None, setting_overrides(context)), labels, workers=1)
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
