"""What share of a graph the Edge TPU runs."""

from __future__ import annotations

from typing import Optional


def share_text(left_on_cpu: int, operators: Optional[int]) -> str:
    """In words: `left_on_cpu` operators of a compiled graph run on the CPU; its CPU twin has `operators` (None: no twin
    to count in; the compiler melts all that the TPU runs into one operator)."""
    if operators is not None and operators >= left_on_cpu:
        return f"the Edge TPU runs {operators - left_on_cpu} of {operators} operators"
    if not left_on_cpu:
        return "the Edge TPU runs the whole graph"
    return f"the Edge TPU runs all but {left_on_cpu} operator{'s' if left_on_cpu > 1 else ''}"
