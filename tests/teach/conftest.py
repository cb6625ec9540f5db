"""Lessons that several tests look at, learned once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_mnv2.teach.head_fitting import Taught
from edge_mnv2.teach.lesson_request import LessonRequest
from tests.teach.gauges import dial, gauges
from tests.teach.lessons import kinds, taught


@pytest.fixture(scope="session")
def fifteen_kinds(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """All kinds of photographs, a quarter of each held out."""
    return taught(LessonRequest(kinds(data, tmp_path_factory.mktemp("kinds")), holdout=0.25))


@pytest.fixture(scope="session")
def dials(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of a dial, each before another photograph."""
    return gauges(data, tmp_path_factory.mktemp("dials"), dial)
