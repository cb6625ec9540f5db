"""Every file of tests is found by the test command: none lies where pytest does not look."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_every_test_file_is_collected() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = {line.split("::")[0] for line in child.stdout.splitlines() if "::" in line}
    written = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    skipped = {name for name in written - found if f"SKIPPED [1] {name}" in child.stdout}
    assert written - found - skipped == set(), child.stdout[-2000:] + child.stderr
