"""SIGKILL at named points and at random instants; `benchmarks/chaos.py` does the same at all points and many more instants."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from geoloc_dagster.failpoints import NAMES
from geoloc_dagster_tests.end_to_end import chaos

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PACKAGE = Path(__file__).resolve().parents[2] / "geoloc_dagster"
POINTS = (
    "lookups.before_commit:1",
    "bucket.claimed:90",
    "ledger.taken:17",
    "client.received:400",
    "table.before_commit:3",
    "table.committed:4",
    "writer.captures_committed:2",
    "collect.visited:6",
    "file.synced:9",
    "crops.made:2",
    "table.deleted:2",
    "export.shard_written:2",
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chaos.prepare(tmp_path_factory.mktemp("chaos") / "template")


@pytest.fixture(scope="module")
def calm(template: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, float]:
    return chaos.undisturbed(template, tmp_path_factory.mktemp("chaos") / "calm")


def test_every_named_point_is_passed_somewhere_and_none_is_unknown():
    used = set(re.findall(r'failpoint\("([a-z_.]+)"\)', "".join(path.read_text() for path in PACKAGE.rglob("*.py"))))
    assert used == set(NAMES)
    assert len(NAMES) >= 30


def test_what_is_looked_for_after_a_kill_would_be_found(tmp_path: Path):
    sleeper = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    parent = subprocess.Popen([sys.executable, "-c", sleeper], stdout=subprocess.PIPE, start_new_session=True, text=True)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    try:
        assert parent.wait(30) == 0
        assert chaos.left_behind(parent.pid) == [orphan]  # although its parent is another one by now
    finally:
        os.kill(orphan, signal.SIGKILL)
        parent.stdout.close()
    (tmp_path / "good.json").write_text("{}")
    for name in ("half.json", "half.parquet", "half.tar", "half.sqlite"):
        (tmp_path / name).write_bytes(b'{"half": ' * 200)
        (tmp_path / f".{name}.1234.part").write_bytes(b"{")
    assert [problem.split()[0] for problem in chaos.unreadable(tmp_path)] == [
        "half.json",
        "half.parquet",
        "half.sqlite",
        "half.tar",
    ]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_named_point_loses_and_repeats_nothing(
    template: Path, calm: tuple[str, float], tmp_path: Path, point: str
) -> None:
    trial = chaos.run_trial(template, tmp_path / "trial", calm[0], point=point)
    assert trial.killed, f"{point} was never reached"
    assert trial.problems == ()


def test_a_kill_at_random_instants_loses_and_repeats_nothing(template: Path, calm: tuple[str, float], tmp_path: Path) -> None:
    dice = random.Random(20261121)
    for number in range(5):
        delay_s = dice.uniform(0.4, 1.0) * calm[1]
        assert chaos.run_trial(template, tmp_path / str(number), calm[0], delay_s=delay_s).problems == (), delay_s
