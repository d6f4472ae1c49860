"""Retrieval from scratch on the published Stockholm collection: three seeds against the plain recipe and the thumbnail.

Needs the data root of a finished `geoloc run --config examples/stockholm/geoloc.yaml`, whose catalog, crops and model (seed
0) it uses. Every other model is trained here with the same code, and every descriptor is measured by the same harness on
validation v1: query = newest picture of each place and rotation, gallery = the rest, hit = the same place. Beside this
protocol, `same_place`, stands `unseen_place`, whose gallery is all training pictures and holds none of the places: a hit is
near, not the same.

    python benchmarks/stockholm.py --data-root examples/stockholm/data --seeds 0 1 2 --reference-seeds 0 --pictures out

Without training anything, with the thumbnail alone: `--seeds --reference-seeds`. The folder of `--pictures` gets the year
matrix, the age-gap curve, the atlas and a contact sheet; the sheet shows imagery of its provider, so keep that folder out
of any repository.
"""

from __future__ import annotations

import argparse
import datetime as dt
import statistics
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.evaluation.baselines import Embeds, ThumbnailEncoder, embed_crops
from geoloc_dagster.evaluation.further import Further, measure_further
from geoloc_dagster.evaluation.protocol import Vectors, split_rows
from geoloc_dagster.evaluation.recipe import region_outlines
from geoloc_dagster.evaluation.reports import compare, results_table, summarise
from geoloc_dagster.evaluation.retrieval import RetrievalReport, evaluate
from geoloc_dagster.evaluation.run import credit, query_sheet
from geoloc_dagster.evaluation.unseen import unseen_gallery
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.learning.encoder import load_encoder
from geoloc_dagster.learning.recipe import Recipe, load_recipe
from geoloc_dagster.learning.training import train
from geoloc_dagster.storage import read_json, read_parquet, write_bytes, write_json

EXAMPLE = Path(__file__).parents[1] / "examples" / "stockholm"
SPLIT = "test"
LEARNED = ("train", "dev")  # in the end recipes learn from both, so both are the gallery of other places
THUMBNAIL = "thumbnail 24x24"


@dataclass(frozen=True)
class Measured:
    """One trained model on the test split."""

    name: str
    seed: int
    minutes: float
    report: RetrievalReport
    folder: Path

    @property
    def recall(self) -> float:
        """R@1 at the same place."""
        return self.report.same_place["recall@1"].value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, default=EXAMPLE / "data")
    parser.add_argument("--recipe", default="retrieval")
    parser.add_argument("--reference", default="retrieval_plain")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--reference-seeds", type=int, nargs="*", default=[0])
    parser.add_argument("--out", type=Path, help="JSON of every figure.")
    parser.add_argument("--pictures", type=Path, help="Folder for charts, the atlas and a contact sheet; not in a repository.")
    arguments = parser.parse_args()

    layout = Layout(arguments.data_root)
    catalog = read_parquet(layout.catalog)
    ours = load_recipe(arguments.recipe, EXAMPLE)
    reference = load_recipe(arguments.reference, EXAMPLE)
    reference = reference.model_copy(update={"data": reference.data.model_copy(update={"splits": ours.data.splits})})
    models = [measure(ours.with_seed(seed), catalog, layout) for seed in arguments.seeds]
    references = [measure(reference.with_seed(seed), catalog, layout) for seed in arguments.reference_seeds]
    rows = split_rows(catalog, SPLIT)
    thumbnail = evaluate_vectors(ThumbnailEncoder(), catalog, rows, layout)
    report(models, references, thumbnail, arguments.out)
    further(models, thumbnail, catalog, rows, layout, arguments.pictures)


def measure(recipe: Recipe, catalog: pa.Table, layout: Layout) -> Measured:
    """Train the recipe unless a model of exactly this recipe and seed is there, and measure it."""
    folder = layout.root / "benchmarks" / f"{recipe.name}-seed{recipe.seed}"
    places = [layout.checkpoints / recipe.name, folder]
    found = [path.parent for place in places for path in place.glob("*/training.json") if same(path.parent, recipe)]
    if not found:
        print(f"training {recipe.name}, seed {recipe.seed} …", flush=True)
        found = [train(recipe, catalog, layout.crops, folder, progress=Dots()).folder]
    training = read_json(found[0] / "training.json")
    rows = split_rows(catalog, SPLIT)
    measured = evaluate_vectors(load_encoder(found[0]), catalog, rows, layout)
    result = Measured(recipe.name, recipe.seed, float(training["seconds"]) / 60, measured, found[0])
    print(f"{recipe.name} seed {recipe.seed}: R@1 {result.recall:.3f} after {result.minutes:.1f} min", flush=True)
    return result


