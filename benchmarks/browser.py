"""The browser on the emulated maps site under faults: complete locations, images an hour, memory, faults found, headings.

`python benchmarks/browser.py [--locations 110] [--workers 4] [--published 2]`;

`--published N` walks N locations with the waits of the published script instead, for real and without faults: one browser per
location, a minute of fixed sleeps before the first picture, then five seconds for each date and five for each turn.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import datetime as dt
import io
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from geoloc_dagster.emulator.city import City
from geoloc_dagster.emulator.process import EmulatorProcess
from geoloc_dagster.imagery.browser import CHROMEDRIVER, CHROMIUM, Browser
from geoloc_dagster.imagery.client import Etiquette, ServiceClient, user_agent
from geoloc_dagster.imagery.collect import collect_batch
from geoloc_dagster.imagery.evidence import Evidence
from geoloc_dagster.imagery.google_maps import GoogleMaps
from geoloc_dagster.imagery.maps_walks import Walks
from geoloc_dagster.imagery.processes import session_members
from geoloc_dagster.imagery.provider import Location, View
from geoloc_dagster.imagery.tab import Tab
from geoloc_dagster.tables import open_table
from geoloc_dagster_tests.imagery.walking import NOW, PERMITTED, shift_px

ORIGIN, SEED, TODAY = (45.0, -30.0), 3, dt.date(2026, 11, 21)
HEADINGS_DEG = (0.0, 90.0, 180.0, 270.0)
FAULTS = {
    "seed": 1,
    "rules": [
        {"fault": "slow", "endpoint": "maps_tile", "probability": 0.10, "seconds": 3.5},
        {"fault": "tab_crash", "what": "date/*", "probability": 0.01},
        {"fault": "tab_crash", "what": "link/*", "probability": 0.01},
        {"fault": "stale_frame", "what": "date/*", "probability": 0.05},
        {"fault": "swallowed_click", "probability": 0.05},
    ],
}
NAMES = {"slow": "slow_request"}  # what the client calls a fault of the server, where it is another word


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--locations", type=int, default=110)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--published", type=int, default=0)
    arguments = parser.parse_args()
    city = City(ORIGIN, SEED)
    dice = random.Random(1)
    places = dice.sample(city.within(-30.03, 44.98, -29.97, 45.02), arguments.locations)
    locations = [Location(str(p.place_id), p.snapshots[-1].lat_deg, p.snapshots[-1].lng_deg) for p in places]
    with EmulatorProcess.start(ORIGIN, SEED, TODAY, faults=FAULTS) as emulator, tempfile.TemporaryDirectory() as folder:
        if not arguments.published:
            walk(emulator, locations, arguments.workers, Path(folder))
            print_headings(Path(folder), city, dice)
            return
        emulator.set_faults({})
        published = [replay(emulator.url, location) for location in locations[: arguments.published]]
        images, seconds = (sum(column) for column in zip(*published, strict=True))
        an_hour = images / seconds * 3600
        print(f"published waits, {len(published)} locations: {images} images in {seconds:.0f} s, {an_hour:.0f} an hour")


def walk(emulator: EmulatorProcess, locations: list[Location], workers: int, folder: Path) -> None:
    """Collect everything twice and say how the first run went."""
    Tab.SLOW_S = 3.0  # so that what is slow because this machine is busy is seldom counted
    etiquette = Etiquette(requests_per_second=500, burst=50, concurrency=2 * workers + 2, deadline_s=30)
    client = ServiceClient("google_maps", emulator.url, etiquette)
    browsers: list[Browser] = []

    def launch() -> Browser:
        browsers.append(Browser(folder / "browsers"))
        return browsers[-1]

    keep = Evidence(folder / "evidence", "google_maps", lambda: TODAY).keep
    walks = Walks(client, launch, keep, user_agent=user_agent(), workers=workers)
    provider = GoogleMaps(walks, PERMITTED)
    memory = Memory(browsers)
    for turn in ("first", "second"):
        started = time.monotonic()
        result = asyncio.run(
            collect_batch(
                provider,
                locations,
                "100m-0000",
                folder / "panoramas.lance",
                visits_path=folder / "visits.lance",
                run_id=turn,
                now=NOW,
                commit_rows=256,
                views=[View(heading_deg, None, 0.0, 90.0) for heading_deg in HEADINGS_DEG],
                complete_since=NOW - dt.timedelta(days=30),
                concurrency=workers,
            )
        )
        seconds = time.monotonic() - started
        if turn == "first":
            rate = result.rows_new / seconds * 3600
            with_imagery = len(locations) - result.negatives
            complete = len(locations) - result.pending - result.negatives
            print(f"{len(locations)} locations, {with_imagery} with imagery; {result.rows_new} images in {seconds:.0f} s")
            print(f"{rate:.0f} an hour; complete: {complete} of {with_imagery} ({100 * complete / with_imagery:.1f} %)")
            print(f"failures: {result.failures_by_kind or 'none'}")
            print_faults(emulator, walks)
            print(memory.summary(workers))
        else:
            print(f"second run: {result.rows_new} images in {seconds:.0f} s, {result.pending} locations left")
    memory.stop()


def print_faults(emulator: EmulatorProcess, walks: Walks) -> None:
    totals = emulator.hits(0)["totals"]
    injected: collections.Counter[str] = collections.Counter()
    for endpoint in ("maps_tile", "maps_panorama", "maps_click"):
        injected.update({NAMES.get(fault, fault): count for fault, count in totals.get(endpoint, {}).items() if fault != "OK"})
    for kind in sorted(set(injected) | set(walks.incidents)):
        print(f"{kind}: {injected[kind]} injected, {walks.incidents[kind]} detected")


def print_headings(folder: Path, city: City, dice: random.Random) -> None:
    """How far pictures look from where they say, against the city's own drawing."""
    table = open_table(folder / "panoramas.lance")
    assert table is not None
    rows = table.to_table(columns=["image", "lat_deg", "lng_deg", "heading_deg", "captured_on"]).to_pylist()
    off_deg: list[float] = []
    for row in dice.sample(rows, min(120, len(rows))):
        heading_deg, month = row["heading_deg"], row["captured_on"]
        drawn = city.render(row["lat_deg"], row["lng_deg"], heading_deg=heading_deg, date=month).rgb
        pair = [
            np.asarray(Image.open(io.BytesIO(row["image"])).convert("L"), np.float64),
            np.asarray(Image.fromarray(drawn).convert("L"), np.float64),
        ]
        off_deg.append(abs(float(np.degrees(np.arctan(shift_px(pair[0][200:440], pair[1][200:440]) / 320)))))
    print(f"headings of {len(off_deg)} pictures: at most {max(off_deg):.3f} degrees off, median {statistics.median(off_deg):.3f}")


