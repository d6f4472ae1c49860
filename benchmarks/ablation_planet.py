"""What each part of the recipe `scenes` brings on the emulated planet: the photo alone, scenes, class maps, tokens exchanged.

    python benchmarks/ablation_planet.py --photos 8000 --epochs 12 --seeds 3 --out ablation.json
    python benchmarks/ablation_planet.py --region planet --epochs 12          # a region whose tables are made already

Every row is trained on the same photos for as many epochs with the same optimiser, once for each seed, and asked about photos by
photographers that none has seen. The score of a photo is its mean over the seeds; differences are of the same photos, and
intervals (95 %) resample photographers: they say how sure a figure is for other photos, not for other seeds, each of which stands
beside it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.dataset.cells import FINGERPRINT, Labels, read_labels
from geoloc_dagster.dataset.class_maps import ClassMapReader, encode_map, numbers_of
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.dataset.schema import CATALOG, CROPS, SEGMENTATION_MAPS
from geoloc_dagster.emulator.planet import PixelClass, Planet
from geoloc_dagster.evaluation.bootstrap import intervals, paired_differences
from geoloc_dagster.evaluation.geolocation import WORLD, Positions, errors_m, outcomes, verdict_of
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.partitioning import HIERARCHY, LevelRule, partition
from geoloc_dagster.learning.multitask_model import load_multitask_model
from geoloc_dagster.learning.multitask_recipe import MultitaskRecipe
from geoloc_dagster.learning.multitask_training import train_multitask
from geoloc_dagster.storage import read_parquet
from geoloc_dagster.tables import append_rows

SIZE = (96, 96)
VARIANTS: dict[str, dict[str, Any]] = {
    "photo alone": {"branches": {"segmentation": False}, "heads": {"scene": None}},
    "+ scene": {"branches": {"segmentation": False}},
    "+ class maps, added up at the end": {"branches": {"fusion": "late"}},
    "+ tokens exchanged after every layer": {"branches": {"fusion": "every_layer"}},
}
WITHOUT_MAPS = "the last one, asked without maps"


@dataclass(frozen=True)
class World:
    """Photos with their labels and class maps."""

    catalog: pa.Table
    labels: Labels
    crops: Path
    maps: Path


def drawn_world(folder: Path, photos: int, seed: int) -> World:
    """The first photos of the planet, as a region would hold them: a quarter of the photographers for test, a tenth for dev."""
    planet, classes = Planet(seed), numbers_of([one.name for one in PixelClass])
    crops, maps, rows = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    for number in range(photos):
        photo, picture = planet.photo(number), planet.picture(number, SIZE)
        name, image = f"p{number:06d}", picture.jpeg()
        draw = int(hashlib.sha256(photo.author.encode()).hexdigest()[:8], 16) / 2**32
        said = {"capture_id": name, "batch": "photos-0000", "sha256": hashlib.sha256(image).hexdigest(), "flags": []}
        said |= {"source": "planet", "location_id": name, "lat_deg": photo.lat_deg, "lng_deg": photo.lng_deg}
        said |= {"licence": "CC0-1.0", "attribution": "nobody", "creator": photo.author}
        crops.append(said | {"image": image})
        split = "test" if draw < 0.25 else "dev" if draw < 0.35 else "train"
        rows.append(
            said | {"series": "photos", "district": "none", "view": "v", "split": split, "usable": True, "is_query": False}
        )
        of_map = {"class_map": encode_map(classes[picture.classes]), "width": SIZE[0], "height": SIZE[1], "source": "emulator"}
        maps.append({"capture_id": name, "batch": "photos-0000", "crop_sha256": said["sha256"]} | of_map)
    append_rows(folder / "crops.lance", pa.Table.from_pylist(crops, schema=CROPS))
    append_rows(folder / "maps.lance", pa.Table.from_pylist(maps, schema=SEGMENTATION_MAPS))
    catalog = pa.Table.from_pylist(rows, schema=CATALOG)
    return World(catalog, labels_of(catalog, planet, photos), folder / "crops.lance", folder / "maps.lance")


def labels_of(catalog: pa.Table, planet: Planet, photos: int) -> Labels:
    """Cells of the split train, as fine as the number of photos allows; scenes as the list says them."""
    lat_deg, lng_deg = catalog["lat_deg"].to_numpy(), catalog["lng_deg"].to_numpy()
    train = np.array(catalog["split"].to_pylist()) == "train"
    few = max(2, round(photos / 1_200))
    rules = [LevelRule(name, few, few * factor) for name, factor in (("coarse", 50), ("middle", 20), ("fine", 8))]
    cells = partition(lat_deg[train], lng_deg[train], rules)
    leaves = s2.leaf_ids(lat_deg, lng_deg)
    table = pa.table({"capture_id": catalog["capture_id"], **{level.name: level.classes(leaves) for level in cells.levels}})
    said = np.array([planet.photo(number).probabilities for number in range(photos)], np.float32)
    scenes = {f"prob_{scene}": said[:, column] for column, scene in enumerate(("indoor", "natural", "urban"))}
    return Labels(
        cells,
        table.replace_schema_metadata({FINGERPRINT: cells.fingerprint.encode()}),
        pa.table({"capture_id": catalog["capture_id"], **scenes}),
    )


def world_of(region: Path) -> World:
    """A region of the emulated planet with everything up to `segmentation_maps` and `cell_labels` made."""
    layout = Layout(load_settings(region / "geoloc.yaml").data_root)
    return World(read_parquet(layout.catalog), read_labels(layout), layout.crops, layout.segmentation_maps)


def recipe_of(options: argparse.Namespace, seed: int, **changes: Any) -> MultitaskRecipe:
    """A transformer from scratch that two cores can train; all variants differ in what `changes` says only."""
    values: dict[str, Any] = {
        "name": "ablation",
        "data": {"image_size": options.pixels, "stored_size": options.pixels * 9 // 8},
        "backbone": {"name": "vit_basic", "patch": 8, "width": options.width, "depth": options.depth, "heads": 4},
        "augmentation": {"min_scale": 0.75, "aspect": 0.1, "brightness": 0.15, "contrast": 0.15, "saturation": 0.15},
        "optimiser": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05, "warmup_epochs": min(2, options.epochs / 4)},
        "budget": {"epochs": options.epochs, "batch_size": options.batch},
        "seed": seed,
    }
    return MultitaskRecipe.model_validate(values | changes)


def scores(world: World, model_folder: Path, *, with_maps: bool = True) -> np.ndarray:
    """(test photos, radii and GeoScore): whether the hierarchy's answer lies within each radius, and what it earns."""
    model = load_multitask_model(model_folder)
    test = world.catalog.filter(pa.compute.field("split") == "test").sort_by("capture_id")
    ids, crops = test["capture_id"].to_pylist(), CropReader(world.crops)
    maps = ClassMapReader(world.maps) if model.needs_maps and with_maps else None
    found = list[np.ndarray]()
    for start in range(0, len(ids), 256):
        block = ids[start : start + 256]
        seen = None if maps is None else maps.maps(block, model.size)
        answers = model.answers(crops.pictures(block, model.size), seen)[HIERARCHY]
        found.append(np.stack([answers.lat_deg, answers.lng_deg], axis=1))
    said, truth = np.concatenate(found), Positions(test["lat_deg"].to_numpy(), test["lng_deg"].to_numpy())
    return outcomes(errors_m(truth, Positions(said[:, 0], said[:, 1])), WORLD)