def middle(models: list[Measured]) -> Measured | None:
    """The one of median recall; None where nothing was trained."""
    ordered = sorted(models, key=lambda model: model.recall)
    return ordered[len(ordered) // 2] if ordered else None


def further(
    models: list[Measured], thumbnail: RetrievalReport, catalog: pa.Table, rows: pa.Table, layout: Layout, out: Path | None
) -> None:
    """Print unseen places, years and districts of the median seed, or of the thumbnail alone; write the pictures."""
    median = middle(models)
    encoders: dict[str, Embeds] = {THUMBNAIL: ThumbnailEncoder()}
    if median is not None:
        encoders = {f"{median.name}, seed {median.seed}": load_encoder(median.folder), **encoders}
    name, shown = next(iter(encoders)), thumbnail if median is None else median.report
    gallery = unseen_gallery(catalog, SPLIT, LEARNED)
    names = [*rows["capture_id"].to_pylist(), *gallery["capture_id"].to_pylist()]
    vectors: dict[str, Vectors] = {label: embed_crops(one, layout.crops, names) for label, one in encoders.items()}
    outlines = region_outlines(load_settings(EXAMPLE / "geoloc.yaml", data_root=layout.root), catalog)
    found = measure_further(
        catalog, rows, shown, vectors, gallery, outlines, described="usable training pictures", bootstrap=2000
    )
    print(found.markdown())
    if out is not None:
        write_pictures(found, name, shown, rows, layout, out)


def write_pictures(found: Further, name: str, shown: RetrievalReport, rows: pa.Table, layout: Layout, out: Path) -> None:
    """The charts and the atlas, which show no imagery, and the contact sheet, which does."""
    geometry = read_boundary(layout.boundary).geometry
    pictures = found.pictures(name, geometry, "Computed from street views: " + credit(rows))
    pictures["sheet.jpg"] = query_sheet(shown, rows, layout.crops, title=f"{name}: nearest pictures")
    for file, content in pictures.items():
        write_bytes(out / file, content)
    found.write_atlas(out)
    print(f"wrote {', '.join([*pictures, 'atlas.parquet'])} below {out}")


def same(folder: Path, recipe: Recipe) -> bool:
    return load_encoder(folder).recipe.recipe_hash() == recipe.recipe_hash()


def evaluate_vectors(encoder: Embeds, catalog: pa.Table, rows: pa.Table, layout: Layout) -> RetrievalReport:
    names = rows["capture_id"].to_pylist()
    return evaluate(embed_crops(encoder, layout.crops, names).aligned(names), rows, bootstrap=2000, seed=0)


def report(models: list[Measured], references: list[Measured], thumbnail: RetrievalReport, out: Path | None) -> None:
    """Print the tables, and the paired bootstrap by place of the median seed against each baseline."""
    reports = {f"{m.name}, seed {m.seed}, {m.minutes:.1f} min": m.report for m in [*models, *references]}
    print(results_table(reports | {THUMBNAIL: thumbnail}))
    median = middle(models)
    if median is None:
        return
    print(f"median R@1 over {len(models)} seeds: {statistics.median(m.recall for m in models):.4f}")
    gains = {}
    for name, other in [*((f"{r.name} seed {r.seed}", r.report) for r in references), ("thumbnail", thumbnail)]:
        gain = compare(median.report.queries, other.queries, n=10_000)
        gains[name] = gain.as_dict()
        print(f"median seed above {name}: {gain.difference:+.3f} (95 % {gain.low:+.3f} to {gain.high:+.3f})")
    for title, groups in (
        ("year", median.report.by_year),
        ("district", median.report.by_district),
        ("rows", median.report.variants),
    ):
        print(f"\nmedian seed by {title}")
        for key, group in groups.items():
            share = group.recall["recall@1"]
            print(f"  {key:>16}  R@1 {share.value:.3f}  ({group.n_queries} queries, {group.n_places} places)")
    if out is not None:
        figures = {f"{m.name}-seed{m.seed}": {"minutes": m.minutes, **summarise(m.report)} for m in [*models, *references]}
        stamp = dt.datetime.now(dt.UTC).date().isoformat()
        write_json(out, {"date": stamp, "models": figures, "thumbnail": summarise(thumbnail), "gains": gains})


class Dots:
    """A line of progress every tenth of the way."""

    def __init__(self) -> None:
        self.next = 0.1  # share of the way at which the next line is due

    def __call__(self, done: int, total: int) -> None:
        """Called after each of `total` steps."""
        if done / total >= self.next:
            print(f"  {done:,} of {total:,} steps", flush=True)
            self.next += 0.1


if __name__ == "__main__":
    main()
