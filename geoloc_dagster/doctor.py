"""Is this machine and this region ready? One check per line, each with what to do about it.

Checks only look: the data root is created if it is missing, and nothing else is changed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.loader import claim_data_root
from geoloc_dagster.errors import BrowserMissingError, GeolocError
from geoloc_dagster.imagery.factory import provider_terms
from geoloc_dagster.scale.engine import chosen_engine

MIN_FREE_BYTES = 5 * 1024**3
_KEYED = ("google", "mapillary")
_NATIVE = ("torch", "torchvision", "lance", "faiss", "geopandas")
Status = Literal["ok", "FAIL", "skip"]


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    status: Status
    name: str
    detail: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:<4}  {self.name}: {self.detail}{f'. {self.remedy}' if self.remedy else ''}"


def examine(load: Callable[[], Settings], *, min_free_bytes: int = MIN_FREE_BYTES) -> Iterator[Check]:
    """Check the machine, then the region that `load` gives; what depends on a failed check is skipped and says so."""
    yield check_python()
    yield check_requirements()
    yield check_native_packages()
    yield check_engine()
    try:
        settings = load()
    except GeolocError as error:
        yield _failed("config", error)
        for name in ("sources", "service", "recipes", "data root", "disk space", "sqlite"):
            yield Check("skip", name, "needs a configuration")
        return
    yield Check("ok", "config", f"region {settings.region.name} from {settings.folder}")
    yield check_sources(settings)
    yield check_service(settings)
    yield check_recipes(settings)
    try:
        layout = claim_data_root(settings)
    except GeolocError as error:
        yield _failed("data root", error)
        for name in ("disk space", "sqlite"):
            yield Check("skip", name, "needs a writable data root")
        return
    there = f"{settings.data_url}, which honours conditional writes; working copy {layout.root}"
    yield Check("ok", "data root", str(layout.root) if settings.data_url is None else there)
    yield check_disk_space(layout.root, min_free_bytes)
    yield check_sqlite(layout)


def check_python(version: tuple[int, ...] = tuple(sys.version_info[:3])) -> Check:
    """Python 3.11 or newer."""
    text = ".".join(str(part) for part in version)
    if version < (3, 11):
        return Check("FAIL", "python", f"{text} is too old", "Use Python 3.11 or newer.")
    return Check("ok", "python", text)


def check_requirements(distribution: str = "geoloc-dagster") -> Check:
    """Every requirement of the package is installed in a version that it allows; nothing is imported for that."""
    remedy = "Run `make setup`, or install the package again."
    try:
        declared = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return Check("FAIL", "packages", f"{distribution} is not installed", remedy)
    requirements = [Requirement(text) for text in declared]
    needed = [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]
    problems = [problem for problem in map(_problem_of, needed) if problem]
    if problems:
        return Check("FAIL", "packages", "; ".join(problems), remedy)
    return Check("ok", "packages", f"all {len(needed)} in the versions asked for")


def check_native_packages() -> Check:
    """The compiled packages load on this machine, and where networks will run."""
    for name in _NATIVE:
        try:
            importlib.import_module(name)
        except (ImportError, OSError) as error:
            return Check("FAIL", "libraries", f"{name} does not load: {error}", "Install that package again for this machine.")
    import torch

    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no GPU: networks run on the CPU"
    return Check("ok", "libraries", f"{', '.join(_NATIVE)} load; {device}")


def check_sources(settings: Settings) -> Check:
    """The files that the configuration names are there."""
    named: list[tuple[str, Path]] = [("region.boundary", settings.region.boundary)]
    if settings.region.districts is not None:
        named.append(("region.districts", settings.region.districts))
    named += [("coverage.files", path) for path in settings.coverage.files]
    named += [("coverage.negatives", path) for path in settings.coverage.negatives]
    named += [("buffers.files", path) for path in settings.buffers.files]
    named += [("capture.sources", path) for path in settings.capture.sources]
    named += [("capture.photos.files", path) for path in settings.capture.photos.files]
    named += [("capture.photos.urls", path) for path in settings.capture.photos.urls]
    if settings.capture.blur.boxes is not None:
        named.append(("capture.blur.boxes", settings.capture.blur.boxes))
    missing = [f"{key}: {settings.resolve(path)}" for key, path in named if not settings.resolve(path).exists()]
    if missing:
        remedy = "Correct the paths; they are relative to the configuration."
        return Check("FAIL", "sources", f"missing {'; '.join(missing)}", remedy)
    if settings.capture.provider == "folder" and not settings.capture.sources:
        return Check("FAIL", "sources", "capture.sources names no pictures", "List folders or tar files there; see the README.")
    if settings.capture.provider == "photo_list":
        if not settings.capture.photos.files:
            return Check(
                "FAIL", "sources", "capture.photos.files names no list", "List CSV or Parquet files there; see the README."
            )
        return Check("ok", "sources", f"{len(named)} files and folders")
    if settings.coverage.provider == "csv" and not settings.coverage.files and not settings.buffers.files:
        remedy = "List a buffer CSV in one of them; see the README."
        return Check("FAIL", "sources", "neither coverage.files nor buffers.files names locations", remedy)
    return Check("ok", "sources", f"{len(named)} files and folders")


def check_engine(environ: Mapping[str, str] = os.environ) -> Check:
    """What does the pieces of batches is installed and answers; a Ray cluster is joined for that."""
    try:
        engine = chosen_engine(environ)
    except GeolocError as error:
        return _failed("engine", error)
    if not engine.elsewhere:
        return Check("ok", "engine", "crops and vectors are made in the process that wants them")
    return Check("ok", "engine", f"crops and vectors are made by the Ray cluster {environ.get('RAY_ADDRESS', 'of this machine')}")


def check_service(settings: Settings, environ: Mapping[str, str] = os.environ) -> Check:
    """A live service has its key and its permission; nothing is asked of it."""
    live = sorted({settings.coverage.provider, settings.capture.provider} - {"csv", "folder"})
    if not live:
        return Check("ok", "service", "none is asked: lookups and pictures come from files")
    keyed = [name for name in live if name in _KEYED]
    if keyed and not environ.get(settings.service.key_variable):
        remedy = f"Put the key into {settings.service.key_variable}; keys do not go into files."
        return Check("FAIL", "service", f"{keyed[0]} wants a key and {settings.service.key_variable} is not set", remedy)
    try:
        provider_terms(settings).require(settings.capture.provider)
    except GeolocError as error:
        return _failed("service", error)
    if "google_maps" in live:
        from geoloc_dagster.imagery.browser import missing_programs

        missing = missing_programs(settings.browser.binary, settings.browser.driver)
        if missing:
            return _failed("service", BrowserMissingError(f"google_maps needs {' and '.join(missing)}"))
    return Check("ok", "service", f"{', '.join(live)}; at most {settings.service.images_per_day:,} pictures a day")


def check_recipes(settings: Settings) -> Check:
    """The recipes that the configuration names can be read."""
    from geoloc_dagster.learning.recipe import load_recipe

    for name in settings.recipes:
        try:
            load_recipe(name, settings.folder)
        except GeolocError as error:
            return _failed("recipes", error)
    return Check("ok", "recipes", ", ".join(settings.recipes))


def check_disk_space(root: Path, min_free_bytes: int) -> Check:
    """There is room for tables, checkpoints and the event log."""
    free = shutil.disk_usage(root).free
    detail = f"{free / 1024**3:,.1f} GiB free at {root}"
    if free < min_free_bytes:
        return Check(
            "FAIL", "disk space", detail, f"Have at least {min_free_bytes / 1024**3:,.1f} GiB, or choose another data root."
        )
    return Check("ok", "disk space", detail)


def check_sqlite(layout: Layout) -> Check:
    """Dagster's and MLflow's databases can lie below the data root: its file system has the locks that SQLite needs."""
    remedy = "Choose a data root on a local disk; SQLite does not work on most network file systems."
    database = Path(layout.mlflow_uri.removeprefix("sqlite:///"))
    try:
        with (
            tempfile.TemporaryDirectory(dir=layout.root, prefix=".doctor-") as folder,
            closing(sqlite3.connect(Path(folder) / "probe.db")) as connection,
        ):
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE probe (value INTEGER)")
            connection.commit()
        if database.is_file():
            with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return Check("FAIL", "sqlite", f"{error} (at {layout.root})", remedy)
    return Check("ok", "sqlite", "Dagster's and MLflow's databases work here")


def _problem_of(requirement: Requirement) -> str | None:
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(installed, prereleases=True):
        return f"{requirement.name} {installed} is not {requirement.specifier}"
    return None


def _failed(name: str, error: GeolocError) -> Check:
    return Check("FAIL", name, f"{error.code} {error.cause}", error.remedy)
