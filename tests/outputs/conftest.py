"""What tests of outputs that run the command start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.outputs.web.conftest import stub_at


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    """A colour model with its labels beside it."""
    return stub_at(tmp_path)
