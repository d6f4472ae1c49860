"""`geoloc …`: set up a region, run it, and ask it where a photo was taken.

Commands only gather arguments, call one function and show what came back; imports that take seconds happen inside them.
A problem with a known cause is one line on stderr and exit code 2.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from geoloc_dagster import __version__, cells_cli, evaluation_cli, explorer_cli, list_cli, maps_cli, photo_cli, stack_cli, starter
from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.loader import claim_data_root, find_config, load_settings, open_data_root, resolved_yaml
from geoloc_dagster.console import open_console
from geoloc_dagster.cores import processes_by_default, share_cores
from geoloc_dagster.errors import GeolocError, RecipeError
from geoloc_dagster.object_storage.problems import storage_problem
from geoloc_dagster.storage import read_json, write_bytes

USER_ERROR = 2
CHECK_FAILED = 1
INTERRUPTED = 130  # as shells have it: 128 + SIGINT

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(list_cli.photos, name="photos")
app.add_typer(cells_cli.app, name="cells")
app.add_typer(maps_cli.app, name="maps")

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="The region's geoloc.yaml. Default: GEOLOC_CONFIG, else ./geoloc.yaml.")
]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Where everything goes, in place of the file's data_root.")]
Select = Annotated[str | None, typer.Option("--select", help="Assets to make, e.g. 'crops+' or 'catalog,checkpoints'.")]


def main() -> None:
    """Run the command line; no user error ends in a traceback."""
    debug = "--debug" in sys.argv[1:]
    share_cores()
    try:
        app(args=[argument for argument in sys.argv[1:] if argument != "--debug"], prog_name="geoloc")
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever arrives here is shown and ends the process
        _fail(error, debug)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; may stand anywhere.")] = False,
) -> None:
    """Give it a polygon; get a visual geolocator for that place that keeps itself fresh."""
    if version:
        typer.echo(f"geoloc {__version__}")
        raise typer.Exit
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


@app.command()
def init(
    directory: Annotated[Path, typer.Argument(help="The region's folder; created if it is missing.")],
    name: Annotated[str | None, typer.Option(help="The region's name. Default: the folder's.")] = None,
) -> None:
    """Write a region's folder: geoloc.yaml, definitions.py, workspace.yaml and a small example polygon."""
    for path in starter.write_region(directory, name):
        typer.echo(f"wrote {path}")
    typer.echo(f"next: put your polygon into {directory / 'region.geojson'}, name your pictures in {directory / 'geoloc.yaml'},")
    typer.echo(f"then: geoloc doctor --config {directory}")


@app.command("check-config")
def check_config(config: Config = None, data_root: DataRoot = None) -> None:
    """Check the configuration and its recipes; print every setting as it resolves, and `ok`."""
    from geoloc_dagster.learning.recipe import check_recipes

    settings = load_settings(config, data_root=data_root)
    check_recipes(
        settings.recipes,
        settings.folder,
        cells=settings.cells is not None,
        grid_cells=settings.grid_cells is not None,
        class_maps=settings.segmentation is not None,
        ensemble=settings.fusion.ensemble,
    )
    typer.echo(resolved_yaml(settings), nl=False)
    typer.echo("ok", err=True)


@app.command()
def doctor(config: Config = None, data_root: DataRoot = None) -> None:
    """Say what is missing on this machine or in this region, one line per check."""
    from geoloc_dagster.doctor import examine

    statuses: list[str] = []
    for check in examine(lambda: load_settings(config, data_root=data_root)):
        typer.echo(str(check))
        statuses.append(check.status)
    if "FAIL" in statuses:
        raise typer.Exit(CHECK_FAILED)


@app.command()
def run(config: Config = None, data_root: DataRoot = None, select: Select = None) -> None:
    """Make everything, from the polygon to the release, or the selected part of it."""
    settings = _settings(config, data_root)
    summary = _materialise(settings, select)
    _show_summary(settings, summary)


@app.command()
def demo(
    directory: Annotated[Path, typer.Argument(help="The demo region's folder; written if it is missing.")] = Path("demo"),
    data_root: DataRoot = None,
) -> None:
    """Make everything on an emulated city, offline and without a key: lookups, pictures, model, evaluation, release."""
    settings = _settings(starter.write_demo(directory), data_root)
    summary = _materialise(settings, None)
    _show_summary(settings, summary)


