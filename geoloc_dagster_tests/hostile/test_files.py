"""Files that were made to do harm do none: each is one error with a code, nothing runs, and memory stays what the file needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from geoloc_dagster_tests.hostile.files import FAMILIES

MOST_GROWTH, MOST_SECONDS = 300 * 2**20, 20.0
FEWEST = {
    "weights": 200, "index": 400, "manifests": 20, "exports": 60, "tables": 100, "lists": 20, "yamls": 20, "archives": 60,
    "lance_tables": 48,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_hostile_files_are_refused(family: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "geoloc_dagster_tests.hostile.files", family, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, f"ended with {done.returncode} in {lines[-1:]}: {done.stderr[-2000:]}"
    told = [line for line in lines if "code" in line]
    assert len(told) >= FEWEST[family]
    wrong = [line for line in told if line["code"] not in line["may_be"]]
    assert not wrong, "\n".join(map(str, wrong[:10]))
    greedy = [line for line in told if line["grown_bytes"] > MOST_GROWTH or line["seconds"] > MOST_SECONDS]
    assert not greedy, greedy
    assert not list(tmp_path.rglob("ran"))
    assert not Path("ran").exists()
