"""The provider of photo lists against the emulated photo host, over real sockets: every oddity has its class."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from geoloc_dagster.emulator.photos import ODDITIES
from geoloc_dagster.emulator.process import EmulatorThread, serve_in_thread
from geoloc_dagster.imagery.addresses import Addresses
from geoloc_dagster.imagery.bulk_channel import BulkChannel
from geoloc_dagster.imagery.channel import ChannelError
from geoloc_dagster.imagery.photo_list import sized
from geoloc_dagster.imagery.photo_table import Photo
from geoloc_dagster.imagery.provider import Capture, CollectionStopped, Failure, RequestFailedError
from geoloc_dagster_tests.emulator.stub_city import ORIGIN, TODAY, StubCity
from geoloc_dagster_tests.imagery.photo_lists import at, fetch, job, photos_of, provider, run


@pytest.fixture(scope="module")
def shared() -> Iterator[EmulatorThread]:
    with serve_in_thread(ORIGIN, seed=7, today=TODAY, city=StubCity()) as emulator:  # type: ignore[arg-type]
        yield emulator


@pytest.fixture
def service(shared: EmulatorThread) -> EmulatorThread:
    shared.set_faults({})
    shared.clear_hits()
    return shared


def asked(service: EmulatorThread, endpoint: str = "photo") -> list[str]:
    return [hit["what"] for hit in service.hits()["requests"] if hit["endpoint"] == endpoint]


def odd(service: EmulatorThread, name: str, **more: Any) -> Photo:
    path = "private/7" if name == "private" else f"odd/{name}"
    return Photo(f"odd_{name}", f"{service.url}/photos/{path}.jpg", *ORIGIN, **more)


def fetch_odd(service: EmulatorThread, folder: Path, name: str, **options: Any) -> Capture | Failure:
    photo = odd(service, name)
    (answer,) = fetch(provider(folder, {photo.photo_id: photo}, **options), photo)
    return answer


# --- good photos ----------------------------------------------------------------------------------------------------
def test_a_photo_is_its_own_place_seen_once_in_its_own_direction(service: EmulatorThread, tmp_path: Path):
    photos = photos_of(service.url, tmp_path)
    chosen = list(photos.values())[:30]
    answers = fetch(provider(tmp_path, photos), *chosen)
    assert len(photos) == 240
    assert "007" in photos
    for photo, answer in zip(chosen, answers, strict=True):
        assert isinstance(answer, Capture)
        assert answer.panorama.location == at(photo)
        assert (answer.panorama.captured_on, answer.panorama.precision) == (photo.captured_on, photo.precision)
        assert (answer.view.heading_deg, answer.view.rotation) == (photo.heading_deg, 0 if photo.heading_deg is None else None)
        assert Image.open(io.BytesIO(answer.image)).size == answer.size == (320, 240)
        assert (answer.creator, answer.licence, answer.attribution) == (photo.creator, photo.licence, photo.attribution)
        assert answer.source_url == photo.url
    assert {answer.view.heading_deg is None for answer in answers} == {True, False}
    assert len(asked(service)) == 30
    assert asked(service, "robots") == ["robots.txt"]


def test_what_the_list_does_not_have_is_a_negative(service: EmulatorThread, tmp_path: Path):
    async def ask(one: Any) -> list[Any]:
        return [answer async for answer in one.find([at(Photo("absent", ""))])]

    (answer,) = run(provider(tmp_path, {}), ask)
    assert answer.reason == "not in the list"
    assert asked(service) == []


def test_a_reserved_licence_needs_a_permission(service: EmulatorThread, tmp_path: Path):
    photo = Photo("1", f"{service.url}/photos/good/1.jpg", *ORIGIN, licence="proprietary")
    (refused,) = fetch(provider(tmp_path, {"1": photo}), photo)
    assert isinstance(refused, Failure)
    assert (refused.kind, refused.retryable) == ("disallowed", False)
    assert asked(service) == []
    (given,) = fetch(provider(tmp_path, {"1": photo}, permission="letter of 2026-05-01"), photo)
    assert isinstance(given, Capture)


@pytest.mark.parametrize(
    ("url", "suffix", "becomes"),
    [
        ("https://a.example/2/12_ab.jpg", "z", "https://a.example/2/12_ab_z.jpg"),
        ("https://a.example/2/12_ab.jpg?s=1", "z", "https://a.example/2/12_ab_z.jpg?s=1"),
        ("https://a.example/2/12_ab.jpg", "", "https://a.example/2/12_ab.jpg"),
        ("https://a.example/v1.2/photo", "z", "https://a.example/v1.2/photo"),
    ],
)
def test_the_size_of_a_photo_host_goes_before_the_suffix(url: str, suffix: str, becomes: str):
    assert sized(url, suffix) == becomes


# --- odd ones -------------------------------------------------------------------------------------------------------
CLASSES = {
    "missing": ("gone", False),
    "gone": ("gone", False),
    "unknown": ("gone", False),
    "unavailable": ("gone", False),
    "grey": ("gone", False),
    "forbidden": ("disallowed", False),
    "private": ("disallowed", False),
    "moved_to_private": ("disallowed", False),
    "moved_to_router": ("disallowed", False),
    "moved_to_metadata": ("disallowed", False),
    "moved_to_file": ("disallowed", False),
    "circle": ("invalid_answer", False),
    "noai": ("opted_out", False),
    "tdm": ("opted_out", False),
    "truncated": ("truncated", True),
    "wrong_length": ("truncated", True),
    "empty": ("truncated", True),
    "gif": ("not_an_image", False),
    "webp": ("not_an_image", False),
    "bomb": ("too_large", False),
    "page": ("not_an_image", False),
    "proof": ("disallowed", True),
}
GOOD = ("moved", "moved_twice", "cmyk", "grey16", "turned", "clear", "small")


def test_every_oddity_has_its_class():
    assert set(CLASSES) | set(GOOD) == set(ODDITIES)


@pytest.mark.parametrize("name", CLASSES)
def test_an_oddity_ends_as_its_class(service: EmulatorThread, tmp_path: Path, name: str):
    answer = fetch_odd(service, tmp_path, name)
    assert isinstance(answer, Failure)
    assert (answer.kind, answer.retryable) == CLASSES[name], answer.detail


@pytest.mark.parametrize("name", GOOD)
def test_odd_but_good_photos_are_kept_as_they_came(service: EmulatorThread, tmp_path: Path, name: str):
    answer = fetch_odd(service, tmp_path, name)
    assert isinstance(answer, Capture), answer
    assert Image.open(io.BytesIO(answer.image)).size == answer.size


def test_the_odd_list_is_read_and_nothing_outside_this_machine_is_asked(service: EmulatorThread, tmp_path: Path):
    photos = photos_of(service.url, tmp_path, "odd.csv")
    assert set(photos) == {f"odd_{name}" for name in ODDITIES}
    quiet = [photo for name, photo in photos.items() if name not in ("odd_page", "odd_proof")]
    answers = fetch(provider(tmp_path, photos), *quiet)
    assert len(answers) == len(quiet)
    assert "private/7.jpg" not in asked(service)
    assert asked(service).count("odd/circle.jpg") == 6


def test_a_page_for_people_leaves_its_host_alone_and_no_other(service: EmulatorThread, tmp_path: Path):
    """`localhost` is another host than `127.0.0.1`; the page is kept, and what was not asked stays to be asked."""
    elsewhere = service.url.replace("127.0.0.1", "localhost")
    photos = {"odd_page": odd(service, "page")}
    photos |= {f"a{n}": Photo(f"a{n}", f"{service.url}/photos/good/{n}.jpg", *ORIGIN) for n in range(3)}
    photos |= {f"b{n}": Photo(f"b{n}", f"{elsewhere}/photos/good/{n}.jpg", *ORIGIN) for n in range(3)}
    one = provider(tmp_path, photos, evidence=tmp_path / "evidence")
    answers = fetch(one, *photos.values())
    kinds = [answer.kind if isinstance(answer, Failure) else "ok" for answer in answers]
    assert kinds == ["not_an_image", "disallowed", "disallowed", "disallowed", "ok", "ok", "ok"]
    assert [answer.retryable for answer in answers[1:4]] == [True] * 3  # type: ignore[union-attr]
    assert len(list((tmp_path / "evidence").iterdir())) == 1
    assert asked(service) == ["odd/page.jpg", "good/0.jpg", "good/1.jpg", "good/2.jpg"]


def test_a_redirect_inside_this_network_is_followed_only_where_the_list_names_the_host(service: EmulatorThread, tmp_path: Path):
    port = service.url.rsplit(":", 1)[1]
    addresses = Addresses([f"http://127.0.0.1:{port}/1.jpg"])
    addresses.check(f"http://127.0.0.1:{port}/2.jpg")
    for url in (
        "http://127.0.0.1:1/2.jpg",
        f"http://localhost:{port}/2.jpg",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://10.1.2.3/",
        "http://169.254.169.254/",
        "http://100.64.0.1/",
        "http://0.0.0.0/",
        "gopher://photos.example/",
        "http://user:password@photos.example/",
        "http:///x",
    ):
        with pytest.raises(RequestFailedError) as caught:
            addresses.check(url)
        assert caught.value.kind == "disallowed"
    addresses.check("https://photos.example/1.jpg")


@pytest.mark.parametrize("host", ["localhost", "0x7f000001", "2130706433", "127.1"])
def test_a_name_that_stands_for_this_machine_is_not_connected_to(service: EmulatorThread, host: str):
    """No name leads where its address may not: that is looked at after names are resolved."""
    port = service.url.rsplit(":", 1)[1]
    channel = BulkChannel("test", concurrency=1, may_connect=Addresses().may_connect)

    async def ask() -> None:
        async with channel.session(1):
            await channel.fetch(f"http://{host}:{port}/photos/good/1.jpg", deadline_s=5, max_bytes=1 << 20)

    with pytest.raises(ChannelError):
        asyncio.run(ask())
    assert asked(service) == []


# --- how they are kept ----------------------------------------------------------------------------------------------
def opened(answer: Capture | Failure) -> Image.Image:
    assert isinstance(answer, Capture), answer
    image = Image.open(io.BytesIO(answer.image))
    image.load()
    return image


def test_a_photo_below_the_smallest_size_is_refused(service: EmulatorThread, tmp_path: Path):
    answer = fetch_odd(service, tmp_path, "small", min_side_px=41)
    assert isinstance(answer, Failure)
    assert (answer.kind, answer.retryable) == ("too_small", False)
    assert isinstance(fetch_odd(service, tmp_path, "small", min_side_px=40), Capture)


@pytest.mark.parametrize(("resize", "size"), [("shorter", (160, 120)), ("longer", (120, 90))])
def test_photos_are_made_smaller_by_either_side(service: EmulatorThread, tmp_path: Path, resize: str, size: tuple[int, int]):
    answer = fetch_odd(service, tmp_path, "moved", resize=resize, size_px=120)
    assert opened(answer).size == size
    assert opened(answer).format == "JPEG"
    assert opened(fetch_odd(service, tmp_path, "small", resize=resize, size_px=120)).size == (60, 40)  # never larger


def test_what_is_encoded_again_stands_upright_and_says_nothing_of_who_and_where(service: EmulatorThread, tmp_path: Path):
    kept = opened(fetch_odd(service, tmp_path, "turned"))
    assert kept.size == (240, 320)
    assert kept.getexif()
    again = fetch_odd(service, tmp_path, "turned", encoding="jpeg")
    image = opened(again)
    assert image.size == (320, 240)
    assert not image.getexif()
    assert b"Exif" not in again.image  # type: ignore[union-attr]
    plain = opened(fetch_odd(service, tmp_path, "moved"))
    assert image.getpixel((160, 5))[2] > 0  # type: ignore[index]
    assert plain.size == image.size


@pytest.mark.parametrize("encoding", ["jpeg", "webp", "png"])
@pytest.mark.parametrize("name", ["cmyk", "grey16", "clear"])
def test_other_kinds_of_pixels_become_three_channels(service: EmulatorThread, tmp_path: Path, name: str, encoding: str):
    image = opened(fetch_odd(service, tmp_path, name, encoding=encoding))
    assert (image.format or "").lower() == encoding
    assert image.mode == "RGB"
    low, high = image.convert("L").getextrema()
    assert high - low > 60  # nothing is clipped to one level
    if name == "clear":
        assert min(image.getpixel((5, 5))) > 250  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(640, 480), (800, 600), (1024, 683), (1024, 768), (768, 1024), (300, 290)])
def test_smaller_pictures_are_what_an_area_average_makes_of_them(size: tuple[int, int]):
    """To 40 dB, which no eye sees; the average is made by hand, from every pixel's share in each new one."""
    import numpy as np

    from geoloc_dagster.emulator.photo_oddities import ordinary
    from geoloc_dagster.imagery.ingest import Ingest

    def shares(old: int, new: int) -> Any:
        edges = np.arange(new + 1) * old / new
        low, high = edges[:-1, None], edges[1:, None]
        pixels = np.arange(old)[None, :]
        return np.clip(np.minimum(high, pixels + 1) - np.maximum(low, pixels), 0, None) * new / old

    content = ordinary(11, *size)
    small = np.asarray(Image.open(io.BytesIO(Ingest(0, "shorter", 256, "png").prepare(content).image))).astype(np.float64)
    large = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(np.float64)
    average = np.einsum("ij,jkc,lk->ilc", shares(size[1], small.shape[0]), large, shares(size[0], small.shape[1]), optimize=True)
    assert 10 * np.log10(255**2 / np.mean((average - small) ** 2)) >= 40


