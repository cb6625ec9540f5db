"""What a run leaves for people and programs: JSON Lines of metrics, a page with curves, TensorBoard's log."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from edge_mnv2.zoo.sidecar import write_all

METRICS, CURVES, TENSORBOARD = "metrics.jsonl", "curves.html", "tensorboard"


class Records:
    """One entry an epoch. The files always hold the whole history, so a resumed run repeats no line and misses none."""

    def __init__(self, out: Path, history: list[dict[str, Any]], tensorboard: bool, say: Callable[[str], None]) -> None:
        self._out = out
        self.history = history
        self._writer = _tensorboard(out, say) if tensorboard else None

    def add(self, entry: dict[str, Any]) -> None:
        """Keep `entry` and write the files anew. Raises UsageError where they cannot be written."""
        from edge_mnv2.train.curves import page

        self.history.append(entry)
        lines = "".join(json.dumps(one) + "\n" for one in self.history)
        text = page(self._out.name, self.history)
        write_all([(self._out / METRICS, lines.encode()), (self._out / CURVES, text.encode())])
        if self._writer is not None:
            step = len(self.history)
            measures = {f"validation/{name}": value for name, value in entry["validation"].items()}
            for name, value in {"train/loss": entry["train_loss"], **measures}.items():
                self._writer.add_scalar(name, value, step)
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def _tensorboard(out: Path, say: Callable[[str], None]) -> Optional[Any]:
    if importlib.util.find_spec("tensorboard") is None:
        say("--tensorboard: no log, the package is not installed (pip install tensorboard)")
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(out / TENSORBOARD))
