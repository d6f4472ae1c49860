"""Progress off and on a terminal, and tables that fit into one."""

from __future__ import annotations

import datetime as dt
import io
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import geoloc_dagster
from geoloc_dagster.console import ProgressView, candidates_table, open_console, summary_table
from geoloc_dagster.prediction.protocol import Candidate


@dataclass
class Happened:
    """An event as the headless run reports it."""

    kind: str
    asset: str = "crops"
    partition: str | None = "100m-0000"
    done: int = 0
    total: int = 0
    seconds: float | None = None
    message: str | None = None
    note: str | None = None


def lines_of(events: list[tuple[float, Happened]], *, terminal: bool = False) -> list[str]:
    """What is printed for events at given seconds."""
    now = 0.0
    stream = io.StringIO()
    with ProgressView(Console(file=stream, force_terminal=terminal, width=200), clock=lambda: now) as view:
        for seconds, event in events:
            now = seconds
            view.report(event)
    return stream.getvalue().splitlines()


def test_off_a_terminal_a_start_and_a_finish_are_one_plain_line_each() -> None:
    lines = lines_of([(0, Happened("start")), (3, Happened("done", done=1234, seconds=3.21))])
    assert lines == ["crops 100m-0000: started", "crops 100m-0000: done in 3.2 s, 1,234 rows"]


def test_off_a_terminal_ten_thousand_steps_in_a_minute_are_at_most_six_lines() -> None:
    events = [(0.0, Happened("start"))]
    events += [(60 * i / 10_000, Happened("progress", done=i, total=10_000)) for i in range(10_000)]
    progress = lines_of(events)[1:]
    assert progress == [f"crops 100m-0000: {done:,} of 10,000 ({share})" for done, share in [
        (1667, "17%"), (3334, "33%"), (5001, "50%"), (6668, "67%"), (8335, "83%"),
    ]]  # fmt: skip


def test_progress_of_unknown_length_counts_up() -> None:
    assert lines_of([(0, Happened("start")), (11, Happened("progress", done=70))])[-1] == "crops 100m-0000: 70"


def test_a_failure_is_said_and_names_the_batch() -> None:
    assert lines_of([(0, Happened("start")), (1, Happened("failed"))])[-1] == "crops 100m-0000: FAILED"


def test_what_was_taken_as_it_was_says_so() -> None:
    event = Happened("done", "checkpoints", "tiny", done=12, seconds=0.5, note="trained from the same before, 2026-11-30T09:10")
    said = "checkpoints tiny: done in 0.5 s, 12 rows (trained from the same before, 2026-11-30T09:10)"
    assert lines_of([(0, event)]) == [said]


def test_what_ended_before_it_was_through_says_why() -> None:
    event = Happened("done", done=12, seconds=1, message="the day's budget is used up; 388 wait for another run")
    assert lines_of([(0, event)]) == [
        "crops 100m-0000: done in 1.0 s, 12 rows, but not through: the day's budget is used up; 388 wait for another run"
    ]


def test_names_with_brackets_are_not_taken_for_markup() -> None:
    assert lines_of([(0, Happened("start", asset="[red]x[/red]", partition=None))]) == ["[red]x[/red]: started"]


def test_on_a_terminal_bars_come_and_go_and_finished_assets_stay() -> None:
    shown = "\n".join(
        lines_of([(0, Happened("start")), (1, Happened("progress", done=5, total=10)), (2, Happened("done"))], terminal=True)
    )
    assert "crops 100m-0000: done" in shown
    assert "\x1b[" in shown, "live bars move the cursor"


def test_the_summary_names_every_asset_with_its_figures() -> None:
    stream = io.StringIO()
    summary = {"region": "oslo", "assets": {"crops": {"partitions": 2, "rows": 12345, "seconds": 6.78}, "catalog": {"rows": 3}}}
    Console(file=stream, width=100).print(summary_table(summary))
    row = next(line for line in stream.getvalue().splitlines() if "crops" in line)
    assert [word for word in row.replace("│", " ").split() if word] == ["crops", "2", "12,345", "6.8"]
    assert "catalog" in stream.getvalue()


def test_a_terminal_of_80_columns_shows_candidates_whole_and_whose_pictures_they_are() -> None:
    day, published = dt.date(2014, 9, 1), "59.334591,18.063240"
    one = Candidate(
        45.002705, -129.994981, 0.4451, 0.1, 12_345.6, 0.0, "c", published, day, "CC BY-SA 4.0", "© A Photographer", 31
    )
    other = replace(one, attribution="Someone Else", shared_features=None)
    stream = io.StringIO()
    Console(file=stream, width=80).print(candidates_table("Known places", [one, other, replace(one, attribution="unseen")], 2))
    said = stream.getvalue()
    assert "…" not in said
    assert max(len(line) for line in said.splitlines()) <= 80
    for whole in ("45.002705,", "-129.994981", "0.445", "31", "12,346 m", "59.334591,", "18.063240", "2014-09", "similarity"):
        assert whole in said
    assert "Pictures: Someone Else (CC BY-SA 4.0); © A Photographer (CC BY-SA 4.0)" in said
    assert "unseen" not in said


def test_brackets_in_the_words_of_others_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(title="views [bold] 7.jpg", caption="© [/someone]")
    table.add_row("street [dim] of a name as long as it takes")
    open_console(piped_width=60).print(table)
    said = capsys.readouterr().out
    for whole in ("views [bold] 7.jpg", "© [/someone]", "street [dim]"):
        assert whole in said
    root = Path(geoloc_dagster.__file__).parent
    assert [path.name for path in root.rglob("*.py") if "import Console" in path.read_text()] == ["console.py"]
