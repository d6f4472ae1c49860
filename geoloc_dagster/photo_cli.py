"""`geoloc predict` and `geoloc test`: where photos were taken, one or a folder of them, and how far that is from the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoloc_dagster import sequence_cli
from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings, open_data_root
from geoloc_dagster.console import open_console
from geoloc_dagster.storage import write_bytes

if TYPE_CHECKING:
    from geoloc_dagster.learning.photo_models import AnyPhotoModel
    from geoloc_dagster.prediction.image_folder import FolderPredictions

MAP_BYTES = 500_000
PHOTOS_SKIPPED = 1
_SHOWN = 20

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="The region's geoloc.yaml. Default: GEOLOC_CONFIG, else ./geoloc.yaml.")
]
DataRoot = Annotated[Path | None, typer.Option("--data-root", help="Where everything is, in place of the file's data_root.")]
Checkpoint = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="A model of cells: its folder, or its weights in there. Default: the region's newest."),
]
Hparams = Annotated[
    Path | None, typer.Option("--hparams", help="YAML with `inference:` (crops, hierarchy) in place of the recipe's own.")
]
Gpu = Annotated[bool | None, typer.Option("--gpu/--cpu", help="Default: a GPU where there is one.")]
Precision = Annotated[str, typer.Option("--precision", help="32, bf16 or 16.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Photos at once.")]
Workers = Annotated[
    int | None,
    typer.Option("--num-workers", min=0, max=64, help="Threads that decode photos; by default, and with 0, one for each core."),
]


def predict(
    photos: Annotated[list[Path] | None, typer.Argument(help="JPEG, PNG or WebP files.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    map_file: Annotated[
        Path | None,
        typer.Option("--map", help="Write a map: .png of one photo, .geojson with a fusion; .png or .html of one place."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, max=1000, help="Candidates to show.")] = 5,
    coverage: Annotated[
        float, typer.Option("--coverage", help="Share of photos whose place the region is to hold: 0.5, 0.8, 0.9 or 0.95.")
    ] = 0.9,
    expert: Annotated[str | None, typer.Option("--expert", help="Ask this expert alone, e.g. retrieval; else all.")] = None,
    image_dir: Annotated[
        list[Path] | None, typer.Option("--image-dir", help="Ask the classifier of cells about a whole folder; can be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The CSV of its answers.")] = None,
    url: Annotated[
        str | None,
        typer.Option("--url", help="Ask a running explorer, e.g. http://127.0.0.1:8050, and no model of one's own."),
    ] = None,
    views: sequence_cli.Views = None,
    place: sequence_cli.Place = None,
    only: sequence_cli.Only = None,
    at: sequence_cli.At = None,
    checkpoint: Checkpoint = None,
    hparams: Hparams = None,
    gpu: Gpu = None,
    precision: Precision = "32",
    batch_size: BatchSize = 64,
    num_workers: Workers = None,
    config: Config = None,
    data_root: DataRoot = None,
) -> None:
    """Where was this photo taken? Asks the released model, or with --image-dir a classifier of cells; photos are only read.

    Several views of one place, with --views or --place, are answered as one by a sequence model.
    """
    if views or place:
        if photos or image_dir:
            raise typer.BadParameter("--views and --place go without single photos and --image-dir", param_hint="--views")
        sequence_cli.predict_places(
            views or [],
            place or [],
            only,
            at,
            as_json=as_json,
            map_file=map_file,
            top=top,
            out=out,
            checkpoint=checkpoint,
            gpu=gpu,
            config=config,
            data_root=data_root,
        )
        return
    if url is not None:
        from geoloc_dagster.explorer_cli import ask_url

        ask_url(url, photos or [], image_dir or [], out, coverage=coverage, expert=expert, top=top, as_json=as_json)
        return
    if image_dir:
        if photos or out is None:
            raise typer.BadParameter("--image-dir goes with --out FILE.csv, and without single photos", param_hint="--image-dir")
        model = open_model(checkpoint, hparams, gpu, precision, config, data_root)
        _name_skipped(_predict_folders(model, image_dir, out, batch_size, num_workers).unreadable)
        return
    if not photos:
        raise typer.BadParameter("name photos, or a folder with --image-dir", param_hint="PHOTOS")
    _predict_photos(photos, as_json, map_file, top, coverage, expert, config, data_root)


def measure(
    image_dirs: Annotated[list[Path], typer.Option("--image-dirs", help="A folder of photos; can be repeated.")],
    meta_files: Annotated[
        list[Path], typer.Option("--meta-files", help="CSV of their true positions (IMG_ID, LAT, LON, …); one for each folder.")
    ],
    out: Annotated[Path | None, typer.Option("--out", help="A folder for predictions, tables and pictures.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Print every table: what cells allow, by area, region, scene and confidence.")
    ] = False,
    bootstrap: Annotated[int, typer.Option("--bootstrap", min=0, help="Resamples of the intervals.")] = 1000,
    checkpoint: Checkpoint = None,
    hparams: Hparams = None,
    gpu: Gpu = None,
    precision: Precision = "32",
    batch_size: BatchSize = 64,
    num_workers: Workers = None,
    config: Config = None,
    data_root: DataRoot = None,
) -> None:
    """How many photos are placed within 1, 25, 200, 750 and 2500 km, per level and together, beside what was published."""
    if len(image_dirs) != len(meta_files):
        raise typer.BadParameter("one --meta-files for each --image-dirs", param_hint="--meta-files")
    from tempfile import TemporaryDirectory

    from geoloc_dagster.console import text_table
    from geoloc_dagster.evaluation.benchmark_sets import measure_files, write_measured_set
    from geoloc_dagster.evaluation.geolocation import scale_of

    model = open_model(checkpoint, hparams, gpu, precision, config, data_root)
    console = open_console()
    skipped: list[tuple[str, str]] = []
    with TemporaryDirectory() as scratch:
        for folder, meta in zip(image_dirs, meta_files, strict=True):
            place = Path(scratch) if out is None else out / meta.stem
            place.mkdir(parents=True, exist_ok=True)
            predicted = _predict_folders(model, [folder], place / "predictions.csv", batch_size, num_workers, quiet=True)
            skipped += predicted.unreadable
            scale = scale_of(1000 * model.score_km)
            measured = measure_files(place / "predictions.csv", meta, model.partitioning, scale=scale, bootstrap=bootstrap)
            for table in measured.tables if everything else measured.brief:
                console.print(text_table(table))
            for remark in measured.remarks:
                typer.echo(remark, err=True)
            if out is not None:
                write_measured_set(measured, place)
                typer.echo(f"wrote {place}", err=True)
    _name_skipped(skipped)


def import_checkpoint(
    weights: Annotated[Path, typer.Option("--checkpoint", help="Others' weights: safetensors, or a state dict saved by torch.")],
    key_map: Annotated[Path, typer.Option("--key-map", help="YAML: which of their names become which of ours.")],
    recipe: Annotated[str, typer.Option("--hparams", help="A recipe of kind `cells`: its file, or its name in recipes/.")],
    cells: Annotated[
        list[str], typer.Option("--cells", help="Their cells: NAME=FILE.csv per level, coarsest first, or a folder.")
    ],
    output: Annotated[Path, typer.Option("--output", help="The folder that gets the model as a folder of its own.")],
) -> None:
    """Make a model of ours of a classifier of cells that others trained; nothing of it is unpickled, nothing guessed."""
    import datetime as dt

    from geoloc_dagster.console import name_first
    from geoloc_dagster.errors import RecipeError
    from geoloc_dagster.geo.published_cells import read_cell_sets
    from geoloc_dagster.learning.cells_import import import_cells_model, read_key_map
    from geoloc_dagster.learning.cells_recipe import CellsRecipe
    from geoloc_dagster.learning.recipe import load_recipe

    read = load_recipe(recipe, Path.cwd())
    if not isinstance(read, CellsRecipe):
        raise RecipeError(f"recipe {read.name} is of kind `{read.kind}`, not `cells`")
    levels = read_cell_sets(cells).levels
    for level in levels:
        for line in name_first(level.defects, _SHOWN, " (geoloc cells show names them)"):
            typer.echo(line, err=True)
    made = import_cells_model(weights, read_key_map(key_map), read, levels, output, now=dt.datetime.now(dt.UTC))
    typer.echo(f"{made.folder}: {', '.join(f'{len(one.level):,} cells of {one.level.name}' for one in levels)}")
    typer.echo(f"next: geoloc predict --checkpoint {made.folder} --image-dir PHOTOS --out answers.csv")


def open_model(
    checkpoint: Path | None,
    hparams: Path | None,
    gpu: bool | None,
    precision: str,
    config: Path | None,
    data_root: Path | None,
) -> AnyPhotoModel:
    """The classifier that was asked for: of a folder, or the region's."""
    if precision not in ("32", "bf16", "16"):
        raise typer.BadParameter("32, bf16 or 16", param_hint="--precision")
    from geoloc_dagster.learning.photo_models import load_photo_model
    from geoloc_dagster.learning.recipe import read_inference
    from geoloc_dagster.prediction.release import cells_model_folder

    if checkpoint is not None:
        folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
        if not checkpoint.exists():
            raise typer.BadParameter(f"{checkpoint} does not exist", param_hint="--checkpoint")
    else:
        folder = cells_model_folder(open_data_root(load_settings(config, data_root=data_root)))
    inference = None if hparams is None else read_inference(hparams)
    device = "" if gpu is None else "cuda" if gpu else "cpu"
    if gpu:
        _require_gpu()
    return load_photo_model(folder, inference=inference, precision=precision, device=device)  # type: ignore[arg-type]