@app.command()
def emulator(
    config: Config = None,
    data_root: DataRoot = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8300,
    host: Annotated[str, typer.Option(help="Address to listen on; others are open to a network.")] = "127.0.0.1",
) -> None:
    """Serve the emulated city of a region over HTTP until it is interrupted."""
    from geoloc_dagster.emulator.__main__ import main as serve

    settings = load_settings(config, data_root=data_root)
    lat_deg, lng_deg = settings.region.start_point
    where = "the address below" if port == 0 else f"http://{host}:{port}"
    typer.echo(f"other commands ask this city when GEOLOC_EMULATOR_URL is {where}; Ctrl+C ends it", err=True)
    city = [f"--origin={lat_deg!r},{lng_deg!r}", f"--seed={settings.emulator.seed}"]
    how = [f"--port={port}", f"--host={host}", f"--latency-ms={settings.emulator.latency_ms}"]
    serve([*city, *how, f"--hands={processes_by_default()}"])


@app.command()
def export(
    format_name: Annotated[
        str, typer.Argument(metavar="FORMAT", help="webdataset, imagefolder, msgpack, parquet, stac, croissant.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="An empty folder, or one with an export to go on with.")],
    what: Annotated[str, typer.Option(help="captures, as collected, or crops.")] = "captures",
    batch: Annotated[list[str] | None, typer.Option(help="Only this batch; can be repeated.")] = None,
    series: Annotated[list[str] | None, typer.Option(help="Only batches of this series, e.g. 100m; can be repeated.")] = None,
    licence: Annotated[list[str] | None, typer.Option(help="Only pictures under this licence; can be repeated.")] = None,
    restricted: Annotated[bool, typer.Option("--restricted", help="Also pictures that may not be passed on.")] = False,
    config: Config = None,
    data_root: DataRoot = None,
) -> None:
    """Take pictures out of the tables, with whom to name for each; goes on where a killed export stopped."""
    from geoloc_dagster.dataset.exports.run import export as run_export
    from geoloc_dagster.dataset.exports.selection import Selection

    if what not in ("captures", "crops"):
        raise typer.BadParameter("captures or crops", param_hint="--what")
    settings = _settings(config, data_root)
    selection = Selection(what, tuple(batch or ()), tuple(series or ()), tuple(licence or ()), restricted)  # type: ignore[arg-type]
    result = run_export(
        Layout(settings.data_root),
        settings.region.name,
        format_name,
        folder,
        selection,
        progress=lambda done, total: typer.echo(f"{done:,} of {total:,}", err=True),
    )
    typer.echo(f"{result.rows:,} pictures under {result.licence} in {result.folder}, of table version {result.table_version}")


app.command()(list_cli.download)


@app.command()
def forget(
    pano: Annotated[str | None, typer.Option(help="A panorama's id.")] = None,
    creator: Annotated[str | None, typer.Option(help="Who took the pictures.")] = None,
    provider: Annotated[str | None, typer.Option(help="Everything of one provider.")] = None,
    bbox: Annotated[str | None, typer.Option(help="south,west,north,east in degrees.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = None,
    data_root: DataRoot = None,
) -> None:
    """Take pictures down: delete every byte of them, and never fetch them again."""
    import datetime as dt

    from geoloc_dagster.dataset.forget import Request, matching
    from geoloc_dagster.dataset.forget import forget as run_forget

    given = {"pano": pano, "creator": creator, "provider": provider, "bbox": bbox}
    named = [(kind, value) for kind, value in given.items() if value is not None]
    if len(named) != 1:
        raise typer.BadParameter("name one of --pano, --creator, --provider and --bbox")
    settings = _settings(config, data_root)
    layout, request = Layout(settings.data_root), Request(*named[0])  # type: ignore[arg-type]
    count = matching(layout, request).num_rows
    if not yes:
        typer.confirm(f"{count:,} captures will be deleted for good, and never fetched again. Go on?", abort=True)
    result = run_forget(layout, request, now=dt.datetime.now(dt.UTC))
    typer.echo(", ".join(f"{name}: {rows:,} rows deleted" for name, rows in result.deleted.items()))
    for folder in result.marked:
        typer.echo(f"made with them, and marked: {folder}")
    if result.batches:
        from geoloc_dagster.defs.takedown import report_takedown

        report_takedown(settings, result.batches, result.captures)
        again = "crops,catalog,embeddings,faiss_index,release"
        typer.echo(f"make again: geoloc run --select {again} ({len(result.batches)} batches)")


@app.command()
def maintain(
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without it nothing is changed.")] = False,
    config: Config = None,
    data_root: DataRoot = None,
) -> None:
    """Say what could be tidied away, or do it: old runs, leftovers of killed processes, old versions of tables."""
    import datetime as dt

    from geoloc_dagster.defs.headless import open_instance
    from geoloc_dagster.defs.maintenance import run_maintenance
    from geoloc_dagster.defs.region import Region

    settings = _settings(config, data_root)
    with open_instance(Layout(settings.data_root)) as instance:
        done = run_maintenance(Region(settings), instance, now=dt.datetime.now(dt.UTC), apply=apply)
    for one in done:
        typer.echo(f"{one.what}: {one.bytes:,} bytes" if one.bytes else one.what)
    total = f"{sum(one.bytes for one in done):,} bytes"
    typer.echo(f"{total} freed" if apply else f"{total} could be freed, about; geoloc maintain --apply does it")


@app.command()
def coverage(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="Write the same as charts (PNG).")] = None,
    config: Config = None,
    data_root: DataRoot = None,
) -> None:
    """What is collected, per year, district and heading, and what is still missing; reads no picture."""
    import datetime as dt

    from geoloc_dagster.console import holdings_tables
    from geoloc_dagster.dataset.holdings import holdings

    settings = load_settings(config, data_root=data_root)
    layout = open_data_root(settings)
    held = holdings(settings, layout, today=dt.datetime.now(dt.UTC).date())
    if as_json:
        typer.echo(json.dumps(held.to_json(), indent=2))
    elif held.is_empty:
        typer.echo(f"nothing is collected below {layout.root} yet; `geoloc run` collects")
    else:
        console = open_console()
        for table in holdings_tables(held):
            console.print(table)
    if picture is not None and not held.is_empty:
        from geoloc_dagster.viz.holdings import holdings_picture

        share = "" if held.complete_share is None else f", {held.complete_share:.0%} of {held.registered:,} locations complete"
        content = holdings_picture(
            title=f"{held.region}: what is collected",
            subtitle=f"{held.captures:,} captures of {held.panoramas:,} panoramas{share}, {held.as_of}",
            years={year.name: (year.captures, year.locations) for year in held.by_year},
            headings=held.by_heading,
            districts=[(row.name, row.registered, row.complete, row.captures) for row in held.by_district],
            max_bytes=photo_cli.MAP_BYTES,
        )
        write_bytes(picture, content)
        typer.echo(f"wrote {picture}", err=True)


@app.command()
def train(
    recipe: Annotated[str, typer.Option("--recipe", help="One of the configuration's recipes.")],
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume", help="Go on with an interrupted training of it; take a finished one if nothing changed."
        ),
    ] = True,
    config: Config = None,
    data_root: DataRoot = None,
) -> None:
    """Train one recipe on the catalog as it is, and evaluate it; nothing that is served changes."""
    settings = _settings(config, data_root)
    if recipe not in settings.recipes:
        raise RecipeError(
            f"recipe {recipe!r} is not one of this region's: {', '.join(settings.recipes)}", "Add it to `recipes` in geoloc.yaml."
        )
    only = settings.model_copy(update={"recipes": [recipe]})
    _show_summary(settings, _materialise(only, "checkpoints,evaluations", resume=resume))


