"""Is it worth choosing what to collect next? The same recall with fewer pictures, by expected gain against rank order.

Emulated cities, each another seed: their places are put into buffers and batches as a region's are. The first batches in rank
order are collected, a model without any training (colours by parts of the picture, `evaluation/colour_histogram.py`) is
evaluated on a third of the photos, and then the rest is collected in either order, batch by batch. After each batch the other
photos are asked: a photo, taken anywhere on a street on any date, is found where the most similar picture was taken within 50 m
of it. The photos that are measured are never seen by the choice.

The constants of `dataset/reach.py` and `dataset/expected_gain.py` were chosen on seed 0, which is not among the measured ones.
Places of equal rank are shuffled by `--ties`, which gives other batches of the same city.

*Hindsight* takes each time the batch after which most of the measured photos are found, which nobody can know: a bound that no
order can be much above, and that chance flatters. *Best for the known photos* takes them likewise for the photos of the
evaluation: what those alone can tell, by trying.

Run `python benchmarks/active_collection.py`; views are kept in `--cache`, and repeated runs take a minute. It prints a table and
draws `benchmarks/figures/active_collection.png`.
"""

from __future__ import annotations

import argparse
import datetime as dt
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from geoloc_dagster.dataset.expected_gain import Pictures, Points, order_by_gain
from geoloc_dagster.dataset.reach import Reach, assumed_reach, learn_reach
from geoloc_dagster.emulator.city import City, Place, Snapshot
from geoloc_dagster.evaluation.colour_histogram import colour_histograms
from geoloc_dagster.geo.buffers import assign_batches, build_buffers
from geoloc_dagster.geo.distance import ecef_m

ORIGIN = (59.3327, 18.0656)
TODAY = dt.date(2026, 11, 1)
HALF_M = 600.0
SPACINGS_M = [100, 75, 60, 50, 45, 35]
BATCH_SIZE = 12
STARTED = 0.25  # of the locations, collected before the choice begins
HEADINGS_DEG = (0.0, 90.0, 180.0, 270.0)
SIDE = 64
PHOTOS = 1200
HIT_M = 50.0
GRID, BINS = 2, 8  # parts of the picture along each side, and steps of each colour
ASKED = 3  # one photo of so many is for the evaluation that the choice rests on
KNOWN, HINDSIGHT = "best for the known photos", "hindsight"
FIGURE = Path(__file__).resolve().parent / "figures" / "active_collection.png"

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Town:
    """One emulated city as arrays: all covered places, those of the buffers with their pictures, and photos that ask."""

    points_m: F64
    locations: pd.DataFrame
    locations_m: F64
    pictures: npt.NDArray[np.uint8]  # (locations, headings, 3, SIDE, SIDE)
    ages: F64
    photos: npt.NDArray[np.uint8]
    photos_m: F64


