"""What would become the layers of images holds no secret, and the search that says so finds one wherever a layer may hold it."""

from __future__ import annotations

import base64
import fnmatch
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import urllib.parse
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from geoloc_dagster_tests.docker.finder import SCRIPT, load

ROOT = SCRIPT.parents[1]
SECRET = "s3same-0pen/" + "9f8e7d6c5b4a+x"  # in two pieces: this file is searched as well
finder = load()


# --- an image, as `docker save` writes it ----------------------------------------------------------------------------
def tar(**files: bytes) -> bytes:
    """A tar of files; `__` in the names stands for a slash, `_wh_` for the mark of a deletion."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name.replace("__", "/").replace("_wh_", ".wh."))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("wheel/module.py", content * 3)
    return buffer.getvalue()


def image(path: Path, *layers: bytes, env: str = "PATH=/bin", history: str = "COPY . .") -> Path:
    """An image of layers, with a configuration that is clean unless told otherwise."""
    names = [f"blobs/sha256/{number:064x}" for number in range(len(layers))]
    config = {"config": {"Env": [env]}, "history": [{"created_by": history}], "rootfs": {"type": "layers"}}
    parts = dict(zip(names, layers, strict=True))
    parts["config.json"] = json.dumps(config).encode()
    parts["manifest.json"] = json.dumps([{"Config": "config.json", "RepoTags": ["geoloc/code:0.1.0"], "Layers": names}]).encode()
    with tarfile.open(path, "w") as archive:
        for name, content in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def search(*arguments: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, check=False)


@pytest.fixture
def values(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "login").write_text(f"geoloc:{SECRET}\n")
    return folder


PLACES: dict[str, Callable[[Path], Path]] = {
    "a file that a later layer deletes": lambda path: image(
        path, tar(app__login=f"geoloc:{SECRET}".encode()), tar(app___wh_login=b"")
    ),
    "a compressed layer": lambda path: image(path, gzip.compress(tar(app__login=SECRET.encode()))),
    "an archive in an archive in a layer": lambda path: image(path, tar(opt__wheel=zipped(zipped(SECRET.encode())))),
    "a compressed log in a layer": lambda path: image(path, tar(var__log__pip=gzip.compress(SECRET.encode()))),
    "the environment": lambda path: image(path, tar(a=b""), env=f"KEY={SECRET}"),
    "the history": lambda path: image(path, tar(a=b""), history=f"RUN curl -u geoloc:{SECRET} http://x"),
    "percent-encoded": lambda path: image(path, tar(a=f"http://x/?key={urllib.parse.quote(SECRET, safe='')}".encode())),
    "a header of a login": lambda path: image(path, tar(a=b"Basic " + base64.b64encode(f"geoloc:{SECRET}".encode()))),
    "base64, one byte further": lambda path: image(path, tar(a=base64.b64encode(f"geoloc::{SECRET}..".encode()))),
    "base64, two bytes further": lambda path: image(path, tar(a=base64.b64encode(f"geoloc:::{SECRET}..".encode()))),
    "the name of a file": lambda path: image(path, tar(**{f"a__{SECRET.replace('/', '__')}": b""})),
    "across two pieces of a large file": lambda path: image(path, tar(a=b"\0" * (2**23 - 5) + SECRET.encode())),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_value_is_found_wherever_a_layer_holds_it(place: str, tmp_path: Path, values: Path) -> None:
    done = search("--values", values, "-", stdin=PLACES[place](tmp_path / "image.tar").read_bytes())
    assert done.returncode == 1, done
    assert b"a value that is secret" in done.stdout
    said = done.stdout + done.stderr
    assert SECRET.encode() not in said or place == "the name of a file"


def test_a_clean_image_is_clean(tmp_path: Path, values: Path) -> None:
    clean = image(tmp_path / "image.tar", tar(app__code=b"import os", _wh_gone=b""), gzip.compress(tar(b=zipped(b"c"))))
    done = search("--values", values, clean)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_layer_that_cannot_be_read_is_not_called_clean(tmp_path: Path) -> None:
    for layer in (b"\x28\xb5\x2f\xfd" + b"\0" * 600, gzip.compress(tar(a=b"b" * 9_000))[:-40], zipped(b"x")[:-30]):
        done = search(image(tmp_path / "image.tar", layer))
        assert done.returncode == 2
        assert b"not searched" in done.stderr
    assert search(tmp_path / "absent.tar").returncode == 2


# Put together here, so that this file holds nothing of which another scanner would say that it is one.
LOOKS = {
    "a private key": "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEpAIBAAKCAQEA7bq3vYd0aLw9Tz4xyzABCDEFGH",
    "a key of AWS": "AKIA" + "J7Q2M4K8P1R5T9W3",
    "a key of Google": "AIza" + "SyD" + "4mR9xKqLw2Vn8Zt6Yb1Cj5Hs7Fg3Pd0E",
    "a token of GitHub": "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "a token of Mapillary": "MLY|" + "1234567890123456|" + "0123456789abcdef" * 2,
    "a webhook of Slack": "https://hooks.slack.com/services/" + "T01ABCDEF/B02GHIJKL/abcdefghij0123456789",
    "a password in an address": "postgresql://dagster:" + "hunter2hunter2" + "@db.company.org",
    "a password by its name": "MLFLOW_PASSWORD=" + "9d8f7a6b5c4e3d2f1a0b9c8d7e6f",
}


@pytest.mark.parametrize("kind", LOOKS)
def test_what_looks_like_a_key_is_found_without_knowing_it(kind: str) -> None:
    seeking = finder.Search()
    seeking.text("a", f"x\n{LOOKS[kind]}\n".encode())
    assert [found for _, found in seeking.found.secrets] == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "password = getpass()", "SECRET: ${SECRET:?}", "token: /run/secrets/ray_token", "api_key=your-api-key-goes-here-please",
        "https://user:$PASSWORD@db.company.org", "https://a:for-the-docs@b.example.org",
        "postgresql+psycopg2://mlflow@127.0.0.1:5432/mlflow?passfile=/tmp/mlflow.pgpass",
    ],
)  # fmt: skip
def test_what_only_speaks_of_secrets_is_none(text: str) -> None:
    seeking = finder.Search()
    seeking.text("a", text.encode())
    assert seeking.found.secrets == []


# --- what is copied into images --------------------------------------------------------------------------------------
def copied(root: Path) -> list[Path]:
    """Every file of the build's context that a Dockerfile copies into an image, by `.dockerignore` and COPY."""
    kept = [line[1:] for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    dropped = [line for line in (root / ".dockerignore").read_text().splitlines() if line.startswith("**/")]
    sources: set[str] = set()
    for line in re.findall(r"(?m)^(?:COPY|ADD) (?!.*--from)(.+)$", (root / "docker" / "Dockerfile").read_text()):
        sources |= {word.removeprefix("./") for word in line.split()[:-1] if not word.startswith("--")}
    assert sources <= set(kept), "what is copied is in the context"
    assert set(kept) <= sources, "what is in the context is copied"
    files = [path for name in sources for path in ([root / name] if (root / name).is_file() else (root / name).rglob("*"))]
    hidden = [pattern.removeprefix("**/") for pattern in dropped]
    return [path for path in files if path.is_file() and not any(fnmatch.fnmatch(part, h) for part in path.parts for h in hidden)]


def findings(paths: list[Path]) -> list[tuple[str, str]]:
    seeking = finder.Search()
    for path in paths:
        seeking.path(path)
    assert seeking.found.unread == []
    return seeking.found.secrets


def test_nothing_that_is_copied_into_an_image_is_a_secret(tmp_path: Path) -> None:
    files = copied(ROOT)
    assert len(files) > 300
    assert findings(files) == []
    for name in (".dockerignore", "docker/Dockerfile", "docker/entrypoint.sh", "docker/bucket.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "requirements.lock", "README.md", "LICENSE"):
        (tmp_path / name).touch()
    (tmp_path / "geoloc_dagster").mkdir()
    (tmp_path / "geoloc_dagster" / ".env").write_text(LOOKS["a password by its name"])
    assert [kind for _, kind in findings(copied(tmp_path))] == ["a password by its name"], "the search would see one"


def test_nothing_that_git_tracks_looks_like_a_secret() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("no git checkout")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert findings([ROOT / name for name in names if (ROOT / name).is_file()]) == []
