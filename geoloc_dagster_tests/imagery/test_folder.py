"""Reading an existing collection from folders and tar files, trusting nothing in them."""

from __future__ import annotations

import asyncio
import calendar
import datetime as dt
import os
import pickle
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoloc_dagster.errors import CollectionSourceError, UnsafeArchiveError, UnsafeFileError
from geoloc_dagster.imagery.folder import FolderProvider, PictureName
from geoloc_dagster.imagery.provider import Capture, Failure, Location, Negative, Panorama
from geoloc_dagster_tests.imagery.pictures import TERMS, file_name, files_of, jpeg, places, write_folder, write_tar


async def everything(provider: FolderProvider, locations: list[Location]) -> list[Capture | Failure | Negative]:
    answers: list[Capture | Failure | Negative] = []
    async for found in provider.find(locations):
        if isinstance(found, Panorama):
            for panorama in await provider.history(found):
                answers += [answer async for answer in provider.capture(panorama, panorama.views)]
        else:
            answers.append(found)
    return answers


def pictures(provider: FolderProvider, locations: list[Location]) -> dict[str, bytes]:
    captures = [answer for answer in asyncio.run(everything(provider, locations)) if isinstance(answer, Capture)]
    return {str(capture.source_url): capture.image for capture in captures}


@given(
    st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    st.integers(0, 3),
    st.integers(0, 9999),
    st.dates(dt.date(1900, 1, 1), dt.date(2100, 1, 1)),
)
def test_every_name_in_the_naming_is_read_back(location: str, rotation: int, n: int, day: dt.date):
    name = PictureName.parse(file_name(location, rotation, n, f"{calendar.month_name[day.month]} {day.year}"))
    assert name == PictureName(location, rotation, n, day.replace(day=1), "2024-01-03 20:40:28.529560")


@pytest.mark.parametrize(
    "name",
    [
        "774_4_2_July 2017_x.jpg",  # a fifth rotation
        "774_2_2_Juli 2017_x.jpg",  # not English
        "774_2_2_2017-07_x.jpg",
        "774_2_July 2017_x.jpg",
        "774_2_2_July 2017.jpg",
        "774_2_2_July 0017_x.jpg",
        "../774_2_2_July 2017_x.jpg",
        "774_٣_2_July 2017_x.jpg",  # a digit, but not one of ours
        "774_2_2_July 2017_x.jpg.exe",
    ],
)
def test_other_names_are_not_guessed(name: str):
    assert PictureName.parse(name) is None


def test_a_tar_and_its_folder_give_the_same_captures(tmp_path: Path):
    files = files_of(9)
    folder = FolderProvider([write_folder(tmp_path / "a" / "city", files)], TERMS)
    archive = FolderProvider([write_tar(tmp_path / "b" / "city.tar", files)], TERMS)
    from_folder, from_archive = (asyncio.run(everything(provider, places(10))) for provider in (folder, archive))
    assert from_folder == from_archive
    assert pictures(archive, places(10)) == {f"city/{name}": content for name, content in files.items()}


def test_panoramas_come_newest_first_and_views_by_rotation(tmp_path: Path):
    provider = FolderProvider([write_tar(tmp_path / "city.tar", files_of(1))], TERMS)
    answers = asyncio.run(everything(provider, places(2)))
    order = [(answer.panorama.captured_on.year, answer.view.rotation) for answer in answers[:-1]]  # type: ignore[union-attr]
    assert order == [(year, rotation) for year in (2022, 2016, 2011) for rotation in range(4)]
    assert answers[-1] == Negative(places(2)[1], "no pictures in the collection")


def test_two_scrapes_of_one_view_are_two_captures(tmp_path: Path):
    early, late = (file_name("0", 1, 0, "May 2011", when) for when in ("2024-01-03 20", "2024-01-04 11"))
    source = write_tar(tmp_path / "city.tar", {late: jpeg(2), early: jpeg(1)})
    captures = asyncio.run(everything(FolderProvider([source], TERMS), places(1)))
    variants = {capture.panorama.variant: capture.image for capture in captures}  # type: ignore[union-attr]
    assert variants == {"0": jpeg(1), "0#2": jpeg(2)}


def test_several_sources_are_told_apart(tmp_path: Path):
    sources = [write_tar(tmp_path / f"{name}.tar", files_of(1, dates=1)) for name in ("v1", "v2")]
    captures = asyncio.run(everything(FolderProvider(sources, TERMS), places(1)))
    assert [capture.panorama.source for capture in captures] == ["v1"] * 4 + ["v2"] * 4  # type: ignore[union-attr]
    with pytest.raises(CollectionSourceError, match="same name"):
        FolderProvider([tmp_path / "x" / "v1.tar", tmp_path / "v1.tar"], TERMS)


def test_an_archive_is_listed_once_and_again_when_it_changed(tmp_path: Path, monkeypatch):
    opened: list[str] = []
    real = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *args, **kwargs: opened.append(str(args[0])) or real(*args, **kwargs))
    source = write_tar(tmp_path / "city.tar", files_of(1))
    opened.clear()
    provider = FolderProvider([source], TERMS)
    for _ in range(3):
        assert len(pictures(provider, places(2))) == 12
    assert len(opened) == 1
    write_tar(source, files_of(2))
    assert len(pictures(provider, places(2))) == 24