def measured(world: World, options: argparse.Namespace, work: Path) -> dict[str, list[np.ndarray]]:
    """Of every variant, the scores of each seed."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in (*VARIANTS, WITHOUT_MAPS)}
    for seed in range(options.seeds):
        for name, changes in VARIANTS.items():
            began = time.perf_counter()
            recipe = recipe_of(options, seed, **changes)
            model = train_multitask(recipe, world.catalog, world.labels, world.crops, work, maps_path=world.maps)
            found[name].append(scores(world, model.folder))
            print(f"seed {seed}, {name}: {time.perf_counter() - began:.0f} s", flush=True)
        found[WITHOUT_MAPS].append(scores(world, model.folder, with_maps=False))
    return found


def report(world: World, found: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Print the tables; the same as plain values."""
    test = world.catalog.filter(pa.compute.field("split") == "test").sort_by("capture_id")
    groups = np.array(test["creator"].to_pylist(), np.str_)
    names, units = [*(radius_name(radius) for radius in WORLD.radii_m), "GeoScore"], [*(100.0 for _ in WORLD.radii_m), 1.0]
    mean = {name: np.mean(runs, axis=0) for name, runs in found.items()}
    kept: dict[str, Any] = {"photos": len(groups), "photographers": len(np.unique(groups)), "rows": {}, "gains": {}}
    print(f"\n{len(groups):,} photos by {kept['photographers']:,} photographers, {len(next(iter(found.values())))} seeds each\n")
    print(f"| % of photos within | {' | '.join(names)} | GeoScore of each seed |\n|---|{'---:|' * (len(names) + 1)}")
    for name, values in mean.items():
        figures = intervals(values, groups, 1000, 0)
        kept["rows"][name] = [figure.as_dict() for figure in figures]
        cells = [f"{u * f.value:.1f} ({u * f.low:.1f}–{u * f.high:.1f})" for u, f in zip(units, figures, strict=True)]
        seeds = ", ".join(f"{run[:, -1].mean():.0f}" for run in found[name])
        print(f"| {name} | {' | '.join(cells)} | {seeds} |")
    print(f"\n| gain | {' | '.join(names)} |\n|---|{'---:|' * len(names)}")
    rows = list(VARIANTS)
    for better, worse in [*zip(rows[1:], rows[:-1], strict=True), (rows[-1], rows[0]), (WITHOUT_MAPS, rows[1])]:
        gains = paired_differences(mean[better] - mean[worse], groups, 1000, 0)
        kept["gains"][f"{better} over {worse}"] = [gain.as_dict() for gain in gains]
        cells = [
            f"{u * g.difference:+.1f} ({u * g.low:+.1f} to {u * g.high:+.1f}) {verdict_of(g)}"
            for u, g in zip(units, gains, strict=True)
        ]
        print(f"| {better}, over: {worse} | {' | '.join(cells)} |")
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--region", type=Path, help="a region of the planet; without it photos are drawn here")
    parser.add_argument("--photos", type=int, default=8_000)
    parser.add_argument("--planet-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    print(f"{len(os.sched_getaffinity(0))} cores, load average {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        world = world_of(options.region) if options.region else drawn_world(work, options.photos, options.planet_seed)
        cells = " / ".join(f"{len(level):,}" for level in world.labels.partitioning.levels)
        print(f"{world.catalog.num_rows:,} photos, {cells} cells", flush=True)
        kept = report(world, measured(world, options, work / "models"))
    if options.out:
        options.out.write_text(json.dumps(kept | {"options": {k: str(v) for k, v in vars(options).items()}}, indent=1))


if __name__ == "__main__":
    main()
