"""Models that are on this board: what was taught here, what the registry has brought, what makes embeddings."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from edge_mnv2 import paths
from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.files import sha256_of
from edge_mnv2.pipeline.statistics import give_back_memory
from edge_mnv2.runtime.classifier import Classifier
from edge_mnv2.runtime.opening import model_spec, open_classifier
from edge_mnv2.tflite.model_file import pool_among_outputs, with_pool_output
from edge_mnv2.zoo import latest, registry
from edge_mnv2.zoo.resolve import resolve

log = logging.getLogger(__name__)

TAUGHT_MODEL = "taught.tflite"
_IN_USE = "in-use.json"


def home_in(folder: Path) -> Path:
    return folder / "taught" / TAUGHT_MODEL


def remember_in_use(folder: Path, original: str, taught: bool) -> None:
    """The next run over the collection `folder` that asks for `original` begins with what was taught there, or not.

    Raises OSError.
    """
    note = home_in(folder).with_name(_IN_USE)
    if taught:
        with paths.atomic_write(note, private=True) as file:
            file.write(json.dumps({"in_place_of": original}).encode())
    else:
        note.unlink(missing_ok=True)


def taught_in_place_of(original: str, folder: Path) -> Optional[str]:
    """The path of the taught model that took the place of `original` in an earlier run over `folder`, or None."""
    home = home_in(folder)
    with contextlib.suppress(OSError, ValueError):
        note = json.loads(home.with_name(_IN_USE).read_bytes())
        if isinstance(note, dict) and note.get("in_place_of") == original and home.is_file():
            return str(home)
    return None


def registered(seconds: float = 10.0, memory: dict[str, Any] = {}) -> list[dict[str, Any]]:  # noqa: B006
    """Classifiers of the registry that are on this board; looked up every few seconds at most."""
    if time.monotonic() < memory.get("until", 0.0):
        return list(memory["rows"])
    from edge_mnv2.zoo import inventory

    rows = [inventory.row(entry) for entry in registry.load()]
    here = [
        {"model": row["name"], "name": row["name"]}
        for row in rows
        if row["kind"] == "model" and row["cached"] and row["cpu"] and row["task"] == "classification"
    ]
    memory.update(until=time.monotonic() + seconds, rows=here)
    return here


def newest(name: str) -> Path:
    """The file of `NAME@latest`: what the registry has now, if it opens and answers, else what is here.

    Raises EdgeMnv2Error where nothing is here and nothing can be fetched.
    """
    home = latest.home_of(name)
    with latest.alone(name):
        paths.finish_writing(home)
        try:
            candidate = latest.fetch(name, again=False)
            if candidate is not None:
                with open_classifier(str(candidate))[0] as classifier:
                    classifier.warm_up()
                latest.take(name)
                log.info("%s@latest: a new version, sha256 %s, is taken", name, sha256_of(home)[:12])
        except EdgeMnv2Error as error:
            if not home.is_file():
                raise
            log.warning("%s@latest: %s; the version that is here goes on", name, error.message)
    return home


def embedder_of(model: str, threads: int = 1) -> Optional[Callable[[Any], Any]]:
    """What makes an embedding of RGB uint8 HxWx3 with `model`'s own backbone; None where it has none.

    For a run whose answers do not bring it: the model is opened a second time. A file that shows no embedding is not:
    an accelerator's would take its device for nothing.
    """
    try:
        resolved = resolve(model)
        if with_pool_output(resolved.path) is None and pool_among_outputs(resolved.path) is None:
            return None
        classifier = Classifier.open(resolved.path, spec=model_spec(resolved), threads=threads, embeds=True)
    except (EdgeMnv2Error, OSError):
        return None
    give_back_memory()
    if classifier.embedder is None:
        classifier.close()
        return None
    return lambda pixels: classifier.classify(pixels).embedding
