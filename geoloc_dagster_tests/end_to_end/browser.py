"""The Dagster UI of one region, served on this machine and driven through Debian's Chromium as a person would."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sysconfig
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import dagster as dg
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from geoloc_dagster import starter
from geoloc_dagster.config.loader import claim_data_root, load_settings

MODULE = "geoloc_dagster.definitions"
SIZE = (1400, 900)
WAIT_S = 240.0
CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
_PACKAGES = {"chromium": CHROMIUM, "chromium-driver": CHROMEDRIVER}
_STOP_S = 20.0
# What is seen while the page replaces an element or a toast lies over it: the same step succeeds a moment later.
_PASSING = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    NoSuchElementException,
    StaleElementReferenceException,
)
# One window without a sandbox (root in a container has none) that talks to this machine and to nothing else.
_SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--lang=en-US",
    "--disable-background-networking", "--disable-component-update", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


def missing_packages() -> list[str]:
    """Debian packages that the browser needs and that are not installed."""
    return [package for package, program in _PACKAGES.items() if not os.access(program, os.X_OK)]


@dataclass
class Page:
    """A browser window on the UI; every step waits for what it needs and leaves a picture behind.

    Attributes:
        driver: the browser.
        url: where the UI answers, without a slash at the end.
        pictures: folder of the screenshots.
    """

    driver: Chrome
    url: str
    pictures: Path
    steps: int = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Generator[None]:
        """Keep a screenshot after the step, or of the moment it failed, with the page's text beside it."""
        self.steps += 1
        stem = f"{self.steps:02d}-{name.replace(' ', '-')}"
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # what went wrong is worth more than its picture
                self.keep(f"{stem}-FAILED")
            raise
        self.keep(stem)

    def keep(self, stem: str) -> None:
        """Write a screenshot and what can be read on it."""
        self.driver.save_screenshot(str(self.pictures / f"{stem}.png"))
        (self.pictures / f"{stem}.txt").write_text(f"{self.driver.current_url}\n\n{self.text()}\n", encoding="utf-8")

    def open(self, path: str) -> None:
        """Go to a page of the UI by its address."""
        self.driver.get(f"{self.url}{path}")

    def text(self) -> str:
        """What can be read on the page now."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        """Wait until the condition is true and return its value; the failure says what was missing."""
        try:
            return WebDriverWait(self.driver, WAIT_S, ignored_exceptions=_PASSING).until(lambda _: condition())
        except TimeoutException:
            raise AssertionError(f"not within {WAIT_S:.0f} s on {self.driver.current_url}: {what}") from None

    def see(self, *texts: str) -> None:
        """Wait until all of the texts can be read on the page."""
        self.until(f"the texts {texts}", lambda: all(text in self.text() for text in texts))

    def read(self, pattern: str) -> re.Match[str]:
        """Wait until the page's text matches, line ends included."""
        return self.until(f"text like {pattern}", lambda: re.search(pattern, self.text(), re.DOTALL))

    def find(self, xpath: str) -> WebElement:
        """The first visible element, once there is one."""
        return self.until(xpath, lambda: next((e for e in self._all(xpath) if e.is_displayed()), None))

    def click(self, xpath: str) -> None:
        """Click the first visible, enabled element; again where something lay over it."""

        def clicked() -> bool:
            usable = (e for e in self._all(xpath) if e.is_displayed() and e.is_enabled())
            element = next(usable, None)
            if element is not None:
                element.click()
            return element is not None

        self.until(f"something to click: {xpath}", clicked)

    def press(self, *keys: str) -> None:
        """Press keys at the same time."""
        actions = ActionChains(self.driver)
        for key in keys:
            actions.key_down(key)
        for key in reversed(keys):
            actions.key_up(key)
        actions.perform()

    def enter(self) -> None:
        """Open the UI, and decline the community dialog where this Dagster home has not been asked yet."""
        query = Request(f"{self.url}/graphql", b'{"query": "{shouldShowNux}"}', {"Content-Type": "application/json"})
        with build_opener(ProxyHandler({})).open(query, timeout=WAIT_S) as answer:
            asked = json.load(answer)["data"]["shouldShowNux"]
        self.open("/")
        self.see("Catalog", "Lineage")
        if asked:
            self.click("//button[normalize-space(.)='Skip']")
            self.until("the community dialog is gone", lambda: "Join the Dagster community" not in self.text())

    def show_picture(self) -> WebElement:
        """Open the picture in the metadata of the asset, or of the partition, that the page shows; returns the image."""
        self.click("//*[normalize-space(text())='[Show Markdown]']")
        image = self.find("//img[starts-with(@src, 'data:image/')]")
        self.until("the picture is decoded", lambda: image.get_property("complete") and image.get_property("naturalWidth"))
        return image

    @contextlib.contextmanager
    def of_width(self, width: int) -> Generator[None]:
        """A wider window for a while: the lineage graph draws no names where it does not fit at their size."""
        self.resize(width)
        try:
            yield
        finally:
            self.resize(SIZE[0])

    def resize(self, width: int) -> None:
        """Set the width of the window, pixels."""
        metrics = {"width": width, "height": SIZE[1], "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def expand_groups(self) -> None:
        """Open every group of the lineage graph."""
        self.press(Keys.ALT, "e")

    def _all(self, xpath: str) -> list[WebElement]:
        return self.driver.find_elements(By.XPATH, xpath)


@contextlib.contextmanager
def open_browser(url: str, profile: Path, pictures: Path) -> Generator[Page]:
    """A headless Chromium with a profile of its own, closed at the end with all its processes."""
    pictures.mkdir(parents=True, exist_ok=True)
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    # A named driver keeps Selenium from fetching one; a session of its own makes its processes countable.
    service = Service(str(CHROMEDRIVER), popen_kw={"start_new_session": True})
    try:
        driver = Chrome(options=options, service=service)
        try:
            page = Page(driver, url, pictures)
            page.resize(SIZE[0])
            yield page
        finally:
            driver.quit()
    finally:
        process = getattr(service, "process", None)
        if process is not None:
            _end(process)


@contextlib.contextmanager
def serve_ui(config: Path, data_root: Path | None, logs: Path, *, daemon: bool = True) -> Generator[str]:
    """The processes that `geoloc dev` starts, on a free port; yields the address and ends them whatever happens.

    Args:
        config: the region's `geoloc.yaml`.
        data_root: in place of the configuration's.
        logs: folder for what the processes print.
        daemon: whether schedules, sensors, queues and backfills run; without it the UI only shows.
    """
    layout = claim_data_root(load_settings(config, data_root=data_root))
    names = {"GEOLOC_CONFIG": config, "GEOLOC_DATA_ROOT": layout.root, "DAGSTER_HOME": starter.prepare_home(layout)}
    with dg.DagsterInstance.from_config(str(names["DAGSTER_HOME"])) as instance:
        # Two processes that make its tables at the same time end one of them (1.13): these make them before either starts.
        assert None not in (instance.schedule_storage, instance.run_storage, instance.event_log_storage)
    # Dagster gives the start of a run 60 seconds, too little for a machine that does much else at the time.
    environment = {**os.environ, "DAGSTER_GRPC_TIMEOUT_SECONDS": f"{WAIT_S:.0f}"}
    environment |= {name: str(path.resolve()) for name, path in names.items()}
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        webserver = _start("dagster-webserver", ["-h", "127.0.0.1", "-p", str(port), "-m", MODULE], environment, logs)
        stack.callback(_end, webserver)
        if daemon:
            stack.callback(_end, _start("dagster-daemon", ["run", "-m", MODULE], environment, logs))
        _await_answer(f"{url}/server_info", webserver, logs / "dagster-webserver.log")
        yield url


def processes_naming(text: str) -> list[int]:
    """Processes whose command line or environment names something, such as a folder that only they know."""
    found: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(text.encode() in (folder / name).read_bytes() for name in ("cmdline", "environ")):
                found.append(int(folder.name))
    return [pid for pid in found if pid != os.getpid()]


def _start(name: str, arguments: list[str], environment: dict[str, str], logs: Path) -> subprocess.Popen[bytes]:
    """Start a program of this environment in a session of its own, so that whatever it starts can be found."""
    program = Path(sysconfig.get_path("scripts")) / name
    with (logs / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [program, *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def _await_answer(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until an address answers, directly and not through a proxy."""
    opener, deadline = build_opener(ProxyHandler({})), time.monotonic() + WAIT_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(URLError, OSError), opener.open(url, timeout=5):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    raise AssertionError(f"{url} does not answer:\n{log.read_text(encoding='utf-8', errors='replace')[-2_000:]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and every one that it has started: its code server outlives it, runs outlive that."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.terminate()
        process.wait(_STOP_S)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in _session(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + _STOP_S
        while _session(process.pid) and time.monotonic() < deadline:
            process.poll()
            time.sleep(0.05)
    process.wait(_STOP_S)


def _session(leader: int) -> list[int]:
    """Living processes of the session that this one has begun, itself included."""
    members: list[int] = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _, _, session = (folder / "stat").read_text().rpartition(") ")[2].split()[:4]
            if int(session) == leader and state != "Z":
                members.append(int(folder.name))
    return members
