"""`edge-mnv2 inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import typer

from edge_mnv2.board.accelerators import Accelerator, limited
from edge_mnv2.cli.command import Command
from edge_mnv2.cli.options import JSON, argument, option, settings
from edge_mnv2.cli.terminal import aligned, json_text
from edge_mnv2.errors import UsageError
from edge_mnv2.settings.kinds import File

if TYPE_CHECKING:
    from edge_mnv2.network.network import Network
    from edge_mnv2.settings.profile import Settings
    from edge_mnv2.settings.schema import ModelOptions


def inspect(
    model: Optional[str] = argument("[MODEL]", "A name from `models list`, or any .tflite file.", required=False),
    network: Optional[str] = option(
        "network", "Show our network's stages instead, not built: 1.0,224.", metavar="WIDTH,RESOLUTION"
    ),
    resolved: Settings = settings("model"),
    svg: Optional[Path] = option("svg", "Draw it into this file.", File()),
    as_json: bool = JSON,
) -> None:
    """Show what a model is: tensors, operators, quantization, costs, who can run it."""
    if (model is None) == (network is None):
        raise UsageError("give either a model or --network", hint="edge-mnv2 inspect --network 1.0,224")
    if network is not None:
        _inspect_network(network, svg, as_json)
    else:
        _inspect_model(str(model), resolved.model, svg, as_json)


def _inspect_model(model: str, options: ModelOptions, svg: Optional[Path], as_json: bool) -> None:
    from edge_mnv2.html_report import write_page
    from edge_mnv2.inspect import delegation, inspection
    from edge_mnv2.inspect.inspection import model_document
    from edge_mnv2.inspect.picture import model_picture
    from edge_mnv2.zoo.resolve import resolve

    resolved = resolve(model)
    inspected = inspection.inspect(resolved.path)
    if svg is not None:
        write_page(svg, model_picture(inspected), "--svg")
    document = model_document(inspected, resolved, delegation.find(resolved.path), options)
    typer.echo(json_text(document) if as_json else _model_text(document))


def _inspect_network(text: str, svg: Optional[Path], as_json: bool) -> None:
    from edge_mnv2.html_report import write_page
    from edge_mnv2.inspect.inspection import network_document
    from edge_mnv2.inspect.picture import network_picture
    from edge_mnv2.network.network import mobilenet_v2

    width, resolution = _width_and_resolution(text)
    network = mobilenet_v2(width, resolution)
    if svg is not None:
        write_page(svg, network_picture(network), "--svg")
    if as_json:
        typer.echo(json_text(network_document(network, width, resolution)))
    else:
        typer.echo(_network_text(network))


def _width_and_resolution(text: str) -> tuple[float, int]:
    width, comma, resolution = text.partition(",")
    try:
        return float(width), int(resolution) if comma else 224
    except ValueError:
        raise UsageError(f"--network {text}", hint="a width and a resolution, such as 1.0,224") from None


def _model_text(document: dict[str, Any]) -> str:
    from edge_mnv2.inspect.picture import scaled

    facts = [("file", f"{document['file']}  ({scaled(document['bytes'])}B)")]
    if document["name"] not in document["file"]:
        facts.append(("name", document["name"]))
    facts.append(("numbers", document["quantization"]))
    for side in ("inputs", "outputs"):
        facts += [(side[:-1], _tensor_text(tensor)) for tensor in document[side]]
    facts += _use_text(document)
    facts.append(("labels", _labels_text(document)))
    for title, key, unit in (("parameters", "parameters", ""), ("MACs", "macs", ""), ("memory", "arena_bytes", "B")):
        value = document[key]
        facts.append((title, "unknown" if value is None else scaled(value) + unit))
    facts[-1] = ("memory", f"{facts[-1][1]} for activations (estimate, without delegates)")
    facts += [
        ("CPU", _cpu_text(document)),
        *((one.title, _compiled_text(document, one)) for one in limited() if one.name in document),
    ]
    facts += [("note", note) for note in document["notes"]]
    counts = ", ".join(f"{count} {name}" for name, count in document["operators"].items())
    facts.append(("operators", counts or "none"))
    return f"{aligned(facts)}\n\n{_layers_text(document)}"


def _tensor_text(tensor: dict[str, Any]) -> str:
    from edge_mnv2.inspect.picture import shape_text

    text = f"{shape_text(tensor['shape'])} {tensor['dtype']}  {tensor['name']}"
    if tensor["scale"] is not None:
        text += f"  (scale {tensor['scale']:.6g}, zero point {tensor['zero_point']})"
    return text


def _use_text(document: dict[str, Any]) -> list[tuple[str, str]]:
    """How pictures go in and what comes out, with who says so."""
    image, answer = document["input"], document["output"]
    if image is None:
        return []
    size = "any size" if image["size"] is None else f"{image['size'][0]}x{image['size'][1]}"
    mean, std = (" ".join(f"{n:.4g}" for n in dict.fromkeys(image[key])) for key in ("mean", "std"))
    origin = image["from"]
    return [
        ("picture", f"{image['layout']} ({origin['layout']}), {size} ({origin['size']})"),
        ("scaling", f"(pixel - {mean}) / {std}  ({origin['mean']})"),
        ("answer", f"{answer['kind']} ({answer['from']})"),
    ]


def _labels_text(document: dict[str, Any]) -> str:
    if document["labels"] is None:
        return "none known: the row number stands for the name"
    source = document["labels_from"]
    return f"{len(document['labels'])} names, {source if source.startswith('packed') else f'from the {source}'}"


def _cpu_text(document: dict[str, Any]) -> str:
    runtime = document["runtime"]
    if runtime["problem"]:
        return str(runtime["problem"])
    total = sum(layer["subgraph"] == 0 for layer in document["layers"])
    if not document["xnnpack"]:
        return f"{runtime['name']} loads it; no operator runs through XNNPACK"
    parts = "" if runtime["parts"] == 1 else f" in {runtime['parts']} parts"
    left = f", not {', '.join(runtime['not_delegated'])}" if runtime["not_delegated"] else ""
    return f"XNNPACK runs {runtime['delegated']} of {total} operators{parts}{left}  ({runtime['name']})"


def _compiled_text(document: dict[str, Any], row: Accelerator) -> str:
    twin = document["twin"] or {}
    if document[row.name]:
        left = sum(count for name, count in document["operators"].items() if name != row.operator)
        return f"compiled for it: {row.share(left, None)}" + (f"; on a CPU: {twin['cpu']}" if twin.get("cpu") else "")
    return _compilable_text(document, row.name) + (f"; compiled: {twin['tpu']}" if twin.get("tpu") else "")


def _compilable_text(document: dict[str, Any], name: str) -> str:
    """What `edge-mnv2 compile` would make of it."""
    problems, mapped, total = document[f"{name}_problems"], document[f"{name}_operators"], len(document["layers"])
    if not problems:
        return f"not compiled for it; its compiler should take all {total} operators (edge-mnv2 compile)"
    more = f" and {len(problems) - 2} more reasons" if len(problems) > 2 else ""
    why = f"{'; '.join(problems[:2])}{more}"
    if not document[f"{name}_compiles"]:
        return f"not compiled for it, and cannot be: {why}"
    return f"not compiled for it; its compiler should take {mapped} of {total} operators: {why}"


def _layers_text(document: dict[str, Any]) -> str:
    from edge_mnv2.inspect.picture import scaled, shape_text

    total = document["macs"]
    several = document["subgraphs"] > 1
    rows = []
    for layer in document["layers"]:
        macs, parameters = layer["macs"], layer["parameters"]
        number = f"{layer['subgraph']}.{layer['index']}" if several else str(layer["index"])
        share = f"{macs / total:.1%}" if macs and total else ""
        rows.append(
            [
                number,
                f"{layer['operator']} {layer['detail']}".strip(),
                f"{shape_text(layer['shape'])} {layer['dtype']}",
                "?" if parameters is None else f"{parameters:,}" if parameters else "",
                "?" if macs is None else scaled(macs) if macs else "",
                share,
            ]
        )
    return aligned(rows, ["", "operator", "output", "parameters", "MACs", ""], right=(0, 3, 4, 5))


def _network_text(network: Network) -> str:
    from edge_mnv2.inspect.picture import scaled, shape_text
    from edge_mnv2.network.network import stage_table

    rows = [
        [
            shape_text(row.input),
            row.operator,
            "" if row.t is None else str(row.t),
            str(row.c),
            str(row.n),
            "" if row.s is None else str(row.s),
            shape_text(row.output),
            f"{row.parameters:,}" if row.parameters else "",
            scaled(row.macs) if row.macs else "",
        ]
        for row in stage_table(network)
    ]
    header = ["input", "operator", "t", "c", "n", "s", "output", "parameters", "MACs"]
    table = aligned(rows, header, right=(2, 3, 4, 5, 7, 8))
    total = f"{network.parameters:,} parameters (without batch normalization), {scaled(network.macs)} MACs"
    return f"{network.name}\n\n{table}\n\n{total}"


COMMAND = Command(
    inspect, examples=("edge-mnv2 inspect model.tflite", "edge-mnv2 inspect --network 1.0,224 --svg network.svg")
)
