"""What of the registry is on this machine: listed, verified, removed, as rows of `--json`. Also pins a registry."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.errors import ModelError, ProfileError
from edge_mnv2.files import sha256_of
from edge_mnv2.strict_yaml import read_plain
from edge_mnv2.zoo import cache
from edge_mnv2.zoo.entry import RUNS_ON, Entry, parse_entries
from edge_mnv2.zoo.model_facts import MEASURED
from edge_mnv2.zoo.pull import leftovers, removal_lock
from edge_mnv2.zoo.sidecar import read_sidecar

log = logging.getLogger(__name__)

OURS = "edge-mnv2"
"""What the registry that ships is called in listings."""


def row(entry: Entry) -> dict[str, Any]:
    """One row of `models list`. `cached`: a good copy ships or is in the cache; `path`: the copy that would be used."""
    copy, damaged = cache.find(entry)
    return {
        "name": entry.name,
        "kind": entry.kind,
        "task": entry.task,
        "input": None if entry.input is None else {"shape": list(entry.input.shape), "dtype": entry.input.dtype},
        "bytes": copy.path.stat().st_size if entry.bytes is None and copy is not None else entry.bytes,
        "cached": copy is not None and copy.place in ("package", "cache"),
        "path": None if copy is None else str(copy.path),
        "cpu": entry.cpu,
        "tpu": entry.tpu,
        "where": "damaged" if copy is None and damaged else None if copy is None else copy.place,
        "licence": entry.licence,
        "registry": entry.registry or OURS,
    }


def details(entry: Entry) -> dict[str, Any]:
    """All that `models show` tells about an entry."""
    labels = cache.entry_labels(entry) if entry.label_file is None or cache.label_path(entry).is_file() else None
    return {
        **row(entry),
        "summary": entry.summary,
        "file": entry.file,
        "sha256": entry.sha256,
        "outputs": entry.outputs,
        "labels": entry.labels if isinstance(entry.labels, str) else "in the registry" if entry.labels else None,
        "label_count": None if labels is None else len(labels),
        "background": entry.background,
        "unit": entry.unit,
        "origin": entry.origin,
        "attribution": entry.attribution,
        "sources": [str(source) for source in entry.sources],
        "recipe": dict(entry.recipe) or None,
    }


def verify(entry: Entry) -> list[dict[str, Any]]:
    """Hash every copy of the entry that is here, whatever was remembered; `problem` is None for a good one."""
    rows = []
    for copy in cache.copies(entry):
        if copy.place == "mirror":
            continue
        try:
            wrong = cache.problem(copy.path, entry, fresh=True)
        except FileNotFoundError:
            # What is not in the cache is no fault; what should have been installed is.
            if copy.place != "package":
                continue
            wrong = "it is missing"
        rows.append({"name": entry.name, "path": str(copy.path), "where": copy.place, "problem": wrong})
    return rows


def remove(entry: Entry) -> list[Path]:
    """Delete the entry's files from the cache, partial ones too; what was removed.

    Raises ModelError where there is nothing to remove, for a file that ships with the package, or where the cache
    cannot be written.
    """
    target = cache.cached_path(entry)
    if not target.parent.is_dir() or not (target.exists() or target.is_symlink() or leftovers(target)):
        reason = "ships with edge-mnv2 and stays" if entry.package_file is not None else "is not in the cache"
        raise ModelError(f"{entry.name} {reason}", hint=f"nothing to remove in {target.parent}")
    removed = []
    try:
        with removal_lock(target):
            for path in (target, *leftovers(target), *(_byproducts(target) if entry.recipe else ())):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                    removed.append(path)
    except OSError as error:
        raise ModelError(f"{target} cannot be removed: {error.strerror or error}") from error
    return removed


def _byproducts(target: Path) -> list[Path]:
    """What a build writes beside its model."""
    return [cache.built_mark(target), *(target.with_suffix(end) for end in (".yaml", ".labels.txt", ".ranges.json"))]


def remedy(verified: dict[str, Any]) -> str:
    """What to do about a row of `verify` that has a problem."""
    advice = {"package": "install edge-mnv2 again", "registry": "copy it again from whoever keeps that registry"}
    return advice.get(verified["where"], f"edge-mnv2 pull {verified['name']}")


def table(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of `models list` for a person."""
    from rich.filesize import decimal

    teams = any(row["registry"] != OURS for row in rows)
    cells = []
    for row in rows:
        shape = "" if row["input"] is None else "x".join(str(n) for n in row["input"]["shape"][1:])
        line = [row["name"], row["task"] or row["kind"], f"{shape} {row['input']['dtype']}" if shape else "-"]
        line += [decimal(row["bytes"]) if row["bytes"] else "built", _place(row), _device(row), row["licence"]]
        cells.append([*line, *([row["registry"]] if teams else [])])
    header = ["NAME", "TASK", "INPUT", "SIZE", "HERE", "RUNS ON", "LICENCE", *(["REGISTRY"] if teams else [])]
    return header, cells


