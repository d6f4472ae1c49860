"""What a person sees in the terminal while assets are made, and the tables at the end.

On a terminal progress is a set of live bars; elsewhere it is one line per start and finish, and at most one line in ten
seconds in between, so that a build log stays readable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from geoloc_dagster.dataset.holdings import Holdings
    from geoloc_dagster.evaluation.tables import TextTable
    from geoloc_dagster.prediction.protocol import Candidate, Prediction

PLAIN_INTERVAL_S = 10.0
MOST_DISTRICTS = 30


class Event(Protocol):
    """Something that happened to an asset: it started, got on, was done, or failed."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def asset(self) -> str: ...  # noqa: D102
    @property
    def partition(self) -> str | None: ...  # noqa: D102
    @property
    def done(self) -> int: ...  # noqa: D102
    @property
    def total(self) -> int: ...  # noqa: D102
    @property
    def seconds(self) -> float | None: ...  # noqa: D102
    @property
    def message(self) -> str | None: ...  # noqa: D102
    @property
    def note(self) -> str | None: ...  # noqa: D102


def open_console(*, stderr: bool = False, piped_width: int | None = None) -> Console:
    """Where tables and lines go that hold names and words of others: brackets in them are no markup.

    Args:
        stderr: in place of standard output.
        piped_width: columns where no terminal says how many it has; rich's 80 without.
    """
    console = Console(stderr=stderr, markup=False)
    return console if piped_width is None or console.is_terminal else Console(stderr=stderr, width=piped_width, markup=False)


