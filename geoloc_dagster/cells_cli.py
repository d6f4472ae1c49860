"""`geoloc cells …`: make S2 cells of photos, give photos their classes, leave photos out, and look at cells, ours or published.

Options have the names that the scripts of the published system had, with `-` or `_`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geoloc_dagster.console import open_console
from geoloc_dagster.storage import write_bytes

if TYPE_CHECKING:
    from rich.table import Table

    from geoloc_dagster.dataset.photo_positions import PhotoFile
    from geoloc_dagster.geo.partitioning import LevelRule
    from geoloc_dagster.geo.published_cells import CellSet

_MAP_BYTES = 500_000
_SHOWN_ROWS, _SHOWN_DEFECTS = 10, 20
_NAMES = {1: ("cells",), 2: ("coarse", "fine"), 3: ("coarse", "middle", "fine")}
_WIDTH = 160  # of tables that go into a file

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="S2 cells of photos: make, assign, filter, show.")

Dataset = Annotated[Path, typer.Option("--dataset", help="CSV or Parquet with a position per photo.")]
ImgPath = Annotated[
    str | None, typer.Option("--column-img-path", "--column_img_path", help="Column that names the photo. Default: a usual name.")
]
Lat = Annotated[str | None, typer.Option("--column-lat", "--column_lat", help="Column of latitudes, degrees. Default: lat, …")]
Lng = Annotated[
    str | None, typer.Option("--column-lng", "--column_lng", help="Column of longitudes, degrees. Default: lng, lon, …")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Name every row that is not right, not only the first.")]
Cells = Annotated[list[str], typer.Option("--cells", help="A folder of cells, FILE.csv or NAME=FILE.csv; can be repeated.")]


@app.command()
def create(
    dataset: Dataset,
    output: Annotated[Path, typer.Option("--output", help="The folder to write; one with cells is replaced.")],
    img_min: Annotated[int, typer.Option("--img-min", "--img_min", min=1, help="Cells with fewer photos are dropped.")] = 50,
    img_max: Annotated[
        list[str] | None,
        typer.Option(
            "--img-max", "--img_max", help="Cells with more are cut; one per level, repeated or 5000,2000,1000 (default)."
        ),
    ] = None,
    level: Annotated[
        list[str] | None, typer.Option("--level", help="NAME=MAX: a level with a name of its own, in place of --img-max.")
    ] = None,
    lvl_min: Annotated[int, typer.Option("--lvl-min", "--lvl_min", min=0, max=30, help="S2 level of the largest cells.")] = 2,
    lvl_max: Annotated[int, typer.Option("--lvl-max", "--lvl_max", min=0, max=30, help="S2 level of the smallest cells.")] = 30,
    column_img_path: ImgPath = None,
    column_lat: Lat = None,
    column_lng: Lng = None,
    verbose: Verbose = False,
) -> None:
    """Make adaptive cells of the photos that a model is trained on: a folder with a CSV per level and their outlines."""
    from geoloc_dagster.cells_report import LevelFacts, levels_table
    from geoloc_dagster.dataset.photo_cells import make_cells
    from geoloc_dagster.geo.partitioning_folder import OUTLINES, refuse_other_folder, write_partitioning

    rules = _rules(img_min, img_max or [], level or [])
    refuse_other_folder(output)
    photos = _photos(dataset, column_img_path, column_lat, column_lng)
    made = make_cells(photos, rules, lvl_min=lvl_min, lvl_max=lvl_max)
    facts = {"dataset": dataset.name, "photos": photos.rows - photos.bad_rows, "bad_rows": photos.bad_rows}
    write_partitioning(output, made, rules=rules, lvl_min=lvl_min, lvl_max=lvl_max, facts=facts)
    _name_bad_rows(photos, verbose)
    title = f"{photos.rows - photos.bad_rows:,} photos of {dataset.name}"
    _print(levels_table(title, [LevelFacts.of(one) for one in made.levels], photos.rows - photos.bad_rows))
    typer.echo(f"fingerprint {made.fingerprint}")
    typer.echo(f"wrote {output}; {output / OUTLINES} opens in QGIS")


@app.command()
def assign(
    dataset: Dataset,
    cells: Cells,
    output: Annotated[Path, typer.Option("--output", help="FILE.csv or FILE.parquet: the rows, with a column per level.")],
    column_img_path: ImgPath = None,
    column_lat: Lat = None,
    column_lng: Lng = None,
    verbose: Verbose = False,
) -> None:
    """Give each photo its class in every level, -1 where it has none; and say how near a faultless model would come."""
    from geoloc_dagster.cells_report import assigned_table
    from geoloc_dagster.dataset.photo_cells import assign_cells

    read = _cells(cells, verbose)
    photos = _photos(dataset, column_img_path, column_lat, column_lng)
    counts = assign_cells(photos, read, output)
    _name_bad_rows(photos, verbose)
    placed = photos.rows - photos.bad_rows
    _print(assigned_table(f"{placed:,} photos of {dataset.name}", counts, placed))
    typer.echo("≤ km: from the centre of their own cell, which is what a model that is always right reaches")
    typer.echo(f"wrote {output}")


@app.command("filter")
def filter_rows(
    dataset: Dataset,
    output: Annotated[Path, typer.Option("--output", help="FILE.csv or FILE.parquet: the rows that stay, as they are.")],
    images: Annotated[
        Path | None, typer.Option("--images", help="A folder of pictures, its downloads.csv, or a list of names: those stay.")
    ] = None,
    cells: Annotated[
        list[str] | None, typer.Option("--cells", help="Cells as of `assign`; photos in a cell of every level stay.")
    ] = None,
    column_img_path: ImgPath = None,
    column_lat: Lat = None,
    column_lng: Lng = None,
    verbose: Verbose = False,
) -> None:
    """Leave out photos whose picture was not downloaded, or that lie in no cell."""
    from geoloc_dagster.dataset.photo_cells import filter_photos, pictures_at

    if images is None and not cells:
        raise typer.BadParameter("say what to filter by", param_hint="--images or --cells")
    pictures = None if images is None else pictures_at(images)
    read = _cells(cells, verbose) if cells else None
    photos = _photos(dataset, column_img_path, column_lat, column_lng, placed=read is not None)
    result = filter_photos(photos, output, pictures=pictures, cells=read)
    _name_bad_rows(photos, verbose)
    typer.echo(f"{result.kept:,} of {photos.rows:,} photos kept")
    for reason, count in result.dropped.items():
        if count:
            typer.echo(f"{reason}: {count:,}")
    typer.echo(f"wrote {output}")


@app.command()
def show(
    cells: Annotated[list[str], typer.Argument(metavar="CELLS...", help="Folders of cells, FILE.csv or NAME=FILE.csv.")],
    picture: Annotated[Path | None, typer.Option("--picture", help="Write a map of every level (PNG).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    verbose: Verbose = False,
) -> None:
    """Show cells in figures and as a map: ours or published ones, with what is wrong with these."""
    from geoloc_dagster.cells_report import LevelFacts, defects_table, levels_table, to_json

    read = _cells(cells, verbose, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(to_json(read), indent=2))
    else:
        _print(levels_table(", ".join(Path(one).name for one in cells), [LevelFacts.of(one.level) for one in read.levels]))
        defects = defects_table(read)
        if defects is not None:
            _print(defects)
        if len(read.levels) > 1 and not read.holes:
            typer.echo(f"every cell of `{read.levels[-1].level.name}` lies in one cell of each other level")
        typer.echo(f"fingerprint {read.fingerprint}")
    if picture is not None:
        from geoloc_dagster.viz.cells import cells_map

        write_bytes(picture, cells_map([one.level for one in read.levels], max_bytes=_MAP_BYTES))
        typer.echo(f"wrote {picture}", err=True)


def _rules(img_min: int, img_max: Sequence[str], named: Sequence[str]) -> list[LevelRule]:
    from geoloc_dagster.geo.partitioning import LevelRule

    if img_max and named:
        raise typer.BadParameter("--level names its greatest count itself; give one of the two", param_hint="--img-max")
    pairs = [one.partition("=")[::2] for one in named]
    if not named:
        maxima = [part for one in img_max or ["5000,2000,1000"] for part in one.replace(",", " ").split()]
        pairs = list(zip(_NAMES.get(len(maxima), [f"max{number}" for number in maxima]), maxima, strict=True))
    for name, number in pairs:
        if not number.isascii() or not number.isdigit():
            raise typer.BadParameter(f"{number or name!r} is no count of photos", param_hint="--level" if named else "--img-max")
        if not name or not name.replace("-", "_").isidentifier():
            raise typer.BadParameter(f"{name!r} is no name of a level: letters, digits, - and _", param_hint="--level")
    return [LevelRule(name, img_min, int(number)) for name, number in pairs]


def _photos(path: Path, img_path: str | None, lat: str | None, lng: str | None, *, placed: bool = True) -> PhotoFile:
    from geoloc_dagster.dataset.photo_positions import Columns, PhotoFile

    return PhotoFile(path, Columns(img_path, lat, lng), need_position=placed)


def _cells(sources: Sequence[str], verbose: bool, *, quiet: bool = False) -> CellSet:
    """Read cells; what is wrong with them goes to stderr."""
    from geoloc_dagster.cells_report import defect_lines
    from geoloc_dagster.geo.published_cells import read_cell_sets

    read = read_cell_sets(sources)
    if not quiet:
        _name(defect_lines(read), _SHOWN_DEFECTS, verbose)
        for hole in read.holes:
            typer.echo(str(hole), err=True)
    return read


def _name_bad_rows(photos: PhotoFile, verbose: bool) -> None:
    _name(photos.problems, _SHOWN_ROWS, verbose)
    if photos.bad_rows:
        typer.echo(f"rows without a position that can be used: {photos.bad_rows:,} of {photos.rows:,}", err=True)


def _name(lines: Sequence[str], shown: int, verbose: bool) -> None:
    from geoloc_dagster.console import name_first

    for line in name_first(lines, len(lines) if verbose else shown, "; --verbose names them"):
        typer.echo(line, err=True)


def _print(table: Table) -> None:
    open_console(piped_width=_WIDTH).print(table)
