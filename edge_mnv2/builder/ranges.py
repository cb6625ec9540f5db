"""Calibration ranges as a file: from weights and ranges a model is rebuilt byte for byte."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from edge_mnv2 import paths
from edge_mnv2.builder.quantization import Ranges
from edge_mnv2.builder.weights import Weights
from edge_mnv2.errors import ModelError, UsageError
from edge_mnv2.network.mobilenet_v2 import width_text
from edge_mnv2.network.network import Network

_DIGITS = 6
_CALIBRATE = "give --calibration DIR with about fifty pictures like those that the model will see"


def rounded(ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Ranges as the JSON file keeps them, so that a rebuild from the file gives the same bytes."""
    return {name: (_short(low), _short(high)) for name, (low, high) in ranges.items()}


def _short(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def document(network: Network, weights: Weights, ranges: Ranges, pictures: int, crops: int) -> str:
    """The JSON text of calibration ranges, as it is kept beside a model and read by `shipped`."""
    content = {
        "network": {"width": weights.width, "resolution": network.input[0], "outputs": network.outputs},
        "weights_sha256": weights.sha256,
        "pictures": pictures,
        "crops": crops,
        "ranges": {name: list(pair) for name, pair in ranges.items()},
    }
    return json.dumps(content, indent=1) + "\n"


def shipped(network: Network, weights: Weights) -> dict[str, tuple[float, float]]:
    """The ranges that ship for `weights` at the network's resolution. Raises UsageError where there are none."""
    size = network.input[0]
    path = paths.packaged("models", f"mobilenet_v2_{width_text(weights.width or 0)}_{size}.ranges.json")
    if not path.is_file():
        raise UsageError(f"no calibration ranges ship for these weights at {size} pixels", hint=_CALIBRATE)
    return _read(path, weights)


def read(path: Path, network: Network, weights: Weights) -> dict[str, tuple[float, float]]:
    """The ranges in file `path`. Raises ModelError for another kind of file, UsageError where they belong to other
    weights or another resolution."""
    try:
        size = json.loads(path.read_text(encoding="utf-8"))["network"]["resolution"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"--ranges {path} holds no calibration ranges ({error})") from error
    if size != network.input[0]:
        raise UsageError(
            f"--ranges {path} are for {size} pixels, the model takes {network.input[0]}", hint=f"--resolution {size}"
        )
    return _read(path, weights, f"the ranges in {path}")


def _read(path: Path, weights: Weights, what: str = "the shipped calibration ranges") -> dict[str, tuple[float, float]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digest, ranges = content["weights_sha256"], content["ranges"]
        found = {str(name): (float(low), float(high)) for name, (low, high) in ranges.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} holds no calibration ranges ({error})", hint="install edge-mnv2 again") from error
    if digest != weights.sha256:
        raise UsageError(f"weights {weights.source} are not those that {what} belong to", hint=_CALIBRATE)
    return found
