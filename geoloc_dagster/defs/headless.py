"""Materialising the graph without a server: what `geoloc run`, `geoloc train` and `geoloc backfill` do.

The same definitions, instance and event log as the UI's: `dagster dev` on the same home shows what was done here.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import dagster as dg

from geoloc_dagster import __version__
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.loader import claim_data_root
from geoloc_dagster.defs.build import build_definitions
from geoloc_dagster.defs.progress import set_listener
from geoloc_dagster.defs.region import Region
from geoloc_dagster.errors import ConfigError, GeolocError, StepFailedError
from geoloc_dagster.starter import prepare_home
from geoloc_dagster.storage import read_json, write_bytes, write_json

_INTERRUPTED = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")
_HOW_TO_SELECT = "Write names with commas; `name+` adds what follows an asset, `+name` what it is made from."
_AS_BEFORE = "as_before"
_COUNTS = ("dagster/partition_row_count", "dagster/row_count")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that the person at the terminal may want to know."""

    kind: Literal["start", "progress", "done", "failed", "interrupted"]
    asset: str
    partition: str | None = None
    done: int = 0
    total: int = 0
    seconds: float | None = None
    message: str | None = None
    note: str | None = None


Report = Callable[[Event], None]


@dataclass
class Tally:
    """Per asset: partitions, rows and seconds, as they end up in `summary.json`."""

    assets: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, asset: str, rows: int, seconds: float, *, partitioned: bool) -> None:
        entry = self.assets.setdefault(asset, {"partitions": 0, "rows": 0, "seconds": 0.0})
        entry["partitions"] += 1 if partitioned else 0
        entry["rows"] += rows
        entry["seconds"] = round(entry["seconds"] + seconds, 3)


def _unfinished(metadata: Mapping[str, dg.MetadataValue[Any]]) -> str | None:
    """Why an asset ended before it was through, such as the day's budget, and what waits; None where it did not."""
    if "stopped" not in metadata:
        return None
    return f"{metadata['stopped'].value}; {metadata['pending'].value} wait for another run"


class _Runner:
    """Executes groups of assets of one partition each, in one process, on the region's own instance."""

    def __init__(self, settings: Settings, report: Report, *, keep_going: bool = False, resume: bool = True) -> None:
        self.resume = resume
        self.region = Region(settings)
        self.layout = claim_data_root(settings)
        self.defs = build_definitions(settings=settings)
        self.job = self.defs.resolve_implicit_global_asset_job_def()
        self.report = report
        self.tally = Tally()
        self.failures: list[str] = []
        self.keep_going = keep_going

    def run(self, names: Sequence[str], partition: str | None, instance: dg.DagsterInstance) -> None:
        """Materialise some assets of one partition; a failed step is reported and, unless `keep_going`, ends the run."""
        for name in names:
            self.report(Event("start", name, partition))
        result = self.job.execute_in_process(
            instance=instance,
            asset_selection=[self.region.key(name) for name in names],
            partition_key=partition,
            raise_on_error=False,
            run_config=self.run_config(names),
            tags={"geoloc/region": self.region.name, "geoloc/trigger": "command line"},
        )
        for event in result.all_events:
            if event.is_step_success and (event.step_key or "").removeprefix(f"{self.region.name}__") in names:
                self._succeeded(event, result, partition)
            elif event.is_step_failure:
                self._failed(event, partition)

    def run_config(self, names: Sequence[str]) -> dict[str, Any]:
        """Quiet console (progress is reported otherwise), and the training's options."""
        config: dict[str, Any] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        if "checkpoints" in names:
            config["ops"] = {f"{self.region.name}__checkpoints": {"config": {"resume": self.resume}}}
        return config

    def _succeeded(self, event: dg.DagsterEvent, result: dg.ExecuteInProcessResult, partition: str | None) -> None:
        name = (event.step_key or "").removeprefix(f"{self.region.name}__")
        seconds = float(event.step_success_data.duration_ms) / 1000
        rows, stopped, note = 0, None, None
        for materialization in result.asset_materializations_for_node(event.step_key or ""):
            rows = next((int(materialization.metadata[c].value or 0) for c in _COUNTS if c in materialization.metadata), 0)
            stopped = _unfinished(materialization.metadata)
            note = str(materialization.metadata[_AS_BEFORE].value) if _AS_BEFORE in materialization.metadata else None
        self.tally.add(name, rows, seconds, partitioned=partition is not None)
        self.report(Event("done", name, partition, rows, rows, seconds, stopped, note))

    def _failed(self, event: dg.DagsterEvent, partition: str | None) -> None:
        name = (event.step_key or "").removeprefix(f"{self.region.name}__")
        data = event.step_failure_data
        if was_interrupted(data.error):  # Dagster makes a failure of Ctrl+C
            self.report(Event("interrupted", name, partition))
            raise KeyboardInterrupt
        failure = data.user_failure_data
        message = failure.description if failure else _root_cause(data.error)
        self.failures.append(f"{name}{f' [{partition}]' if partition else ''}: {message}")
        self.report(Event("failed", name, partition, message=message))
        if not self.keep_going:
            raise StepFailedError(str(message), asset=name, partition=partition)


def run_headless(settings: Settings, *, select: str | None = None, report: Report, resume: bool = True) -> dict[str, Any]:
    """Materialise the graph, or a selection of it, and write `<data-root>/reports/summary.json`.

    Args:
        settings: the region.
        select: an asset selection in Dagster's syntax on bare names, e.g. `crops+` or `catalog,checkpoints`; all by default.
        report: receives what happens.
        resume: continue an interrupted training.

    Returns:
        The summary that was written.

    Raises:
        ConfigError: `select` selects nothing.
        GeolocError: the first step that failed, with its cause and remedy.
        KeyboardInterrupt: it was interrupted; what was under way goes on with the next run.
    """
    runner = _Runner(settings, report, resume=resume)
    names = _selected(runner, select)
    started = time.monotonic()
    set_listener(lambda asset, partition, done, total: report(Event("progress", asset, partition, done, total)))
    try:
        with open_instance(runner.layout) as instance:
            for group, kind in _groups(runner, names):
                for partition in _partitions(runner, kind, instance):
                    runner.run(group, partition, instance)
    finally:
        set_listener(None)
    return _summarise(runner, settings, time.monotonic() - started)


