"""A stack from its first start to its end: folder, secrets, database, configuration, services."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Generator, Mapping
from pathlib import Path

from geoloc_dagster.config import Settings
from geoloc_dagster.errors import ConfigError, StackRunningError
from geoloc_dagster.scale.engine import ENGINE
from geoloc_dagster.scale.ray_engine import require_jobs
from geoloc_dagster.stack import configuration, postgres
from geoloc_dagster.stack.folder import StackFolder, StackOptions
from geoloc_dagster.stack.ports import page_ports, private_ports, require_free
from geoloc_dagster.stack.programs import find_program, require_entry, service_account
from geoloc_dagster.stack.secrets import make_secrets
from geoloc_dagster.stack.services import Site, build_services
from geoloc_dagster.stack.supervisor import Supervisor, end_leftovers
from geoloc_dagster.storage import translated_errors


@contextlib.contextmanager
def started_stack(
    settings: Settings,
    folder: StackFolder,
    options: StackOptions,
    environ: Mapping[str, str],
    report: Callable[[str], None],
    stopped: Callable[[], bool],
) -> Generator[Supervisor | None]:
    """Start everything and end it with the block; None where `stopped` became true before all was ready.

    Raises:
        ConfigError: the region's folder has no `definitions.py`.
        MissingProgramError: a program is missing; says what to install.
        PortTakenError: a page's port is in use.
        StackRunningError: the stack of this folder runs already.
        EngineMissingError: backfills are to run on Ray, and dagster-ray is not installed.
        EngineError: the Ray cluster does not answer.
        StackFolderError: a service's account cannot reach the folder.
        StackError: a service does not start; everything has been ended.
    """
    _require_definitions(settings.folder)
    with _locked(folder):
        site = _prepare(settings, folder, options, environ, report)
        supervisor = Supervisor(build_services(site), folder, report, _facts(site))
        try:
            yield supervisor if supervisor.start(stopped) else None
        finally:
            supervisor.stop()


def _prepare(
    settings: Settings, folder: StackFolder, options: StackOptions, environ: Mapping[str, str], report: Callable[[str], None]
) -> Site:
    """Everything that is on disk before the first service starts."""
    find_program("nginx", "nginx-light")
    if options.ray is not None:
        require_jobs(options.ray)
    pages = page_ports(options)
    left = end_leftovers(folder)
    if left:
        report(f"{len(left)} processes of a stack that was killed are ended")
    require_free(options.host, pages.items())
    database, web = postgres.database_account(), service_account("www-data", "nginx-light")
    require_entry(web, folder.root)
    make_secrets(folder)
    with translated_errors(folder.root):
        for place in (folder.logs, folder.hold, folder.mlflow_artifacts):
            place.mkdir(parents=True, exist_ok=True)
        postgres.prepare_cluster(folder, database)
        ports = private_ports(folder)
        configuration.write_database_services(folder, ports["postgres"])
        configuration.write_proxy(folder, options, pages, ports, web)
    emulated = "emulator" in (settings.coverage.provider, settings.capture.provider)
    name, home = settings.region.name, settings.folder.resolve()
    site = Site(name, home, settings.data_root, emulated, folder, options, ports, pages, environ, database, web)
    with translated_errors(folder.root):
        configuration.write_dagster_home(folder, options, name, ports, {**site.places, ENGINE: "ray"})
    return site


def _facts(site: Site) -> dict[str, object]:
    host = site.options.host
    return {"region": site.region, "pages": {page: f"http://{host}:{port}/" for page, port in site.pages.items()}}


def _require_definitions(region_folder: Path | None) -> None:
    if region_folder is None or not (region_folder / "definitions.py").is_file():
        raise ConfigError(
            f"{region_folder} has no definitions.py, so Dagster cannot load it",
            "Run `geoloc init` for a new region, or copy the three lines of another region's.",
        )


@contextlib.contextmanager
def _locked(folder: StackFolder) -> Generator[None]:
    with translated_errors(folder.root):
        folder.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackRunningError(f"the stack in {folder.root} runs already") from None
        yield
    finally:
        os.close(descriptor)
