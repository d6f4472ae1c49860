"""One headless Chromium, with separate users in it: each has its own cookies and its own way out.

The driver runs in a session of its own, and everything that it starts bears a mark in its environment. A record of both lies on
disk before anything is started, so that a process of ours that was killed leaves nothing behind once the next one has begun.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoloc_dagster.errors import BrowserMissingError
from geoloc_dagster.imagery.bidi import Bidi, BrowserError, TabCrashedError
from geoloc_dagster.imagery.processes import end_session_of, is_running, marked_processes, start_ticks
from geoloc_dagster.imagery.tab import Tab
from geoloc_dagster.storage import write_bytes

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

CHROMIUM, CHROMEDRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
_WRAPPERS = {Path("/usr/bin/chromium-headless-shell"): Path("/usr/lib/chromium/chromium-headless-shell")}
MARK = "GEOLOC_BROWSER"
# A window that shows pages and, but for them, talks to nobody: neither to its makers nor about what is typed.
_SWITCHES = (
    "--headless=new", "--no-sandbox", "--hide-scrollbars", "--no-first-run", "--lang=en-US", "--mute-audio",
    "--disable-background-networking", "--disable-component-update", "--disable-domain-reliability", "--disable-sync",
    "--disable-features=AutofillServerCommunication,OptimizationHints,MediaRouter,Translate", "--disable-dev-shm-usage",
    "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding", "--disable-background-timer-throttling",
)  # fmt: skip
_EVENTS = (
    "network.beforeRequestSent", "network.responseCompleted", "network.fetchError", "goog:cdp.Inspector.targetCrashed",
)  # fmt: skip


def missing_programs(binary: Path = CHROMIUM, driver: Path = CHROMEDRIVER) -> list[str]:
    """Which of the two programs are not there, with the Debian packages that bring them."""
    packages = {"chromium": binary, "chromium-driver": driver}
    return [f"{program} (Debian: {package})" for package, program in packages.items() if not os.access(program, os.X_OK)]


class Browser:
    """One running browser; a context manager.

    Args:
        records: folder of the records of running browsers; what killed processes left there is ended first.
        binary: Chromium.
        driver: its chromedriver.
        switches: further command-line switches.

    Raises:
        BrowserMissingError: a program is missing, or does not start.
    """

    def __init__(
        self, records: Path, *, binary: Path = CHROMIUM, driver: Path = CHROMEDRIVER, switches: Sequence[str] = ()
    ) -> None:
        missing = missing_programs(binary, driver)
        if missing:
            raise BrowserMissingError(f"{' and '.join(missing)} cannot be run")
        reap(records)
        self._token = uuid.uuid4().hex
        self._record = records / f"{self._token}.json"
        self._profile = Path(tempfile.gettempdir()) / f"geoloc-browser-{self._token}"
        self._write_record(None)
        try:
            self._driver = self._start(_WRAPPERS.get(binary, binary), driver, switches)
            self._bidi = Bidi(str(self._driver.capabilities["webSocketUrl"]))
        except BaseException:
            self._sweep()
            raise
        self._tabs: dict[str, Tab] = {}
        self._by_session: dict[str, Tab] = {}
        for event in _EVENTS[:-1]:
            self._bidi.on(event, lambda params, event=event: self._network(event, params))
        self._bidi.on(_EVENTS[-1], self._crashed)
        self._bidi.send("session.subscribe", {"events": list(_EVENTS)})
        self.user_agent = self._own_user_agent()

    @property
    def pid(self) -> int:
        """Of the driver, which leads the session of all processes."""
        return int(self._driver.service.process.pid)  # type: ignore[union-attr]

    @property
    def is_gone(self) -> bool:
        """Whether it has ended without having been told to."""
        return self._bidi.is_gone

    def open_tab(self, proxy: Mapping[str, Any] | None, user_agent: str, size_px: tuple[int, int], ratio: float) -> Tab:
        """A window of a new user, who has no cookies yet.

        Args:
            proxy: the user's way out, as WebDriver's `proxy` capability; direct where None.
            user_agent: what the user's requests say.
            size_px: of the window's inside, CSS pixels.
            ratio: device pixels per CSS pixel.
        """
        proxied = {"proxy": {"proxyType": "direct"} if proxy is None else dict(proxy)}  # never what the environment says
        user = self._bidi.send("browser.createUserContext", proxied)["userContext"]
        try:
            self._bidi.send("emulation.setUserAgentOverride", {"userAgent": user_agent, "userContexts": [user]})
            context = self._bidi.send("browsingContext.create", {"type": "window", "userContext": user})["context"]
            tab = Tab(self._bidi, user, context, self.forget)
            self._tabs[context] = tab
            viewport = {"width": size_px[0], "height": size_px[1]}
            tab.send("browsingContext.setViewport", viewport=viewport, devicePixelRatio=ratio)
            session = tab.send("goog:cdp.getSession")["session"]
            self._by_session[session] = tab
            self._bidi.send("goog:cdp.sendCommand", {"method": "Inspector.enable", "params": {}, "session": session})
        except BaseException:
            with contextlib.suppress(BrowserError):
                self._bidi.send("browser.removeUserContext", {"userContext": user})
            raise
        return tab

    def forget(self, tab: Tab) -> None:
        """Close a tab with its user."""
        self._tabs.pop(tab.context, None)
        self._by_session = {session: other for session, other in self._by_session.items() if other is not tab}
        with contextlib.suppress(BrowserError):
            self._bidi.send("browser.removeUserContext", {"userContext": tab.user})

    def close(self) -> None:
        """End the browser and everything that it has started."""
        self._bidi.close()
        with contextlib.suppress(Exception):  # whatever is wrong with it, its processes are ended below
            self._driver.quit()
        self._sweep()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, binary: Path, driver: Path, switches: Sequence[str]) -> Chrome:
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver import Chrome, ChromeOptions
        from selenium.webdriver.chrome.service import Service

        options = ChromeOptions()
        options.binary_location = str(binary)
        options.enable_bidi = True  # type: ignore[assignment]
        for switch in (*_SWITCHES, f"--user-data-dir={self._profile}", *switches):
            options.add_argument(switch)
        environment = {**os.environ, MARK: self._token}
        service = Service(str(driver), env=environment, popen_kw={"start_new_session": True})
        try:
            started = Chrome(options=options, service=service)
        except WebDriverException as error:
            raise BrowserMissingError(f"{binary} does not start: {error.msg}") from None
        self._write_record(service.process.pid)  # until now the mark alone says whose it is
        return started

    def _write_record(self, pid: int | None) -> None:
        record = {
            "owner": os.getpid(),
            "owner_started": start_ticks(os.getpid()),
            "pid": pid,
            "started": None if pid is None else start_ticks(pid),
            "profile": str(self._profile),
        }
        write_bytes(self._record, json.dumps(record).encode())

    def _sweep(self) -> None:
        clear_record(self._record)

    def _own_user_agent(self) -> str:
        context = self._bidi.send("browsingContext.getTree", {"maxDepth": 0})["contexts"][0]["context"]
        target = {"expression": "navigator.userAgent", "target": {"context": context}, "awaitPromise": False}
        return str(self._bidi.send("script.evaluate", target)["result"]["value"])

    def _network(self, event: str, params: dict[str, Any]) -> None:
        tab = self._tabs.get(params.get("context") or "")
        if tab is not None:
            tab.heard(event, params)

    def _crashed(self, params: dict[str, Any]) -> None:
        tab = self._by_session.get(params.get("session", ""))
        if tab is not None:
            tab.crashed = True
            self._bidi.fail(tab.context, TabCrashedError("the tab has crashed"))


def reap(records: Path) -> int:
    """End the browsers of processes of ours that are gone; how many there were.

    Args:
        records: the folder that `Browser` was given.
    """
    reaped = 0
    for record in sorted(records.glob("*.json")):
        try:
            said = json.loads(record.read_bytes())
        except (OSError, ValueError):
            continue  # another process is reaping it
        if not is_running(said["owner"], said["owner_started"]):
            clear_record(record)
            reaped += 1
    return reaped


def clear_record(record: Path) -> None:
    """End what a record names, delete the browser's profile, and then the record."""
    try:
        said = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return
    leaders = {pid for pid in marked_processes(MARK, record.stem) if pid != os.getpid()}
    if said["pid"] is not None and not _belongs_to_another(said["pid"], said["started"]):
        leaders.add(said["pid"])
    for leader in leaders:
        end_session_of(leader)
    shutil.rmtree(said["profile"], ignore_errors=True)
    record.unlink(missing_ok=True)


def _belongs_to_another(pid: int, started: int | None) -> bool:
    """Whether a process of that number runs that began at another time."""
    now = start_ticks(pid)
    return now is not None and now != started