def make_town(seed: int, cache: Path) -> Town:
    """The town of a seed; drawn once, which takes minutes."""
    city = City(ORIGIN, seed)
    side = HALF_M / 111_320
    places = city.within(ORIGIN[1] - side / np.cos(np.radians(ORIGIN[0])), ORIGIN[0] - side,
                         ORIGIN[1] + side / np.cos(np.radians(ORIGIN[0])), ORIGIN[0] + side)  # fmt: skip
    places = [place for place in places if _past(place)]
    lookups = pd.DataFrame({
        "lookup_id": [str(i) for i in range(len(places))], "lat_deg": [p.lat_deg for p in places],
        "lng_deg": [p.lng_deg for p in places], "pano_id": [str(p.place_id) for p in places], "captured_on": TODAY,
    })  # fmt: skip
    locations = build_buffers(lookups, ORIGIN, SPACINGS_M)
    chosen = [places[int(i)] for i in locations["lookup_id"]]
    rng = np.random.default_rng(seed)
    rest = [place for place in places if str(place.place_id) not in set(locations["pano_id"])]
    asked = [rest[i] for i in rng.permutation(len(rest))[:PHOTOS]]
    dates = [_past(place)[int(rng.integers(len(_past(place))))] for place in asked]
    headings = rng.choice(HEADINGS_DEG, PHOTOS)
    file = cache / f"town-{seed}-{SIDE}-{len(chosen)}-{PHOTOS}.npz"
    if not file.is_file():
        newest = [_past(place)[-1] for place in chosen]
        wanted = [(at, heading) for at in newest for heading in HEADINGS_DEG] + list(zip(dates, headings.tolist(), strict=True))
        drawn = _draw_all(city, wanted)
        views, photos = drawn[: 4 * len(chosen)], drawn[4 * len(chosen) :]
        np.savez(file, views=np.stack(views).reshape(len(chosen), len(HEADINGS_DEG), 3, SIDE, SIDE), photos=np.stack(photos))
    drawn = np.load(file)
    ages = np.array([(TODAY - _past(place)[-1].captured_on).days / 365.25 for place in chosen])
    return Town(
        ecef_m(lookups["lat_deg"], lookups["lng_deg"]), locations, ecef_m(locations["lat_deg"], locations["lng_deg"]),
        drawn["views"], ages, drawn["photos"], ecef_m([d.lat_deg for d in dates], [d.lng_deg for d in dates]),
    )  # fmt: skip


def _past(place: Place) -> list[Snapshot]:
    return [snapshot for snapshot in place.snapshots if snapshot.captured_on < TODAY]


def _draw_all(city: City, wanted: list[tuple[Snapshot, float]]) -> list[npt.NDArray[np.uint8]]:
    """In the order in which they lie, so that the city's caches hold what the next view needs."""
    order = sorted(range(len(wanted)), key=lambda i: (round(wanted[i][0].lat_deg, 3), round(wanted[i][0].lng_deg, 3),
                                                      wanted[i][0].captured_on))  # fmt: skip
    drawn = {i: _draw(city, *wanted[i]) for i in order}
    return [drawn[i] for i in range(len(wanted))]


def _draw(city: City, at: Snapshot, heading_deg: float) -> npt.NDArray[np.uint8]:
    view = city.render(at.lat_deg, at.lng_deg, heading_deg=heading_deg, width=SIDE, height=SIDE, date=at.captured_on)
    return view.rgb.transpose(2, 0, 1)


# --- the simulation -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """Recall on the measured photos after each batch, beside the pictures collected so far."""

    pictures: npt.NDArray[np.int64]
    recall: F64