@app.command()
def backfill(
    series: Annotated[str, typer.Option("--series", help="The series of batches, e.g. 100m.")],
    select: Annotated[
        str | None, typer.Option("--select", help="Batch-partitioned assets, comma separated. Default: the pictures and crops.")
    ] = None,
    config: Config = None,
    data_root: DataRoot = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the batches.")] = False,
) -> None:
    """Make some assets for every batch of one series; a failed batch does not hold up the others."""
    from geoloc_dagster.dataset.pending import registered_batches
    from geoloc_dagster.geo.batches import BatchKey, select_series

    settings = _settings(config, data_root)
    registered = registered_batches(Layout(settings.data_root))
    keys = select_series(registered, series)
    if not keys:
        known = ", ".join(sorted({BatchKey.parse(key).series for key in registered})) or "none yet; run `buffer_csvs` first"
        raise typer.BadParameter(f"there is no batch of series {series!r}; registered series: {known}", param_hint="--series")
    if dry_run:
        typer.echo("\n".join(keys))
        return
    from geoloc_dagster.console import ProgressView
    from geoloc_dagster.defs.headless import run_backfill

    names = [name.strip() for name in (select or f"{settings.capture.asset},crops").split(",") if name.strip()]
    with _resumable(), ProgressView(open_console(stderr=True)) as view:
        failures = run_backfill(settings, names=names, keys=keys, report=view.report)
    typer.echo(f"{len(keys)} batches, {len(failures)} failed steps")
    for failure in failures:
        typer.echo(failure, err=True)
    if failures:
        raise typer.Exit(CHECK_FAILED)