class ProgressView:
    """Shows events as they are reported; a context manager whose `report` is the callback."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._last_line = clock()
        self._bars: dict[tuple[str, str | None], TaskID] = {}
        self._live: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._live = Progress(*columns, console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def report(self, event: Event) -> None:
        """Show one event."""
        if event.kind == "progress":
            self._advance(event)
        elif event.kind == "start":
            self._start(event)
        else:
            self._finish(event)

    def _start(self, event: Event) -> None:
        if self._live is not None:
            self._bars[event.asset, event.partition] = self._live.add_task(_name(event), total=None)
        else:
            self._say(f"{_name(event)}: started")

    def _advance(self, event: Event) -> None:
        if self._live is not None:
            key = (event.asset, event.partition)
            if key not in self._bars:
                self._bars[key] = self._live.add_task(_name(event), total=None)
            self._live.update(self._bars[key], completed=event.done, total=event.total or None)
        elif self._clock() - self._last_line >= PLAIN_INTERVAL_S:
            share = f" ({event.done / event.total:.0%})" if event.total else ""
            of_total = f" of {event.total:,}" if event.total else ""
            self._say(f"{_name(event)}: {event.done:,}{of_total}{share}")

    def _finish(self, event: Event) -> None:
        bar = self._bars.pop((event.asset, event.partition), None)
        if self._live is not None and bar is not None:
            self._live.remove_task(bar)
        took = f" in {event.seconds:,.1f} s" if event.seconds is not None else ""
        unit = "row" if event.done == 1 else "rows"
        rows = f", {event.done:,} {unit}" if event.kind == "done" and event.done else ""
        outcome = {"done": "done", "interrupted": "interrupted"}.get(event.kind, "FAILED")
        but = f", but not through: {event.message}" if event.kind == "done" and event.message else ""
        note = f" ({event.note})" if event.note else ""
        self._say(f"{_name(event)}: {outcome}{took}{rows}{note}{but}")

    def _say(self, line: str) -> None:
        self._last_line = self._clock()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


def summary_table(summary: Mapping[str, Any]) -> Table:
    """What the last run made: partitions, rows and seconds per asset."""
    table = Table(title=f"{summary.get('region', 'region')}: what was made", title_justify="left")
    table.add_column("asset")
    for column in ("partitions", "rows", "seconds"):
        table.add_column(column, justify="right")
    for name, figures in summary.get("assets", {}).items():
        partitions, rows = int(figures.get("partitions", 0)), int(figures.get("rows", 0))
        table.add_row(name, f"{partitions:,}" if partitions else "", f"{rows:,}", f"{figures.get('seconds', 0.0):,.1f}")
    return table


def figures_table(summary: Mapping[str, Any]) -> Table | None:
    """How well each recipe and baseline finds held-out places again; None where nothing has been evaluated."""
    lines = summary.get("figures", [])
    if not lines:
        return None
    recipes: Mapping[str, Any] = summary.get("recipes", {})
    kinds = {split.get("kind") for splits in recipes.values() for split in splits.values() if isinstance(split, Mapping)}
    places = "Held-out places found again, newest pictures among older ones"
    table = Table(title=places if kinds <= {None} else "What held-out pictures show", title_justify="left")
    table.add_column("descriptor" if kinds <= {None} else "recipe")
    table.add_column("recall" if kinds <= {None} else "found")
    for label, value in lines:
        table.add_row(str(label), str(value))
    return table


def prediction_table(photo: str, prediction: Prediction, top: int) -> Table:
    """The answer for one photo and the candidates behind it."""
    title = f"{photo}: {prediction.lat_deg:.6f}, {prediction.lng_deg:.6f} (lat, lng)"
    return candidates_table(title, prediction.candidates, top)


_WIDTHS: Final = {"lat, lng": 11, "similarity": 10, "in common": 6, "to answer": 8, "captured": 8}
"""Of columns whose numbers and words stay whole in a terminal of 80 columns."""


def candidates_table(title: str, candidates: Sequence[Candidate], top: int) -> Table:
    """Known places that look like a photo, most similar first, and whose pictures they are."""
    from geoloc_dagster.prediction.protocol import credit_of

    shown = candidates[:top]
    table = Table(title=title, title_justify="left", caption=credit_of(shown) if shown else None, caption_justify="left")
    compared = any(candidate.shared_features is not None for candidate in candidates)
    common = ["in common"] if compared else []
    for column in ("#", "lat, lng", "similarity", *common, "to answer", "location", "captured"):
        right = column in ("#", "similarity", "in common", "to answer")
        table.add_column(column, justify="right" if right else "left", overflow="fold", min_width=_WIDTHS.get(column))
    for rank, candidate in enumerate(shown, start=1):
        table.add_row(
            str(rank),
            f"{candidate.lat_deg:.6f}, {candidate.lng_deg:.6f}",
            f"{candidate.similarity:.3f}",
            *(["" if candidate.shared_features is None else str(candidate.shared_features)] if compared else []),
            f"{candidate.distance_to_answer_m:,.0f} m",
            candidate.location_id,
            "" if candidate.captured_on is None else f"{candidate.captured_on:%Y-%m}",
        )
    return table


def holdings_tables(held: Holdings) -> list[Table]:
    """What a region holds: the whole, per year, per district and per heading."""
    return [_totals_table(held), _years_table(held), _districts_table(held), _headings_table(held)]


def _totals_table(held: Holdings) -> Table:
    table = _counted_table(f"{held.region}: what is collected, {held.as_of}", "", "count")
    share = "" if held.complete_share is None else f" ({held.complete_share:.1%})"
    rows: list[tuple[str, str]] = [
        ("locations registered", f"{held.registered:,}"),
        ("  visited", f"{held.visited:,}"),
        ("  complete", f"{held.complete:,}{share}"),
        ("  without any picture", f"{held.without_pictures:,}"),
        ("locations with pictures", f"{held.locations:,}"),
        ("panoramas", f"{held.panoramas:,}"),
        ("captures", f"{held.captures:,}"),
        ("views to try again", f"{held.to_try_again:,}"),
    ]
    for name, kinds in held.failures.items():
        rows.append((f"no picture: {name}", f"{sum(kinds.values()):,} ({', '.join(f'{k} {n:,}' for k, n in kinds.items())})"))
    if held.age is not None:
        spread = f"{held.age.percentile_10:.1f} to {held.age.percentile_90:.1f}"
        rows.append(("age of the pictures, years", f"{held.age.median:.1f} (80 % are {spread})"))
    for row in rows:
        table.add_row(*row)
    return table


def _years_table(held: Holdings) -> Table:
    table = _counted_table("Per year of capture", "year", "locations", "panoramas", "captures")
    for year in held.by_year:
        table.add_row(year.name, f"{year.locations:,}", f"{year.panoramas:,}", f"{year.captures:,}")
    return table


def _districts_table(held: Holdings) -> Table:
    columns = ("registered", "complete", "with pictures", "panoramas", "captures", "newest", "age, years")
    table = _counted_table("Per district", "district", *columns)
    for row in held.by_district[:MOST_DISTRICTS]:
        complete = f"{row.complete:,} ({row.complete / row.registered:.0%})" if row.registered else ""
        counts = (row.locations, row.panoramas, row.captures)
        newest, age = row.newest, row.median_age_years
        table.add_row(
            row.name,
            f"{row.registered:,}",
            complete,
            *(f"{count:,}" for count in counts),
            "" if newest is None else f"{newest:%Y-%m}",
            "" if age is None else f"{age:.1f}",
        )
    more = len(held.by_district) - MOST_DISTRICTS
    if more > 0:
        table.caption = f"and {more:,} more; --json lists all"
    return table


def _headings_table(held: Holdings) -> Table:
    table = _counted_table("Per heading, from north, or quarter turn (r)", "heading", "captures")
    for name, count in held.by_heading.items():
        table.add_row(name, f"{count:,}")
    return table


def _counted_table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def name_first(lines: Sequence[object], shown: int, hint: str = "") -> list[str]:
    """The first lines, and how many more there are; `hint` says where."""
    more = [] if len(lines) <= shown else [f"and {len(lines) - shown:,} more{hint}"]
    return [*map(str, lines[:shown]), *more]


def _name(event: Event) -> str:
    return f"{event.asset} {event.partition}" if event.partition else event.asset


def text_table(table: TextTable) -> Table:
    """A table of an evaluation for the terminal."""
    shown = Table(title=table.title, title_justify="left")
    for number, name in enumerate(table.header):
        shown.add_column(name, justify="left" if number == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown
