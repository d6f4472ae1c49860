"""What came from others is what its makers published, names them, and is served from here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

import geoloc_dagster

STATIC = Path(geoloc_dagster.__file__).parent / "explorer" / "static"
FOLDERS = (STATIC / "vendor", Path(__file__).parent / "vendor")


@pytest.mark.parametrize("folder", FOLDERS, ids=["pages", "tests"])
def test_vendored_files_are_the_published_ones_with_their_licences(folder: Path) -> None:
    files = json.loads((folder / "VENDORED.json").read_text())["files"]
    for entry in files:
        assert hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest() == entry["sha256"], entry["file"]
        assert len((folder / entry["licence_file"]).read_text()) > 500
        assert entry["version"].count(".") == 2
    listed = {entry["file"] for entry in files} | {entry["licence_file"] for entry in files} | {"VENDORED.json"}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == listed


def test_the_pages_name_no_other_server_and_carry_nothing_inline() -> None:
    own = [path for path in STATIC.rglob("*") if path.suffix in (".mjs", ".js", ".css", ".html") and "vendor" not in path.parts]
    assert len(own) > 10
    for path in own:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http://" not in text, path
        assert "https://" not in text, path
        assert "innerHTML" not in text, path
        assert "eval(" not in text, path
    page = (STATIC / "index.html").read_text()
    assert " style=" not in page
    assert page.count("<script") == page.count("<script src=") + page.count('<script type="module" src=')