def description(details: dict[str, Any]) -> str:
    """The details of an entry for a person: one `key: value` a line."""
    shown = dict(details)
    shape = details["input"]
    shown["input"] = None if shape is None else f"{'x'.join(str(n) for n in shape['shape'])} {shape['dtype']}"
    if details["label_count"]:
        shown["labels"] = f"{details['labels']} ({details['label_count']} names)"
    shown["cached"] = "yes" if details["cached"] else "no"
    shown["sources"] = ", ".join(details["sources"])
    recipe = details["recipe"]
    shown["recipe"] = recipe and ", ".join(f"{key} {value}" for key, value in recipe.items())
    del shown["label_count"], shown["where"]
    return "\n".join(f"{key + ':':13}{value}" for key, value in shown.items() if value not in (None, ""))


def _place(row: dict[str, Any]) -> str:
    words: dict[Optional[str], str] = {None: "-", "package": "ships", "registry": "team", "damaged": "DAMAGED"}
    return words.get(row["where"], row["where"])


def _device(row: dict[str, Any]) -> str:
    if row["kind"] != "model":
        return "-"
    return RUNS_ON[row["cpu"] != row["name"]]


def pin(path: Path) -> list[str]:
    """Write sha256 and size of the files beside the registry `path` into it, and what `teach` measured of them as
    their sidecars say it; the names of the entries that changed.

    For whoever keeps a registry, ours or a team's. Entries whose file is not there stay as they are, and so do comments
    and order. Raises ProfileError.
    """
    if path.exists() and not path.is_file():
        raise ProfileError(f"{path} is no registry: it is no file", hint="name a registry.yaml")
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        changed = _pinned(path, lines)
        if changed:
            with paths.atomic_write(path, "w") as handle:
                handle.write("\n".join(lines))
    except UnicodeDecodeError:
        raise ProfileError(f"{path} is no registry: it is not UTF-8 text", hint="name a registry.yaml") from None
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path} cannot be read or written: {getattr(error, 'strerror', None) or error}") from error
    ours = path.resolve() == paths.packaged("models", "registry.yaml").resolve()
    origin = (None, None) if ours else (str(path), f"{path.resolve().parent}/")
    parse_entries(read_plain(path, ProfileError), str(path), *origin)
    return changed


def _pinned(path: Path, lines: list[str]) -> list[str]:
    """Pin each entry of `lines`, which are changed; the names of those that were not right."""
    changed = []
    for name, start, end in _blocks(lines):
        block = lines[start:end]
        file = next(
            (m.group(1) for line in block if (m := re.fullmatch(r" +file: *([^ #]+).*", line))), f"{name}.tflite"
        )
        if not (path.parent / file).is_file():
            continue
        model = path.parent / file
        digest = sha256_of(model, fresh=True)
        values = {"sha256": digest, "bytes": str(model.stat().st_size), **_measured(model, digest, name, block)}
        updated = _with_values(block, values)
        if updated != block:
            lines[start:end] = updated
            changed.append(name)
    return changed


def _measured(model: Path, sha256: str, name: str, block: Sequence[str]) -> dict[str, Optional[str]]:
    """Each key's value of the sidecar of `model`, None where it has none; empty where no sidecar is this model's.

    A sidecar stays here: that the entry `name`, the lines `block`, lacks the labels it has is said.
    """
    sidecar = read_sidecar(model)
    if sidecar is None or (sidecar.sha256 and sha256 not in sidecar.sha256):
        return {}
    if sidecar.labels and not any(line.startswith("    labels:") for line in block):
        text = "%s has no labels here, and boards would call its classes 0, 1, 2: give it `labels:`, those of %s"
        log.warning(text, name, sidecar.path)
    return {**dict.fromkeys(MEASURED), **sidecar.measured.as_yaml()}


def _blocks(lines: list[str]) -> list[tuple[str, int, int]]:
    """(name, first line, line after the last) of each entry, last entry first: lines may be added on the way."""
    starts = [
        (m.group(1), row) for row, line in enumerate(lines) if (m := re.fullmatch(r"  ([\w.-]+):\s*(?:#.*)?", line))
    ]
    ends = [row for _, row in starts[1:]] + [len(lines)]
    return [(name, row, end) for (name, row), end in zip(starts, ends)][::-1]


def _with_values(block: list[str], values: dict[str, Optional[str]]) -> list[str]:
    """`block` with a line for each value; None takes the key out."""
    for key, value in values.items():
        row = next((row for row, line in enumerate(block) if re.match(rf"    {key}:", line)), None)
        after = 1
        if row is not None:
            # A value of several lines goes as a whole.
            after = row + 1
            while after < len(block) and re.match(r"     +\S|    -", block[after]):
                after += 1
        line = [] if value is None else [f"    {key}: {value}"]
        block = [*block[: 1 if row is None else row], *line, *block[after:]]
    return block
