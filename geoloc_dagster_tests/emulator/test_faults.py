"""Scripts of faults: which requests they meet, and that they meet the same ones again."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from geoloc_dagster.emulator.faults import Endpoint, FaultSchedule, FaultScript

WHATS = [f"{number}/0/0/0/90/640x640" for number in range(500)]


def schedule(*rules: dict[str, Any], seed: int = 1) -> FaultSchedule:
    return FaultSchedule(FaultScript.model_validate({"seed": seed, "rules": rules}))


def names(faults: FaultSchedule, whats: list[str], endpoint: Endpoint = "image") -> list[str | None]:
    rules = [faults.next(endpoint, what) for what in whats]
    return [None if rule is None else rule.fault for rule in rules]


def test_without_rules_nothing_goes_wrong():
    assert set(names(schedule(), WHATS)) == {None}


def test_a_script_repeated_meets_the_same_requests_and_another_seed_others():
    rule = {"fault": "reset", "probability": 0.3}
    first = names(schedule(rule), WHATS)
    assert names(schedule(rule), WHATS) == first
    assert names(schedule(rule, seed=2), WHATS) != first
    assert 108 <= first.count("reset") <= 192  # 150 expected; four standard deviations


def test_the_order_of_requests_does_not_matter_to_chance():
    rule = {"fault": "reset", "probability": 0.3}
    forwards = dict(zip(WHATS, names(schedule(rule), WHATS), strict=True))
    backwards = dict(zip(WHATS[::-1], names(schedule(rule), WHATS[::-1]), strict=True))
    assert forwards == backwards


def test_a_retry_throws_the_dice_again():
    faults = schedule({"fault": "reset", "probability": 0.5})
    tries = [names(faults, WHATS) for _ in range(10)]
    lucky = [what for index, what in enumerate(WHATS) if None in [attempt[index] for attempt in tries]]
    assert len(lucky) > 490, "nearly everything succeeds within ten attempts"


def test_first_and_count_select_by_the_running_number_of_the_endpoint():
    faults = schedule({"fault": "html", "endpoint": "image", "first": 2, "count": 3})
    assert names(faults, ["a", "b"]) == [None, None]
    assert names(faults, ["a"] * 5, "metadata") == [None] * 5, "requests of other endpoints neither suffer nor count"
    assert names(faults, ["a", "b", "c", "d"]) == ["html", "html", "html", None]


def test_a_rule_for_every_endpoint_counts_all_of_them():
    faults = schedule({"fault": "empty", "first": 2, "count": 2})
    assert names(faults, ["a"], "metadata") + names(faults, ["b"], "history") == [None, None]
    assert names(faults, ["a"], "metadata") + names(faults, ["b"], "image") == ["empty", "empty"]
    assert names(faults, ["a"], "metadata") == [None]


def test_attempts_spares_the_request_that_is_repeated_often_enough():
    faults = schedule({"fault": "reset", "attempts": 2})
    assert names(faults, ["a", "a", "b", "a", "b", "b"]) == ["reset", "reset", "reset", None, "reset", None]


def test_the_first_rule_that_applies_wins():
    faults = schedule({"fault": "empty", "count": 1}, {"fault": "grey", "attempts": 1})
    assert names(faults, ["a", "b", "b"]) == ["empty", "grey", None]


def test_a_rule_can_be_for_one_thing_alone():
    faults = schedule({"fault": "reset", "what": "12/0/90/*"})
    assert names(faults, ["12/0/90/0/90/64x64", "12/0/180/0/90/64x64", "112/0/90/0/90/64x64"]) == ["reset", None, None]


def test_a_fault_of_pictures_spares_the_rest():
    faults = schedule({"fault": "truncated_jpeg"})
    assert names(faults, ["a"], "metadata") == [None]
    assert names(faults, ["a"], "image") == ["truncated_jpeg"]


@pytest.mark.parametrize(
    "rule",
    [
        {"fault": "gremlins"},
        {"fault": "reset", "probability": 1.5},
        {"fault": "reset", "often": True},
        {"fault": "missing_date", "endpoint": "image"},
        {"fault": "slow", "seconds": -1},
        {"fault": "slow", "seconds": float("inf")},
        {"fault": "reset", "endpoint": "tiles"},
        {},
    ],
)
def test_a_script_that_means_nothing_is_refused(rule: dict[str, Any]):
    with pytest.raises(ValidationError):
        schedule(rule)