def batches_of(town: Town, ties: int) -> list[npt.NDArray[np.int64]]:
    """Rows of each batch in rank order; another `ties` shuffles locations within rings of 25 m around the start."""
    rng = np.random.default_rng((17, ties))
    rows = town.locations.assign(row=np.arange(len(town.locations)), ring=town.locations["dist_to_start_m"] // 25)
    rows = rows.assign(chance=rng.random(len(rows)))
    parts: list[pd.DataFrame] = []
    for _, series in rows.groupby("series", sort=False):
        ordered = series.sort_values(["ring", "chance"]) if ties else series.sort_values("rank")
        parts.append(ordered.assign(rank=np.arange(len(ordered))))
    batches = assign_batches(pd.concat(parts), BATCH_SIZE)
    return [group["row"].to_numpy(np.int64) for _, group in batches.groupby("batch", sort=False)]


class Recognition:
    """Which location each photo would be taken for, whatever is collected."""

    def __init__(self, town: Town) -> None:
        locations, headings = town.pictures.shape[:2]
        gallery = colour_histograms(town.pictures.reshape(-1, 3, SIDE, SIDE), grid=GRID, bins=BINS)
        likeness = colour_histograms(town.photos, grid=GRID, bins=BINS) @ gallery.T
        self.likeness = likeness.reshape(len(town.photos), locations, headings).max(axis=2)
        self.apart_m = np.linalg.norm(town.photos_m[:, None] - town.locations_m[None], axis=2)

    def errors_m(self, rows: npt.NDArray[np.int64], photos: npt.NDArray[np.int64]) -> F64:
        """Distance from each photo to the location that it is taken for, among the collected ones."""
        best = self.likeness[np.ix_(photos, rows)].argmax(axis=1)
        return self.apart_m[photos, rows[best]]


def courses(town: Town, ties: int) -> dict[str, Course]:
    """Collect the rest of a town in either order from the same start."""
    batches, recognition = batches_of(town, ties), Recognition(town)
    sizes = np.cumsum([len(rows) for rows in batches])
    started = int(np.searchsorted(sizes, STARTED * sizes[-1])) + 1
    known = np.arange(0, PHOTOS, ASKED)
    measured = np.setdiff1d(np.arange(PHOTOS), known)
    held = np.concatenate(batches[:started])
    orders = {"rank": list(range(started, len(batches)))}
    for name, reach in (
        ("gain, no evaluation", assumed_reach(len(town.points_m))),
        ("gain", _learned(town, recognition, held, known)),
    ):
        points = Points(town.points_m, np.ones(len(town.points_m)), reach)
        candidates = {str(i): Pictures(town.locations_m[batches[i]], town.ages[batches[i]]) for i in orders["rank"]}
        chosen = order_by_gain(points, Pictures(town.locations_m[held], town.ages[held]), candidates)
        orders[name] = [int(one.key) for one in chosen]
    orders[KNOWN] = _by_photos(recognition, batches, started, known)
    orders[HINDSIGHT] = _by_photos(recognition, batches, started, measured)
    return {name: _course(recognition, batches, started, order, measured) for name, order in orders.items()}


def _by_photos(
    recognition: Recognition, batches: list[npt.NDArray[np.int64]], started: int, photos: npt.NDArray[np.int64]
) -> list[int]:
    """Each time the batch that lets most of these photos be found on top, per location, by trying every one."""
    order = list(range(started))
    rest = set(range(started, len(batches)))
    before = 0.0
    while rest:
        held = [batches[i] for i in order]
        recall = {i: float((recognition.errors_m(np.concatenate([*held, batches[i]]), photos) <= HIT_M).mean()) for i in rest}
        best = max(sorted(rest), key=lambda i: (recall[i] - before) / len(batches[i]))
        before = recall[best]
        order.append(best)
        rest.remove(best)
    return order[started:]


def _learned(town: Town, recognition: Recognition, held: npt.NDArray[np.int64], known: npt.NDArray[np.int64]) -> Reach:
    nearest = recognition.apart_m[np.ix_(known, held)].min(axis=1)
    found = recognition.errors_m(held, known) <= HIT_M
    return learn_reach(town.points_m, town.photos_m[known], nearest, found, known.astype(str))


def _course(
    recognition: Recognition,
    batches: list[npt.NDArray[np.int64]],
    started: int,
    order: list[int],
    measured: npt.NDArray[np.int64],
) -> Course:
    pictures, recall = [], []
    for count in range(len(order) + 1):
        rows = np.sort(np.concatenate([batches[i] for i in [*range(started), *order[:count]]]))
        pictures.append(len(rows) * len(HEADINGS_DEG))
        recall.append(float((recognition.errors_m(rows, measured) <= HIT_M).mean()))
    return Course(np.array(pictures), np.array(recall))


def saved(courses_: dict[str, Course], name: str, part: float) -> float:
    """Share of the pictures beyond the start that `name` saves at the recall that rank order has after a part of the rest.

    Recall is made monotone (the best so far) and interpolated between batches.
    """
    rank, other = courses_["rank"], courses_[name]
    wanted_at = rank.pictures[0] + part * (rank.pictures[-1] - rank.pictures[0])
    target = float(np.interp(wanted_at, rank.pictures, np.maximum.accumulate(rank.recall)))
    needed = {key: _pictures_for(one, target) for key, one in (("rank", rank), (name, other))}
    return 1 - (needed[name] - rank.pictures[0]) / max(1.0, needed["rank"] - rank.pictures[0])


def _pictures_for(course: Course, recall: float) -> float:
    best = np.maximum.accumulate(course.recall)
    after = int(np.searchsorted(best, recall))
    if after == 0:
        return float(course.pictures[0])
    if after == len(best):
        return float(course.pictures[-1])
    share = (recall - best[after - 1]) / (best[after] - best[after - 1])
    return float(course.pictures[after - 1] + share * (course.pictures[after] - course.pictures[after - 1]))


def area_gained(courses_: dict[str, Course], name: str) -> float:
    """Mean difference of recall over the whole course, percentage points."""
    rank, other = courses_["rank"], courses_[name]
    at = np.linspace(rank.pictures[0], rank.pictures[-1], 200)
    return float(100 * (np.interp(at, other.pictures, other.recall) - np.interp(at, rank.pictures, rank.recall)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--ties", type=int, default=3, help="orders of ties per city")
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "geoloc-active-collection")
    parser.add_argument("--figure", type=Path, default=FIGURE)
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    found = {(seed, ties): courses(make_town(seed, args.cache), ties) for seed in args.seeds for ties in range(args.ties)}
    names = ["gain, no evaluation", "gain", KNOWN, HINDSIGHT]
    header = "| city | recall at start / end | " + " | ".join(f"{name}: saved at 25 / 50 / 75 %, recall" for name in names) + " |"
    print(header + "\n|---|---|" + "---|" * len(names))
    for seed in args.seeds:
        mine = [found[seed, ties] for ties in range(args.ties)]
        print(f"| {seed} | {_ends(mine)} | " + " | ".join(_figures(mine, name) for name in names) + " |")
    every = list(found.values())
    print(f"| all | {_ends(every)} | " + " | ".join(_figures(every, name) for name in names) + " |")
    for part in (0.25, 0.5, 0.75):
        cities = [float(np.mean([saved(found[seed, ties], "gain", part) for ties in range(args.ties)])) for seed in args.seeds]
        print(f"saved at {part:.0%} of the rest, by city: {', '.join(f'{one:+.0%}' for one in cities)}")
    _draw_figure(found, args.figure)


def _ends(mine: list[dict[str, Course]]) -> str:
    first, last = (float(np.mean([one["rank"].recall[i] for one in mine])) for i in (0, -1))
    return f"{first:.1%} / {last:.1%}"


def _figures(mine: list[dict[str, Course]], name: str) -> str:
    parts = " / ".join(f"{float(np.mean([saved(one, name, part) for one in mine])):+.0%}" for part in (0.25, 0.5, 0.75))
    return f"{parts}, {float(np.mean([area_gained(one, name) for one in mine])):+.1f} points"


def _draw_figure(found: dict[tuple[int, int], dict[str, Course]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    seeds = sorted({seed for seed, _ in found})
    figure, axes = plt.subplots(1, len(seeds), figsize=(3.2 * len(seeds), 3.2), sharey=True, squeeze=False)
    colours = {"rank": "#777777", "gain, no evaluation": "#e0a030", "gain": "#1f6fb4", HINDSIGHT: "#c0392b"}
    for axis, seed in zip(axes[0], seeds, strict=True):
        for (one, _), course in found.items():
            for name, colour in colours.items():
                if one == seed:
                    axis.plot(course[name].pictures, 100 * course[name].recall, color=colour, alpha=0.5, linewidth=1)
        axis.set_title(f"city {seed}", fontsize=9)
        axis.set_xlabel("pictures collected", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0, 0].set_ylabel(f"photos placed within {HIT_M:.0f} m, %", fontsize=8)
    lines = [plt.Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=lines, loc="lower center", ncol=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
