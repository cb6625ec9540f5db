"""The measured time beside the published one of this kind of board."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Optional, Union

from edge_mnv2.board.cpus import online_cpus
from edge_mnv2.board.detect import Board
from edge_mnv2.board.health import HealthSample
from edge_mnv2.errors import EdgeMnv2Error
from edge_mnv2.inspect.inspection import inspect
from edge_mnv2.profiler.expectation import Judgement, judge
from edge_mnv2.settings.schema import Expected
from edge_mnv2.zoo.resolve import Resolved

_MACS = 300.8e6
"""MobileNetV2 1.0/224 (Sandler et al. 2018, table 4: 300 M)."""
_NEAR = 0.03
_BUSY_CPUS = 0.3


def precision(model: Resolved) -> Optional[str]:
    """ "int8" or "float32" where `model` is a MobileNetV2 1.0/224 by its costs, else None: nothing to compare with."""
    try:
        found = inspect(model.path)
    except EdgeMnv2Error:
        return None
    if found.edgetpu:
        # Its operators are hidden in one; the registry knows which network it was.
        return "int8" if model.entry is not None and "mobilenet_v2_1.0_224" in model.name else None
    shape = found.inputs[0].shape if found.inputs else ()
    if found.macs is None or abs(found.macs / _MACS - 1) > _NEAR or tuple(shape[1:3]) != (224, 224):
        return None
    return "float32" if found.inputs[0].dtype == "float32" and "int8" not in found.quantization else "int8"


def compare(
    model: Resolved,
    p50_ms: Optional[float],
    expected: Expected,
    *,
    board: Board,
    sample: HealthSample,
    threads: int,
    delegate: str,
    others: Optional[float],
    root: Union[str, Path] = "/",
) -> Optional[Judgement]:
    """How `p50_ms` (model only) compares with what the profile expects; None where the model is another network.

    `others` are the CPUs that other programs kept busy meanwhile.
    """
    kind = precision(model)
    if kind is None or p50_ms is None:
        return None
    judgement = judge(
        p50_ms,
        expected,
        board=board,
        sample=sample,
        threads=threads,
        delegate=delegate,
        precision=kind,
        online_cpus=online_cpus(root),
    )
    causes = list(judgement.causes)
    if judgement.verdict == "slower" and others is not None and others > _BUSY_CPUS:
        causes.append(f"other programs kept {others:.1f} CPUs busy")
    return replace(judgement, causes=tuple(causes))
