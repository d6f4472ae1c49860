"""SIGKILL at named points and at random instants; `benchmarks/chaos.py` does the same at all points and many more instants."""

from __future__ import annotations

import random
import re
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
