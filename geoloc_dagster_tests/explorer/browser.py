"""A headless Chromium that looks at the explorer's pages: themes, widths, what it logged, what it asked for, what axe finds."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from geoloc_dagster_tests.end_to_end.browser import CHROMEDRIVER, CHROMIUM, missing_packages

VENDOR = Path(__file__).parent / "vendor"
WAIT_S = 60.0
# Software drawing, since no machine of ours is sure to have a graphics card; nothing is resolved but this machine.
_SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--lang=en-US",
    "--hide-scrollbars",
    "--mute-audio",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--force-prefers-reduced-motion",
)
WITHOUT_WEBGL = ("--disable-gpu", "--disable-3d-apis")


class Viewer:
    """One window on the explorer.

    Args:
        driver: the browser.
        url: where the explorer answers, without a slash at the end.
    """

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        self.requested: list[str] = []
        self.logged: list[str] = []

    def open(self, route: str, *, theme: str = "light", width: int = 1280) -> None:
        """Load a view anew, as one who has never been here."""
        self.read_logs()
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": self.url, "storageTypes": "local_storage"})
        self.driver.get(f"{self.url}/{route}")

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        """Wait until a condition is true and return its value."""
        try:
            waiting = WebDriverWait(self.driver, WAIT_S, 0.05, ignored_exceptions=(StaleElementReferenceException,))
            return waiting.until(lambda _: condition())
        except TimeoutException:
            self.read_logs()
            raise AssertionError(f"not within {WAIT_S:.0f} s: {what}\nlogged: {self.logged}\n{self.text()[:2000]}") from None

    def text(self) -> str:
        """What can be read on the page now."""
        return self.driver.find_element(By.TAG_NAME, "body").text

    def see(self, *texts: str) -> None:
        """Wait until all texts can be read."""
        self.until(f"the texts {texts}", lambda: all(text in self.text() for text in texts))

    def find(self, where: str) -> WebElement:
        """The first visible element by CSS, or by XPath where it begins with a slash, once there is one."""
        by = By.XPATH if where.startswith("/") else By.CSS_SELECTOR
        return self.until(where, lambda: next((e for e in self.driver.find_elements(by, where) if e.is_displayed()), None))

    def count(self, css: str) -> int:
        """How many elements there are."""
        return len(self.driver.find_elements(By.CSS_SELECTOR, css))

    def button(self, text: str) -> WebElement:
        """A button by its text."""
        return self.until(
            f"button {text}", lambda: next((b for b in self.driver.find_elements(By.TAG_NAME, "button") if b.text == text), None)
        )

    def script(self, code: str, *arguments: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(code, *arguments)

    def settle(self) -> None:
        """Wait until nothing is loading and every picture in the window has come."""
        self.until("nothing is loading", lambda: self.count(".busy") == 0 and "Loading" not in self.text())
        pictures = """return [...document.images].every((i) => i.complete || i.getBoundingClientRect().top > innerHeight)"""
        self.until("pictures", lambda: self.script(pictures))
        self.until(
            "map",
            lambda: self.script(
                "return !document.querySelector('.map-canvas') || !!document.querySelector('.maplibregl-canvas, .map-svg')"
            ),
        )

    def keep(self, name: str) -> None:
        """Write a picture of the whole page where GEOLOC_SCREENSHOTS says."""
        folder = os.environ.get("GEOLOC_SCREENSHOTS")
        if not folder:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        width, height = self.script("return [innerWidth, Math.min(6000, document.documentElement.scrollHeight)]")
        metrics = {"width": width, "height": max(height, 900), "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.script("scrollTo(0, 0)")
        self.driver.execute_async_script("const done = arguments[0]; requestAnimationFrame(() => setTimeout(done, 250))")
        self.driver.save_screenshot(str(Path(folder) / f"{name}.png"))
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**metrics, "height": 900})

    def read_logs(self) -> None:
        """Take what the browser has logged and asked for since the last time."""
        for entry in self.driver.get_log("browser"):
            if entry["level"] in ("SEVERE", "WARNING"):
                self.logged.append(f"{entry['level']}: {entry['message']}")
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])

    def foreign(self) -> list[str]:
        """Addresses that were asked for and are not the explorer's own."""
        self.read_logs()
        schemes = ("data", "blob", "about", "chrome", "devtools")
        return [url for url in self.requested if urlsplit(url).scheme not in schemes and not url.startswith(f"{self.url}/")]

    def complaints(self) -> list[str]:
        """Errors that the page has logged; the list begins anew."""
        self.read_logs()
        found = [line for line in self.logged if line.startswith("SEVERE") or "Content Security Policy" in line]
        self.logged.clear()
        return found

    def barriers(self) -> list[str]:
        """What axe finds serious or critical."""
        if not self.script("return Boolean(window.axe)"):
            self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": (VENDOR / "axe-core" / "axe.min.js").read_text()})
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then((r) => done(r.violations))"
        )
        return [
            f"{one['impact']} {one['id']}: {node['html'][:160]} {' '.join(node['failureSummary'].split())[:200]}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]


def require_browser() -> None:
    """Skip where the browser is missing, except on the build server."""
    missing = missing_packages()
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"the browser is missing; Debian: apt-get install {' '.join(missing)}")
    assert not missing, f"the build server must have the Debian packages {', '.join(missing)}"


@contextlib.contextmanager
def open_viewer(url: str, profile: Path, switches: Sequence[str] = ()) -> Generator[Viewer]:
    """A browser with a profile of its own, closed at the end."""
    require_browser()
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for switch in (*_SWITCHES, *switches, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = Chrome(options=options, service=Service(str(CHROMEDRIVER)))
    try:
        yield Viewer(driver, url)
    finally:
        driver.quit()