class Memory:
    """Looks at the browser's processes every few seconds, MB."""

    def __init__(self, browsers: list[Browser]) -> None:
        self._browsers = browsers
        self._ended = threading.Event()
        self._samples: list[tuple[float, float, int]] = []
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(3):
            sizes = [size for browser in self._browsers[-1:] for pid in session_members(browser.pid) if (size := rollup(pid))]
            if sizes:
                self._samples.append((sum(s[0] for s in sizes), sum(s[1] for s in sizes), len(sizes)))

    def summary(self, workers: int) -> str:
        """Medians over the run, and per worker."""
        pss, uss, count = (statistics.median(column) for column in zip(*self._samples, strict=True))
        most = max(sample[0] for sample in self._samples)
        return (
            f"browser: {pss:.0f} MB PSS ({uss:.0f} MB USS) in {count:.0f} processes, at most {most:.0f} MB; "
            f"{pss / workers:.0f} MB PSS ({uss / workers:.0f} MB USS) for each of {workers} workers with 2 windows"
        )

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()
        self._thread.join()


def rollup(pid: int) -> tuple[float, float] | None:
    """(PSS, USS) of a process, MB; None where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    kb = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith("kB")}
    return kb.get("Pss", 0) / 1024, (kb.get("Private_Clean", 0) + kb.get("Private_Dirty", 0)) / 1024


def replay(url: str, location: Location) -> tuple[int, float]:
    """One location with the waits of the published script: (images, seconds)."""
    started = time.monotonic()
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in ("--headless=new", "--no-sandbox", "--window-size=1512,895", "--disable-background-networking"):
        options.add_argument(switch)
    driver = Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    images = 0

    def click(selector: str, wait_s: float) -> None:
        driver.find_element(By.CSS_SELECTOR, selector).click()
        time.sleep(wait_s)  # the published script's way of waiting is what is measured here

    try:
        driver.get(f"{url}/maps/")
        time.sleep(15)
        click('[aria-label="Accept all"]', 15)
        driver.find_element(By.ID, "searchboxinput").send_keys(f"{location.lat_deg}, {location.lng_deg}")
        click("#searchbox-searchbutton", 15)
        previews = driver.find_elements(By.CSS_SELECTOR, 'button[aria-label=""]')
        if not previews:
            return 0, time.monotonic() - started
        click('button[aria-label=""]', 15)
        if not driver.find_elements(By.CSS_SELECTOR, '[jsaction="titlecard.timemachineClick"]'):
            return 0, time.monotonic() - started  # a place with one date was a failure to it
        click('[jsaction="titlecard.timemachineClick"]', 5)
        labels = [button.get_attribute("aria-label") for button in driver.find_elements(By.CSS_SELECTOR, ".time-machine button")]
        for label in labels[:-1]:
            click(f'.time-machine button[aria-label="{label}"]', 5)
            for _ in HEADINGS_DEG:
                Image.open(io.BytesIO(driver.get_screenshot_as_png())).crop((421, 70, 1091, 740)).resize((224, 224))
                images += 1
                click('[aria-label="Rotate the view clockwise"]', 5)
        return images, time.monotonic() - started
    finally:
        driver.quit()


if __name__ == "__main__":
    main()