def test_a_picture_that_breaks_off_while_it_is_decoded_is_undecodable():
    from geoloc_dagster.emulator.photo_oddities import ordinary
    from geoloc_dagster.imagery.ingest import Ingest

    whole = ordinary(1)
    with pytest.raises(RequestFailedError) as caught:
        Ingest(encoding="jpeg").prepare(whole[: len(whole) // 2])
    assert caught.value.kind == "undecodable"


# --- budgets --------------------------------------------------------------------------------------------------------
def test_the_days_budget_ends_the_run_and_is_never_exceeded(service: EmulatorThread, tmp_path: Path):
    photos = photos_of(service.url, tmp_path)
    budgets = [{"what": "image", "limit": 100, "per_charge": {"image": 1}, "said": "100 pictures a day"}]
    one = provider(tmp_path, photos, ledger=tmp_path / "ledger.sqlite", budgets=budgets)
    with pytest.raises(CollectionStopped, match="100 pictures a day"):
        fetch(one, *photos.values())
    assert len(asked(service)) == 100


def test_what_was_paid_for_and_not_sent_goes_back(service: EmulatorThread, tmp_path: Path):
    from geoloc_dagster.imagery.ledger import Ledger

    photos = photos_of(service.url, tmp_path)
    budgets = [{"what": "image", "limit": 1_000, "per_charge": {"image": 1}, "said": "1,000 pictures a day"}]
    one = job(tmp_path, ledger=tmp_path / "ledger.sqlite", budgets=budgets)
    fetch(one.provider(lambda ids: photos), *list(photos.values())[:5])
    ledger = Ledger(tmp_path / "ledger.sqlite")
    assert ledger.used("photo_list", one.today(), "image") == 5
    assert ledger.used("photo_list", one.today(), "byte") > 0
