"""`geoloc cells …` as a person types it: what is printed, what is written, and one clear line where something is wrong."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from geoloc_dagster import cli
from geoloc_dagster.geo import s2
from geoloc_dagster.geo.distance import great_circle_m
from geoloc_dagster.geo.partitioning import DROPPED, LevelRule, partition
from geoloc_dagster.geo.partitioning_folder import read_partitioning
from geoloc_dagster_tests.geo.test_partitioning import clustered

HEADER = "IMG_ID,AUTHOR,LAT,LON"
RULES = [LevelRule("coarse", 5, 100), LevelRule("middle", 5, 40), LevelRule("fine", 5, 15)]
LEVELS = ["--img-min", "5", "--img-max", "100,40,15"]


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def geoloc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line, in the folder of the test."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["geoloc", "cells", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ran(ended.value.code if isinstance(ended.value.code, int) else 0, *capsys.readouterr())

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """3,000 photos in the columns of MP-16."""
    lat, lng = clustered(3_000, 1)
    path = tmp_path / "photos.csv"
    lines = [f"ab/{n:04d}.jpg,me,{a!r},{b!r}" for n, (a, b) in enumerate(zip(lat.tolist(), lng.tolist(), strict=True))]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def one_line(ran: Ran, code: str) -> str:
    assert ran.code == 2
    (line,) = ran.err.strip().splitlines()
    assert line.startswith(f"error {code} ")
    return line


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


class TestCreate:
    def test_makes_the_cells_of_a_file_and_says_what_it_made(self, geoloc: Run, photos: Path) -> None:
        ran = geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        assert ran.code == 0, ran.err
        expected = partition(*clustered(3_000, 1), RULES)
        made = read_partitioning(Path("cells"))
        assert made.fingerprint == expected.fingerprint
        assert f"fingerprint {expected.fingerprint}" in ran.out
        for level in expected.levels:
            row = next(line for line in ran.out.splitlines() if f" {level.name} " in line)
            cells, _, kept, dropped = (cell.strip() for cell in row.split("│")[2:6])
            assert (cells, kept) == (f"{len(level):,}", f"{level.counts.sum():,}")
            assert dropped.startswith(f"{3_000 - level.counts.sum():,} (")
        said = json.loads(Path("cells/partitioning.json").read_text())
        assert said["facts"] == {"dataset": "photos.csv", "photos": 3_000, "bad_rows": 0}
        assert said["rules"] == {"coarse": [5, 100], "middle": [5, 40], "fine": [5, 15]}

    def test_outlines_open_as_a_map(self, geoloc: Run, photos: Path) -> None:
        import geopandas as gpd

        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        frame = gpd.read_parquet("cells/cells.parquet")
        fine = read_partitioning(Path("cells")).levels[-1]
        drawn = frame[frame["level"] == "fine"]
        assert drawn["hex_id"].tolist() == s2.tokens(fine.ids)
        assert frame.crs.to_epsg() == 4326
        assert frame.geometry.is_valid.all()

    @pytest.mark.parametrize(
        ("options", "names"),
        [
            (["--img-max", "100", "--img-max", "40", "--img-max", "15"], ["coarse", "middle", "fine"]),
            (["--img_max", "100"], ["cells"]),
            (["--img-max", "100 15"], ["coarse", "fine"]),
            (["--img-max", "100,60,40,15"], ["max100", "max60", "max40", "max15"]),
            (["--level", "city=100", "--level", "block=15"], ["city", "block"]),
        ],
    )
    def test_levels_are_named(self, geoloc: Run, photos: Path, options: list[str], names: list[str]) -> None:
        ran = geoloc("create", "--dataset", photos, "--img_min", 5, *options, "--output", "cells")
        assert ran.code == 0, ran.err
        assert [level.name for level in read_partitioning(Path("cells")).levels] == names

    def test_bounds_of_s2_levels_are_kept(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--lvl-min", 4, "--lvl-max", 6, "--output", "cells")
        levels = np.concatenate([s2.levels(level.ids) for level in read_partitioning(Path("cells")).levels])
        assert (levels.min(), levels.max()) == (4, 6)

    def test_other_columns_delimiters_and_parquet_make_the_same_cells(self, geoloc: Run, photos: Path) -> None:
        text = photos.read_text()
        Path("semicolons.csv").write_text(text.replace(",", ";").replace(HEADER.replace(",", ";"), "where;who;north;east"))
        Path("tabs.tsv").write_text("\ufeff" + text.replace(",", "\t"))
        pq.write_table(pa_csv.read_csv(photos), "photos.parquet")
        named = ["--column-lat", "north", "--column_lng", "east", "--column-img-path", "where"]
        prints = {
            geoloc("create", "--dataset", file, *LEVELS, *more, "--output", "cells").out.split("fingerprint ")[1].split()[0]
            for file, more in [(photos, []), ("semicolons.csv", named), ("tabs.tsv", []), ("photos.parquet", [])]
        }
        assert prints == {partition(*clustered(3_000, 1), RULES).fingerprint}

    def test_rows_that_are_not_right_are_named_and_counted(self, geoloc: Run, photos: Path) -> None:
        lines = photos.read_text().splitlines()
        lines[5] = "ab/x.jpg,me,north,18"
        lines[7] = "ab/y.jpg,me,91,18"
        lines[9] = "ab/z.jpg,me"
        lines[11] = "ab/w.jpg,me,,"
        photos.write_text("\n".join(lines) + "\n")
        ran = geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        assert ran.code == 0
        assert "photos.csv line 6: its position ('north', '18') is none on the globe (ab/x.jpg)" in ran.err
        assert "photos.csv line 8: its position ('91', '18') is none on the globe (ab/y.jpg)" in ran.err
        assert "photos.csv line 10: it has 2 columns, not 4" in ran.err
        assert "photos.csv line 12: its position ('', '') is none on the globe (ab/w.jpg)" in ran.err
        assert "rows without a position that can be used: 4 of 3,000" in ran.err
        assert "2,996 photos of photos.csv" in ran.out

    def test_many_bad_rows_are_named_in_part_and_all_when_asked(self, geoloc: Run, photos: Path) -> None:
        with photos.open("a") as stream:
            stream.writelines(f"ab/bad{n}.jpg,me,95,0\n" for n in range(25))
        short = geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells").err
        assert short.count("is none on the globe") == 10
        assert "and 15 more; --verbose names them" in short
        whole = geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells", "--verbose").err
        assert whole.count("is none on the globe") == 25
        assert "line 3026" in whole

    def test_a_folder_of_something_else_is_left_alone(self, geoloc: Run, photos: Path) -> None:
        Path("holiday").mkdir()
        Path("holiday/photo.jpg").write_bytes(b"mine")
        line = one_line(geoloc("create", "--dataset", photos, *LEVELS, "--output", "holiday"), "GEO-203")
        assert "holds something that is no partitioning" in line
        assert Path("holiday/photo.jpg").read_bytes() == b"mine"

    @pytest.mark.parametrize(
        ("options", "code", "said"),
        [
            (["--img-min", "9", "--img-max", "8"], "GEO-203", "at most img_max"),
            (["--img-max", "100,200"], "GEO-203", "gets smaller"),
            (["--img-min", "9000", "--img-max", "9000"], "GEO-203", "has no cells"),
            (["--lvl-min", "9", "--lvl-max", "8"], "GEO-203", "from 9 to 8"),
            (["--column-lat", "north"], "GEO-313", "has no column 'north'"),
        ],
    )
    def test_what_does_not_fit_is_one_line_and_writes_nothing(
        self, geoloc: Run, photos: Path, options: list[str], code: str, said: str
    ) -> None:
        assert said in one_line(geoloc("create", "--dataset", photos, *options, "--output", "cells"), code)
        assert sorted(path.name for path in Path().iterdir()) == ["photos.csv"]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "is missing"),
            (b"", "is empty"),
            (b"a,b\n1,2\n", "no column of latitudes and longitudes"),
            (b"lat,lat,lng\n1,2,3\n", "two columns of one name"),
            (b"PAR1 broken", "cannot be read as Parquet"),
            (b"\0\1\2\3", "neither CSV nor Parquet"),
        ],
    )
    def test_a_file_that_is_no_list_is_one_line(self, geoloc: Run, content: bytes | None, said: str) -> None:
        if content is not None:
            Path("list.csv").write_bytes(content)
        assert said in one_line(geoloc("create", "--dataset", "list.csv", "--output", "cells"), "GEO-313")

    @pytest.mark.parametrize("options", [["--img-max", "many"], ["--level", "=5"], ["--level", "a=5", "--img-max", "5"], []])
    def test_wrong_usage_exits_with_2(self, geoloc: Run, photos: Path, options: list[str]) -> None:
        ran = geoloc("create", "--dataset", photos, *options)  # the last lacks --output
        assert ran.code == 2
        assert "Usage" in ran.err


class TestAssign:
    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_each_photo_gets_its_class_and_keeps_its_columns(self, geoloc: Run, photos: Path, suffix: str) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        ran = geoloc("assign", "--dataset", photos, "--cells", "cells", "--output", f"out.{suffix}")
        assert ran.code == 0, ran.err
        table = pq.read_table("out.parquet") if suffix == "parquet" else pa_csv.read_csv("out.csv")
        assert table.column_names == [*HEADER.split(","), "coarse", "middle", "fine"]
        assert table["IMG_ID"].to_pylist() == [row["IMG_ID"] for row in rows_of(photos)]
        made = read_partitioning(Path("cells"))
        leaves = s2.leaf_ids(*clustered(3_000, 1))
        for level in made.levels:
            assert table[level.name].to_pylist() == level.classes(leaves).tolist()
        if suffix == "csv":  # positions stand there as they did
            assert Path("out.csv").read_text().splitlines()[1].startswith(photos.read_text().splitlines()[1])

    def test_says_how_near_a_faultless_model_would_come(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        ran = geoloc("assign", "--dataset", photos, "--cells", "cells", "--output", "out.csv")
        lat, lng = clustered(3_000, 1)
        fine = read_partitioning(Path("cells")).levels[-1]
        classes = fine.classes(s2.leaf_ids(lat, lng))
        far_m = great_circle_m(lat, lng, fine.lat_deg[classes], fine.lng_deg[classes])
        near = [np.mean((classes != DROPPED) & (far_m <= 1_000 * radius)) for radius in (1, 25, 200, 750, 2_500)]
        row = next(line for line in ran.out.splitlines() if " fine " in line)
        assigned, *shares = (cell.strip() for cell in row.split("│")[2:-1])
        assert assigned == f"{np.count_nonzero(classes != DROPPED):,} ({np.mean(classes != DROPPED):.1%})"
        assert shares == [f"{share:.1%}" for share in near]

    def test_a_photo_without_a_position_stays_without_a_class(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        Path("few.csv").write_text(f'{HEADER}\nab/0000.jpg,"me, and\nyou",none,0\n')
        ran = geoloc("assign", "--dataset", "few.csv", "--cells", "cells", "--output", "out.csv")
        (row,) = rows_of(Path("out.csv"))
        assert [row[name] for name in ("coarse", "middle", "fine")] == ["-1", "-1", "-1"]
        assert row["AUTHOR"] == "me, and\nyou"
        assert "few.csv line 2: its position ('none', '0')" in ran.err

    def test_published_files_give_their_own_labels_and_their_defects_are_named(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        made = read_partitioning(Path("cells"))
        fine = made.levels[-1]
        labels = np.random.default_rng(2).permutation(len(fine)) + 100
        tokens = s2.tokens(fine.ids)
        tokens[4] = "5E+077"
        columns = (labels, tokens, fine.counts, fine.lat_deg, fine.lng_deg)
        lines = [",".join(str(value) for value in row) for row in zip(*columns, strict=True)]
        Path("cells_5_15.csv").write_text("\n".join([Path("cells/fine.csv").read_text().splitlines()[0], *lines]) + "\n")
        ran = geoloc("assign", "--dataset", photos, "--cells", "cells_5_15.csv", "--output", "out.csv")
        assert "cells_5_15.csv line 6: '5E+077' is a number in scientific notation; left out; write the token as text" in ran.err
        expected = np.append(labels, -1)[fine.classes(s2.leaf_ids(*clustered(3_000, 1)))]
        expected[expected == labels[4]] = -1
        assert [int(row["5_15"]) for row in rows_of(Path("out.csv"))] == expected.tolist()

    def test_what_cannot_be_is_one_line_and_leaves_nothing(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        before = sorted(path.name for path in Path().iterdir())
        assign = ["assign", "--dataset", photos, "--cells"]
        assert "ends neither in .csv nor in .parquet" in one_line(geoloc(*assign, "cells", "--output", "out.txt"), "GEO-313")
        assert "neither a folder nor a CSV of cells" in one_line(geoloc(*assign, "none", "--output", "out.csv"), "GEO-203")
        Path("photos.csv").write_text(f"{HEADER},fine\n1,me,2,3,4\n")
        assert "has a column 'fine' already" in one_line(geoloc(*assign, "cells", "--output", "out.csv"), "GEO-313")
        Path("photos.csv").write_text(f"{HEADER}\n")
        assert "has no rows" in one_line(geoloc(*assign, "cells", "--output", "out.csv"), "GEO-313")
        assert sorted(path.name for path in Path().iterdir()) == before

    def test_a_changed_folder_is_refused(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        with Path("cells/fine.csv").open("a") as stream:
            stream.write("\n")
        ran = geoloc("assign", "--dataset", photos, "--cells", "cells", "--output", "out.csv")
        assert "fine.csv has changed" in one_line(ran, "GEO-503")


class TestFilter:
    def test_photos_whose_picture_came_stay(self, geoloc: Run, photos: Path) -> None:
        Path("pictures/ab").mkdir(parents=True)
        for n in (3, 5, 8):
            Path(f"pictures/ab/{n:04d}.jpg").write_bytes(b"picture")
        Path("pictures/ab/0009.txt").write_text("none")
        ran = geoloc("filter", "--dataset", photos, "--images", "pictures", "--output", "out.csv")
        assert ran.code == 0, ran.err
        assert [row["IMG_ID"] for row in rows_of(Path("out.csv"))] == ["ab/0003.jpg", "ab/0005.jpg", "ab/0008.jpg"]
        assert "3 of 3,000 photos kept" in ran.out
        assert "no picture: 2,997" in ran.out

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            (
                "downloads.csv",
                "id,file,kind,detail,final\nab_0003,ab/ab_0003.jpg,ok,,1\nab_0004,,gone,,1\nab_0005,xy/ab_0005.jpg,ok,,1\n",
            ),
            ("came.txt", "ab/0003.jpg\nab/0005.jpg\n"),
            ("came.csv", "size,IMG_ID\n5,ab/0003.jpg\n7,ab/0005.jpg\n"),
        ],
    )
    def test_a_report_or_a_list_says_which_came(self, geoloc: Run, photos: Path, name: str, content: str) -> None:
        Path(name).write_text(content)
        geoloc("filter", "--dataset", photos, "--images", name, "--output", "out.csv")
        assert [row["IMG_ID"] for row in rows_of(Path("out.csv"))] == ["ab/0003.jpg", "ab/0005.jpg"]

    def test_a_list_without_positions_is_filtered_by_pictures_too(self, geoloc: Run) -> None:
        Path("urls.csv").write_text("id,url\na,https://host.example/a.jpg\nb,https://host.example/b.jpg\n")
        Path("came.txt").write_text("b\n")
        ran = geoloc("filter", "--dataset", "urls.csv", "--images", "came.txt", "--output", "out.csv")
        assert (ran.code, ran.err) == (0, "")
        assert Path("out.csv").read_text() == "id,url\nb,https://host.example/b.jpg\n"

    def test_photos_in_a_cell_of_every_level_stay_and_reasons_add_up(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        with photos.open("a") as stream:
            stream.write("ab/nowhere.jpg,me,,\nab/short.jpg\n")
        ran = geoloc("filter", "--dataset", photos, "--cells", "cells", "--output", "out.csv")
        made, leaves = read_partitioning(Path("cells")), s2.leaf_ids(*clustered(3_000, 1))
        inside = np.all([level.classes(leaves) != DROPPED for level in made.levels], axis=0)
        kept = [row["IMG_ID"] for row in rows_of(Path("out.csv"))]
        assert kept == [f"ab/{n:04d}.jpg" for n in np.flatnonzero(inside)]
        counts = dict(line.rsplit(": ", 1) for line in ran.out.splitlines() if ": " in line)
        assert counts["no position"] == "1"
        assert counts["too few or too many columns"] == "1"
        assert sum(int(count.replace(",", "")) for count in counts.values()) == 3_002 - len(kept)

    def test_nothing_to_filter_by_is_wrong_usage(self, geoloc: Run, photos: Path) -> None:
        ran = geoloc("filter", "--dataset", photos, "--output", "out.csv")
        assert ran.code == 2
        assert "say what to filter by" in ran.err


class TestShow:
    def test_shows_figures_fingerprint_and_that_levels_fit(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        ran = geoloc("show", "cells")
        made = read_partitioning(Path("cells"))
        assert f"fingerprint {made.fingerprint}" in ran.out
        assert "every cell of `fine` lies in one cell of each other level" in ran.out
        assert geoloc("show", "cells/fine.csv").code == 0

    def test_json_holds_the_same(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        said = json.loads(geoloc("show", "cells", "--json").out)
        made = read_partitioning(Path("cells"))
        assert said["fingerprint"] == made.fingerprint
        assert [(level["name"], level["cells"], level["photos"]) for level in said["levels"]] == [
            (level.name, len(level), int(level.counts.sum())) for level in made.levels
        ]
        areas = s2.areas_m2(made.levels[0].ids) / 1e6
        assert said["levels"][0]["largest_km2"] == pytest.approx(areas.max())
        assert said["holes"] == []

    def test_holes_and_defects_are_shown(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        lines = Path("cells/coarse.csv").read_text().splitlines()
        crowded = int(np.bincount(read_partitioning(Path("cells")).parents[:, 0]).argmax())
        label, _, *rest = lines[crowded + 1].split(",")
        lines[crowded + 1] = ",".join([label, "5E+077", *rest])
        Path("coarse.csv").write_text("\n".join(lines) + "\n")
        ran = geoloc("show", "coarse.csv", "cells/fine.csv")
        assert ran.code == 0
        assert f"coarse.csv line {crowded + 2}: '5E+077'" in ran.err
        assert "of `fine` in no cell of `coarse`" in ran.err
        assert "every cell" not in ran.out
        assert " coarse " in ran.out.split("rows that are not as they were made")[1]
        said = json.loads(geoloc("show", "coarse.csv", "cells/fine.csv", "--json").out)
        assert [defect["written"] for defect in said["defects"]["coarse"]] == ["5E+077"]
        assert said["holes"][0]["level"] == "coarse"

    def test_a_picture_of_the_globe_and_of_a_city(self, geoloc: Run, photos: Path) -> None:
        geoloc("create", "--dataset", photos, *LEVELS, "--output", "cells")
        assert geoloc("show", "cells", "--picture", "globe.png").code == 0
        rng = np.random.default_rng(4)
        lines = [f"{n},me,{59.33 + a},{18.06 + b}" for n, (a, b) in enumerate(rng.normal(0, 0.02, (2_000, 2)).tolist())]
        Path("city.csv").write_text("\n".join([HEADER, *lines]))
        geoloc("create", "--dataset", "city.csv", *LEVELS, "--lvl-min", 10, "--lvl-max", 20, "--output", "city")
        assert geoloc("show", "city", "--picture", "city.png").code == 0
        sizes = []
        for name in ("globe.png", "city.png"):
            assert Path(name).stat().st_size < 500_000
            with Image.open(name) as picture:
                sizes.append(picture.width / picture.height)
        assert sizes[0] < 1 < sizes[1]  # panels one above the other, and side by side


def test_published_cells_hold_most_of_the_benchmark_photos(geoloc: Run, shared_data: Path) -> None:
    """What a faultless model of these cells reaches on Im2GPS3k."""
    folder = shared_data / "photos"
    cells = [f"--cells={folder / f'cells_50_{most}.csv'}" for most in (5000, 2000, 1000)]
    ran = geoloc("assign", "--dataset", folder / "im2gps3k_places365.csv", *cells, "--output", "out.csv")
    assert ran.code == 0
    shown = [[cell.strip() for cell in row.split("│")[1:-1]] for row in ran.out.splitlines() if "50_" in row]
    assert shown == [
        ["50_5000", "2,996 (100.0%)", "20.0%", "63.4%", "92.4%", "99.6%", "100.0%"],
        ["50_2000", "2,988 (99.7%)", "30.7%", "73.7%", "96.0%", "99.6%", "99.7%"],
        ["50_1000", "2,964 (98.9%)", "38.6%", "79.3%", "97.4%", "98.9%", "98.9%"],
    ]
    assert "left out" not in ran.err