def _require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise typer.BadParameter("there is no GPU that torch can use", param_hint="--gpu")


def _predict_folders(
    model: AnyPhotoModel, folders: list[Path], out: Path, batch_size: int, workers: int | None, *, quiet: bool = False
) -> FolderPredictions:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from geoloc_dagster.prediction.image_folder import predict_folders

    console = open_console(stderr=True)
    columns = (TextColumn("photos"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("photos", total=None)
        result = predict_folders(
            model,
            folders,
            out,
            batch_size=batch_size,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if not quiet:
        typer.echo(f"{result.answered:,} photos answered by {model.model_version}: {out}")
    return result


def _name_skipped(unreadable: list[tuple[str, str]]) -> None:
    """Name what could not be read; the exit code says that there was something."""
    from geoloc_dagster.console import name_first

    for line in name_first([f"skipped {photo}: {why}" for photo, why in unreadable], _SHOWN):
        typer.echo(line, err=True)
    if unreadable:
        typer.echo(f"{len(unreadable):,} photos could not be read", err=True)
        raise typer.Exit(PHOTOS_SKIPPED)


def _predict_photos(
    photos: list[Path],
    as_json: bool,
    map_file: Path | None,
    top: int,
    coverage: float,
    expert: str | None,
    config: Path | None,
    data_root: Path | None,
) -> None:
    """One answer per photo: of the fusion where the release has one, else of the released model of retrieval."""
    if map_file is not None and len(photos) != 1:
        raise typer.BadParameter("a map shows one photo", param_hint="--map")
    from geoloc_dagster.console import prediction_table
    from geoloc_dagster.prediction.release import load_release, predict_photo, served_parts

    layout = open_data_root(load_settings(config, data_root=data_root))
    parts = served_parts(layout)
    if "fusion" in parts or expert is not None:
        from geoloc_dagster.fused_cli import answer_fused

        answer_fused(photos, layout, as_json=as_json, map_file=map_file, top=top, coverage=coverage, expert=expert)
        return
    if "index" not in parts:
        _classify_photos(photos, as_json, map_file, layout)
        return
    release = load_release(layout)
    answers = [predict_photo(release, photo) for photo in photos]
    if as_json:
        listed = [{"photo": str(photo), **_limited(answer.to_json(), top)} for photo, answer in zip(photos, answers, strict=True)]
        typer.echo(json.dumps(listed, indent=2))
    else:
        console = open_console()
        for photo, answer in zip(photos, answers, strict=True):
            console.print(prediction_table(photo.name, answer, top))
    if map_file is not None:
        from geoloc_dagster.geo.boundary import read_boundary
        from geoloc_dagster.prediction.picture import prediction_map

        geometry = read_boundary(layout.boundary).geometry if layout.boundary.is_file() else None
        picture = prediction_map(
            answers[0], photos[0].read_bytes(), crops_path=layout.crops, geometry=geometry, max_bytes=MAP_BYTES
        )
        write_bytes(map_file, picture)
        typer.echo(f"wrote {map_file}", err=True)


def _classify_photos(photos: list[Path], as_json: bool, map_file: Path | None, layout: Layout) -> None:
    """One answer per photo, level and all levels together, where the release has a classifier of cells and no index."""
    from geoloc_dagster.console import text_table
    from geoloc_dagster.learning.photo_models import load_photo_model
    from geoloc_dagster.prediction.cells import classified_table, classify_photos, photo_heat_map
    from geoloc_dagster.prediction.release import cells_model_folder

    model = load_photo_model(cells_model_folder(layout))
    answers = classify_photos(model, photos)
    if as_json:
        typer.echo(json.dumps(answers, indent=2))
    else:
        console = open_console()
        for answer in answers:
            console.print(text_table(classified_table(answer)))
    if map_file is not None:
        write_bytes(map_file, photo_heat_map(model, photos[0], max_bytes=MAP_BYTES))
        typer.echo(f"wrote {map_file}", err=True)


def _limited(answer: dict[str, Any], top: int) -> dict[str, Any]:
    return {**answer, "candidates": answer["candidates"][:top]}