app.command()(photo_cli.predict)
app.command()(explorer_cli.explorer)
app.command()(stack_cli.stack)
app.command("test")(photo_cli.measure)
app.command()(evaluation_cli.compare)
app.command("import-checkpoint")(photo_cli.import_checkpoint)


@app.command()
def dev(
    config: Config = None,
    data_root: DataRoot = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI on 127.0.0.1.")] = 3000,
) -> None:
    """Open the Dagster UI of a region; without a configuration, that of the last `geoloc run`."""
    last = starter.last_run(os.environ)
    if config is None and data_root is None and last is not None and not os.environ.get("GEOLOC_CONFIG"):
        here = Path("geoloc.yaml")
        if not here.is_file() or here.resolve() == last.config:
            config, data_root = last.config, last.data_root
    path = find_config(config, os.environ, Path.cwd())
    settings = load_settings(path, data_root=data_root)
    layout = claim_data_root(settings)
    environment = {
        **os.environ,
        "GEOLOC_CONFIG": str(path),
        "GEOLOC_DATA_ROOT": str(layout.root),
        "DAGSTER_HOME": str(starter.prepare_home(layout)),
    }
    if "emulator" in (settings.coverage.provider, settings.capture.provider):
        environment |= _start_emulator(settings)
    typer.echo(f"region folder {path.parent}, data root {layout.root}: http://127.0.0.1:{port}", err=True)
    command = [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port), "-m", "geoloc_dagster.definitions"]
    os.execve(sys.executable, command, environment)


def _settings(config: Path | None, data_root: Path | None) -> Settings:
    """The settings, with their data root claimed and remembered for `geoloc dev`."""
    path = find_config(config, os.environ, Path.cwd())
    settings = load_settings(path, data_root=data_root)
    claim_data_root(settings)
    starter.remember_run(os.environ, path, settings.data_root)
    return settings


def _materialise(settings: Settings, select: str | None, *, resume: bool = True) -> dict[str, Any]:
    from geoloc_dagster.console import ProgressView
    from geoloc_dagster.defs.headless import run_headless

    with _resumable(), ProgressView(open_console(stderr=True)) as view:
        return run_headless(settings, select=select, report=view.report, resume=resume)


@contextlib.contextmanager
def _resumable() -> Generator[None]:
    """Ctrl+C ends a run without a loss; say so."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _show_summary(settings: Settings, summary: dict[str, Any]) -> None:
    from geoloc_dagster.console import figures_table, summary_table

    layout = Layout(settings.data_root)
    summary = summary or read_json(layout.reports / "summary.json")
    console = open_console()
    for table in (summary_table(summary), figures_table(summary)):
        if table is not None:
            console.print(table)
    typer.echo(f"{summary.get('seconds', 0) / 60:.1f} minutes; everything is below {layout.root}")
    typer.echo(f"figures and pictures: {layout.report}")
    if (layout.releases / "CURRENT.json").is_file():
        typer.echo("next: geoloc predict PHOTO, or geoloc dev for the Dagster UI")
    else:
        typer.echo("next: geoloc run (without --select) makes a release; geoloc dev opens the Dagster UI")


def _start_emulator(settings: Settings) -> dict[str, str]:
    """Start the emulated city for all processes of the UI; it ends with them, because they inherit its lifeline."""
    from geoloc_dagster.emulator.shared import URL_VARIABLE, shared_emulator

    url = shared_emulator(settings, outlive_exec=True)
    typer.echo(f"emulated city: {url}", err=True)
    return {URL_VARIABLE: url}


def _fail(error: BaseException, debug: bool) -> NoReturn:
    known = _known_cause(error)
    if debug:
        traceback.print_exception(error)
    if known is not None:
        text, _, _ = str(known).partition("\n\nStack Trace:")
        typer.echo(f"error {' '.join(text.split())}", err=True)
        raise SystemExit(USER_ERROR) from None
    typer.echo(f"unexpected error: {type(error).__name__}: {error} (`geoloc --debug …` shows where)", err=True)
    raise SystemExit(CHECK_FAILED) from None


def _known_cause(error: BaseException) -> GeolocError | None:
    """The user error behind an exception, also where a framework has wrapped it."""
    current: BaseException | None = error
    while current is not None and not isinstance(current, GeolocError):
        current = storage_problem(current) or current.__cause__ or current.__context__
    return current