def run_backfill(settings: Settings, *, names: Sequence[str], keys: Sequence[str], report: Report) -> list[str]:
    """Materialise some batch-partitioned assets for explicit keys; a failed batch does not stop the others.

    Returns:
        One line per failed step.
    """
    runner = _Runner(settings, report, keep_going=True)
    set_listener(lambda asset, partition, done, total: report(Event("progress", asset, partition, done, total)))
    try:
        with open_instance(runner.layout) as instance:
            for key in keys:
                runner.run(names, key, instance)
    finally:
        set_listener(None)
    return runner.failures


def was_interrupted(error: Any) -> bool:
    """Whether Ctrl+C ended a step, by Dagster's record of its error; None is none.

    Its message begins with the name of its class. Arrow calls us back while it reads, makes an error of its own of what comes
    then, and only names the first in its text.
    """
    while error is not None:
        if any(name in error.message for name in _INTERRUPTED):
            return True
        error = error.cause or error.context
    return False


def _root_cause(error: Any) -> str:
    """The innermost exception in one line; the stack is in the event log."""
    while error is not None and error.cause is not None:
        error = error.cause
    return "failed" if error is None else " ".join(str(error.message).split())


def open_instance(layout: Layout) -> dg.DagsterInstance:
    """The instance below the data root, the one that `make dev` opens."""
    home = prepare_home(layout)
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "yes")
    return dg.DagsterInstance.from_config(str(home))


def _selected(runner: _Runner, select: str | None) -> list[str]:
    """Bare names of the selected assets, upstream first."""
    graph = runner.defs.resolve_asset_graph()
    prefix = runner.region.name
    if select is None:
        chosen = set(graph.executable_asset_keys)
    else:
        names = sorted(key.path[-1] for key in graph.executable_asset_keys)
        try:
            chosen = set(dg.AssetSelection.from_string(_with_prefix(select, prefix, names)).resolve(graph))
        except dg.DagsterError as error:
            raise ConfigError(f"--select {select} is no selection of assets", _HOW_TO_SELECT) from error
    return [key.path[-1] for key in graph.toposorted_asset_keys if key in chosen]


def _with_prefix(select: str, prefix: str, names: Sequence[str]) -> str:
    """`crops+` for people, `key:"stockholm/crops"+` for Dagster.

    Raises:
        ConfigError: a name is that of no asset.
    """
    import re

    if ":" in select:
        return select
    terms = [term.strip() for term in select.split(",") if term.strip()]
    full: list[str] = []
    for term in terms:
        match = re.fullmatch(r"(\+*)([a-z_0-9]+)(\+*)", term)
        if match is None:
            return select
        if match[2] not in names:
            raise ConfigError(f"--select {select}: there is no asset {match[2]!r}", f"This region has {', '.join(names)}.")
        full.append(f'{match[1]}key:"{prefix}/{match[2]}"{match[3]}')
    return " or ".join(full)


def _groups(runner: _Runner, names: Sequence[str]) -> Iterator[tuple[list[str], Literal["none", "batch", "recipe"]]]:
    """Neighbours in the order of the graph that share their partitions run together."""
    graph = runner.defs.resolve_asset_graph()
    kinds: dict[str, Literal["none", "batch", "recipe"]] = {}
    for name in names:
        partitions = graph.get(runner.region.key(name)).partitions_def
        kinds[name] = "none" if partitions is None else "batch" if partitions == runner.region.batches else "recipe"
    group: list[str] = []
    for name in names:
        if group and kinds[name] != kinds[group[-1]]:
            yield group, kinds[group[-1]]
            group = []
        group.append(name)
    if group:
        yield group, kinds[group[-1]]


def _partitions(runner: _Runner, kind: str, instance: dg.DagsterInstance) -> list[str | None]:
    if kind == "none":
        return [None]
    if kind == "recipe":
        return list(runner.region.settings.recipes)
    from geoloc_dagster.dataset.pending import registered_batches

    keys = registered_batches(runner.layout)
    instance.add_dynamic_partitions(runner.region.batches.name or "", keys)
    return list(keys)


def _summarise(runner: _Runner, settings: Settings, seconds: float) -> dict[str, Any]:
    """Merge this run into the summary: figures of assets that were not selected stay."""
    from geoloc_dagster.evaluation.summary import recipe_figures
    from geoloc_dagster.report import run_report

    path = runner.layout.reports / "summary.json"
    previous: dict[str, Any] = read_json(path) if path.is_file() else {}
    summary: dict[str, Any] = {
        "region": settings.region.name,
        "config_hash": settings.config_hash(),
        "assets": {**previous.get("assets", {}), **runner.tally.assets},
        "seconds": round(seconds, 1),
        "versions": _versions(),
        **recipe_figures(runner.layout, settings.recipes),
    }
    write_json(path, summary)
    write_bytes(runner.layout.report, run_report(settings, runner.layout, summary).encode())
    return summary


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("dagster", "torch", "pylance", "faiss-cpu", "mlflow", "timm", "pytorch-lightning")
    return {"geoloc_dagster": __version__, **{package: version(package) for package in packages}}


__all__ = ["Event", "GeolocError", "open_instance", "run_backfill", "run_headless"]
