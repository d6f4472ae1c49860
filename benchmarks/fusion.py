"""What the fusion of a region is worth: experts alone and together, calibration, regions, and pictures of another city.

    python benchmarks/fusion.py --region REGION [--others REGION] [--pictures 2000] [--unseen]

`--region` is a folder whose `geoloc run` went as far as `release`; `--others` one of another place (an emulated city with another
seed, collected as far as `crops`), whose pictures are to be refused. `--unseen` asks about the same photos of a gallery that holds
nothing but the places of train.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from sklearn.metrics import roc_auc_score

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.console import text_table
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.evaluation.fusion_report import measure_fusion
from geoloc_dagster.evaluation.geolocation import scale_of
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.geo.distance import score_m
from geoloc_dagster.learning.encoder import load_encoder
from geoloc_dagster.prediction.fusing import champions_of, gather, look_at, region_grid
from geoloc_dagster.prediction.fusion_fit import fit_fusion, say_all
from geoloc_dagster.prediction.panel import Photos, signs_of
from geoloc_dagster.prediction.questions import Division, divide_catalog
from geoloc_dagster.retrieval.index import latest_index, load_index
from geoloc_dagster.storage import open_table, read_parquet


def fitted(region: Path, *, unseen: bool) -> dict[str, Any]:
    """The fusion of a region as `fusion` makes it, with everything in between; nothing is written."""
    settings = load_settings(region / "geoloc.yaml")
    layout = Layout(settings.data_root)
    division = divide_catalog(read_parquet(layout.catalog))
    if unseen:
        gallery = division.gallery[division.gallery["split"] == "train"].reset_index(drop=True)
        division = Division(division.dev, division.test, gallery)
    champions = champions_of(layout)
    index = load_index(latest_index(layout.indexes)) if "retrieval" in champions else None
    grid = region_grid(settings, layout, division.gallery)
    experts = gather(champions, grid, index, division.gallery)
    west, south, east, north = read_boundary(layout.boundary).geometry.bounds
    scale = scale_of(score_m(south, west, north, east))
    radii = tuple(radius for radius in scale.radii_m if radius >= 25)
    found = {name: look_at(experts, one, layout, index) for name, one in (("dev", division.dev), ("test", division.test))}
    chosen = settings.fusion
    fusion = fit_fusion(
        experts,
        found["dev"],
        division.dev.truth,
        grid,
        radii,
        refused=chosen.refused,
        largest_region_km2=chosen.largest_region_km2,
        seed=settings.splits.seed,
    )
    report = measure_fusion(fusion, say_all(fusion, experts, found["test"]), division.test, scale, chosen.coverage)
    return {"fusion": fusion, "experts": experts, "found": found, "report": report, "champions": champions, "dev": division.dev}


def tell_strangers(made: dict[str, Any], others: Path, pictures: int) -> None:
    """How well pictures of another place are told from those of the split test."""
    encoder = load_encoder(made["champions"]["retrieval"])
    layout = Layout(load_settings(others / "geoloc.yaml").data_root)
    table = open_table(layout.crops)
    if table is None:
        raise SystemExit(f"{layout.crops} does not exist: collect {others} as far as `crops`")
    ids = sorted(table.to_table(columns=["capture_id"], filter="image IS NOT NULL")["capture_id"].to_pylist())
    chosen = np.random.default_rng(0).permutation(len(ids))[:pictures]
    reader = CropReader(layout.crops)
    vectors = encoder.embed(reader.pictures([ids[i] for i in chosen.tolist()], encoder.image_size), 64)
    photos = Photos(vectors, lambda size: np.empty((0, 3, size, size), np.uint8))
    known = made["fusion"].familiarity
    own = known.score(signs_of(made["found"]["test"]))
    strange = known.score(signs_of({expert.name: expert.look(photos) for expert in made["experts"][:2]}))
    auroc = roc_auc_score(np.repeat([1, 0], [len(own), len(strange)]), np.concatenate([own, strange]))
    print(
        f"outside: AUROC {auroc:.3f} ({len(own):,} photos of the region, {len(strange):,} of {others.name}); at the threshold that"
    )
    print(
        f"refuses {known.refused:.0%} of dev: {np.mean(own < known.threshold):.1%} of test and {np.mean(strange < known.threshold):.1%} of others"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--region", type=Path, required=True)
    parser.add_argument("--others", type=Path)
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--unseen", action="store_true")
    options = parser.parse_args()
    made = fitted(options.region, unseen=options.unseen)
    console = Console(width=140)
    for table in made["report"].tables:
        console.print(text_table(table))
    ece = made["report"].summary["ece"]
    print("expected calibration error:", ", ".join(f"{name} m {value:.3f}" for name, value in ece.items()))
    print("weights:", {name: fit.weight for name, fit in made["fusion"].experts.items()}, "prior", made["fusion"].prior_weight)
    print(f"{len(made['dev']):,} photos of dev, {len(made['fusion'].grid):,} cells")
    if options.others is not None:
        tell_strangers(made, options.others, options.pictures)


if __name__ == "__main__":
    main()
