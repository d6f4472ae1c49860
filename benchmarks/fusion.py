"""What the fusion of a region is worth: experts alone and together, calibration, regions, and pictures of another city.

    python benchmarks/fusion.py --region REGION [--others REGION] [--pictures 2000] [--unseen]

`--region` is a folder whose `geoloc run` went as far as `release`; `--others` one of another place (an emulated city with another
seed, collected as far as `crops`), whose pictures are to be refused. `--unseen` asks about the same photos, of a gallery that
holds nothing but the places of train.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from sklearn.metrics import roc_auc_score

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.console import text_table
from geoloc_dagster.dataset.pictures import CropReader
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.learning.encoder import load_encoder
from geoloc_dagster.prediction.experts import Hits
from geoloc_dagster.prediction.fusing import Measured, champions_of, fit_and_measure
from geoloc_dagster.prediction.fusion_fit import Truth
from geoloc_dagster.prediction.panel import ClassifierExpert, Photos, look_all
from geoloc_dagster.prediction.questions import Division, divide_catalog
from geoloc_dagster.prediction.signs import signs_of
from geoloc_dagster.storage import read_parquet
from geoloc_dagster.tables import open_table

NEAR_M = 25


def fitted(region: Path, *, unseen: bool) -> tuple[Measured, Division]:
    """The fusion of a region as the asset makes it, and who asked; nothing is written."""
    settings = load_settings(region / "geoloc.yaml")
    layout = Layout(settings.data_root)
    division = divide_catalog(read_parquet(layout.catalog))
    if unseen:
        gallery = division.gallery[division.gallery["split"] == "train"].reset_index(drop=True)
        division = Division(division.dev, division.test, gallery)
    return fit_and_measure(settings, layout, champions_of(layout), division), division


def tell_strangers(made: Measured, truth: Truth, others: Path, pictures: int) -> None:
    """How well pictures of another place are told from those of the split test, and from those that each network finds."""
    layout = Layout(load_settings(others / "geoloc.yaml").data_root)
    table = open_table(layout.crops)
    if table is None:
        raise SystemExit(f"{layout.crops} does not exist: collect {others} as far as `crops`")
    ids = sorted(table.to_table(columns=["capture_id"], filter="image IS NOT NULL")["capture_id"].to_pylist())
    chosen = np.random.default_rng(0).permutation(len(ids))[:pictures]
    reader = CropReader(layout.crops)
    vectors = dict[str, np.ndarray]()
    for version, folder in made.networks.items():
        encoder = load_encoder(folder)
        vectors[version] = encoder.embed(reader.pictures([ids[i] for i in chosen.tolist()], encoder.image_size), 64)
    photos = Photos(vectors, lambda size: reader.pictures([ids[i] for i in chosen.tolist()], size))
    known = made.fusion.familiarity
    assert known is not None
    found = look_all([one for one in made.experts if not isinstance(one, ClassifierExpert)], photos)
    of_own, of_strange = signs_of(made.experts, made.found), signs_of(made.experts, found)
    own, strange = known.score(of_own), known.score(of_strange)
    auroc = told_apart(own, strange)
    for name, weight in known.weights.items():
        alone = told_apart(np.sign(weight) * of_own[name], np.sign(weight) * of_strange[name])
        print(f"  {name}: weight {weight:+.2f}, alone AUROC {alone:.3f}")
    found_by = np.sum([first_is_right(hits, made, truth) for hits in made.found.values() if isinstance(hits, Hits)], axis=0)
    for count in np.unique(found_by).tolist():
        few = found_by == count
        print(f"  found by {count} networks ({few.mean():.1%} of test): AUROC {told_apart(own[few], strange):.3f}")
    print(
        f"outside: AUROC {auroc:.3f} ({len(own):,} photos of the region, {len(strange):,} of {others.name}); the threshold that"
    )
    refused = [np.mean(scores < known.threshold) for scores in (own, strange)]
    print(f"{known.refused:.0%} of dev refuses {refused[0]:.1%} of test and {refused[1]:.1%} of the others")


def first_is_right(hits: Hits, made: Measured, truth: Truth) -> np.ndarray:
    """Whether the nearest picture of each photo was taken within 25 m of it."""
    first, grid = hits.cells[:, 0], made.fusion.grid
    return great_circle_m(truth.lat_deg, truth.lng_deg, grid.lat_deg[first], grid.lng_deg[first]) <= NEAR_M


def told_apart(own: np.ndarray, strange: np.ndarray) -> float:
    """AUROC of a score that is to be larger for photos of the region."""
    return float(roc_auc_score(np.repeat([1, 0], [len(own), len(strange)]), np.concatenate([own, strange])))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--region", type=Path, required=True)
    parser.add_argument("--others", type=Path)
    parser.add_argument("--pictures", type=int, default=2_000)
    parser.add_argument("--unseen", action="store_true")
    options = parser.parse_args()
    made, division = fitted(options.region, unseen=options.unseen)
    console = Console(width=140)
    for table in made.report.tables:
        console.print(text_table(table))
    ece = made.report.summary["ece"]
    print("expected calibration error:", ", ".join(f"{name} m {value:.3f}" for name, value in ece.items()))
    print("weights:", {name: fit.weight for name, fit in made.fusion.experts.items()}, "prior", made.fusion.prior_weight)
    print(f"{len(division.dev):,} photos of dev, {len(made.fusion.grid):,} cells")
    if options.others is not None and made.networks:
        tell_strangers(made, division.test.truth, options.others, options.pictures)


if __name__ == "__main__":
    main()