def test_an_archive_that_changes_while_it_is_read_gives_failures_not_wrong_bytes(tmp_path: Path):
    source = write_tar(tmp_path / "city.tar", files_of(2))
    provider = FolderProvider([source], TERMS)

    async def swap_in_the_middle() -> list[Capture | Failure]:
        panoramas = [found async for found in provider.find(places(2))]
        write_tar(source, {f"elsewhere/{name}": content[::-1] for name, content in files_of(2).items()})
        first = panoramas[0]
        assert isinstance(first, Panorama)
        return [answer async for answer in provider.capture(first, first.views)]

    answers = asyncio.run(swap_in_the_middle())
    assert [(type(answer), answer.kind, answer.retryable) for answer in answers] == [(Failure, "unreadable", True)] * 4  # type: ignore[union-attr]


def test_other_files_are_left_alone(tmp_path: Path):
    files = files_of(1, dates=1)
    others = {"README.txt": b"hello", ".DS_Store": b"x", "__MACOSX/000/._774.jpg": b"x", "log.pkl": pickle.dumps([1])}
    assert len(pictures(FolderProvider([write_folder(tmp_path / "city", files | others)], TERMS), places(1))) == 4


def test_a_collection_laid_out_otherwise_names_the_first_files(tmp_path: Path):
    source = write_folder(tmp_path / "city", files_of(1, dates=1) | {f"IMG_{n:04d}.jpg": jpeg(n) for n in range(9)})
    with pytest.raises(CollectionSourceError, match=r"9 of 13 pictures .*'IMG_0000.jpg', 'IMG_0001.jpg', 'IMG_0002.jpg'\)"):
        FolderProvider([source], TERMS).location_ids()


def link(kind: bytes, name: str, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (tarfile.TarInfo("../../etc/cron.d/0_0_0_May 2011_x.jpg"), "points outside it: '../../etc"),
        (tarfile.TarInfo("000/../../0_0_0_May 2011_x.jpg"), "points outside it"),
        (tarfile.TarInfo("/etc/0_0_0_May 2011_x.jpg"), "points outside it: '/etc"),
        (link(tarfile.SYMTYPE, "000/0_0_0_May 2011_x.jpg", "/etc/passwd"), "link: .*-> '/etc/passwd'"),
        (link(tarfile.LNKTYPE, "000/0_0_0_May 2011_x.jpg", "../secret"), "link"),
        (link(tarfile.CHRTYPE, "000/0_0_0_May 2011_x.jpg"), "no plain file"),
        (link(tarfile.BLKTYPE, "000/disk"), "no plain file"),
        (link(tarfile.FIFOTYPE, "000/0_0_0_May 2011_x.jpg"), "no plain file"),
    ],
)
def test_an_unsafe_archive_is_refused_before_anything_is_read(tmp_path: Path, entry: tarfile.TarInfo, said: str):
    source = write_tar(tmp_path / "city.tar", files_of(1), extra=(entry,))
    provider = FolderProvider([source], TERMS)
    with pytest.raises(UnsafeArchiveError, match=said) as error:
        pictures(provider, places(1))
    assert str(source) in str(error.value)


def test_pickles_are_never_opened(tmp_path: Path):
    for name, protocol in (("frames.pkl", 0), ("frames.tar", 4)):
        (tmp_path / name).write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
        with pytest.raises(UnsafeFileError, match="pickle"):
            FolderProvider([tmp_path / name], TERMS).location_ids()


def test_broken_or_missing_sources_are_said(tmp_path: Path):
    whole = write_tar(tmp_path / "whole.tar", files_of(4))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    squeezed = tmp_path / "squeezed.tar"
    with tarfile.open(squeezed, "w:gz") as archive:
        archive.add(whole, "x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "html.tar").write_bytes(b"<html>sign in to download</html>" * 100)
    os.mkfifo(tmp_path / "pipe")
    said = {
        "missing.tar": "does not exist",
        "cut.tar": "not a complete, uncompressed tar|cut short",
        "squeezed.tar": "not a complete, uncompressed tar",
        "empty": "0 files but no picture",
        "empty.tar": "not a complete, uncompressed tar",
        "html.tar": "not a complete, uncompressed tar",
        "pipe": "neither a folder nor a file",
    }
    for name, words in said.items():
        with pytest.raises(CollectionSourceError, match=words):
            FolderProvider([tmp_path / name], TERMS).location_ids()
    with pytest.raises(CollectionSourceError, match="no folder or archive"):
        FolderProvider([], TERMS)


def test_a_picture_replaced_by_a_pipe_does_not_hang(tmp_path: Path):
    source = write_folder(tmp_path / "city", files_of(1, dates=1))
    provider = FolderProvider([source], TERMS)
    assert provider.location_ids() == {"0"}
    victim = min(source.rglob("*.jpg"))
    folder_times = victim.parent.stat()
    victim.unlink()
    os.mkfifo(victim)
    os.utime(victim.parent, ns=(folder_times.st_atime_ns, folder_times.st_mtime_ns))  # the listing still looks current
    answers = asyncio.run(everything(provider, places(1)))
    assert [type(answer) for answer in answers].count(Failure) == 1
    assert len(answers) == 4
