"""Find a region's `geoloc.yaml`, read it into `Settings`, and claim its data root.

The file is the one named by `--config`, else by `GEOLOC_CONFIG`, else `./geoloc.yaml`. The data root is the one named by
`--data-root`, else by `GEOLOC_DATA_ROOT`, else by the file's `data_root`, which is relative to the file.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from geoloc_dagster import __version__
from geoloc_dagster.config.document import Document, read_document, validate
from geoloc_dagster.config.layout import Layout
from geoloc_dagster.config.object_storage import ENDPOINT
from geoloc_dagster.config.settings import Settings
from geoloc_dagster.errors import ConfigError, ConfigNotFoundError, DataRootError, IntegrityError, SchemaVersionError
from geoloc_dagster.object_storage.binding import attach, working_copy_at
from geoloc_dagster.storage import SCHEMA_VERSION, read_json, translated_errors, write_json

CONFIG_NAME = "geoloc.yaml"
CONFIG_VERSION = 1
CONFIG_VARIABLE = "GEOLOC_CONFIG"
DATA_ROOT_VARIABLE = "GEOLOC_DATA_ROOT"
CACHE_VARIABLE = "GEOLOC_CACHE"
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")  # `Path` has already joined double slashes
_S3 = re.compile(r"s3:/{1,2}(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/+(?P<prefix>[\w./-]*))?")


def find_config(path: Path | None, environ: Mapping[str, str], cwd: Path) -> Path:
    """The configuration file that applies.

    Raises:
        ConfigNotFoundError: naming the place that was looked at, and all three ways to name a file.
    """
    named = environ.get(CONFIG_VARIABLE)
    if path is not None:
        candidate, origin = path, "named by --config"
    elif named:
        candidate, origin = Path(named), f"named by {CONFIG_VARIABLE}"
    else:
        candidate, origin = Path(CONFIG_NAME), "looked for because neither --config nor GEOLOC_CONFIG names one"
    candidate = (cwd / candidate.expanduser()).resolve()
    if candidate.is_dir():
        candidate = candidate / CONFIG_NAME
    if not candidate.is_file():
        raise ConfigNotFoundError(f"there is no configuration {candidate} ({origin})")
    return candidate


def load_settings(
    path: Path | None = None,
    *,
    data_root: Path | None = None,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Settings:
    """Read the settings of a region, with `data_root` absolute and `folder` set to where the file lies.

    Args:
        path: a YAML file, or a folder with a `geoloc.yaml`; found as the module says when None.
        data_root: wins over the environment and the file; relative to `cwd`.
        environ: the process environment when None.
        cwd: the working directory when None.

    Raises:
        ConfigNotFoundError: no file was named or found.
        ConfigError: a line of the file is wrong.
        SchemaVersionError: the file is for a newer version of this package.
        DataRootError: the data root is a URL of another kind than s3://bucket/prefix.
    """
    environ = os.environ if environ is None else environ
    cwd = Path.cwd() if cwd is None else cwd
    config = find_config(path, environ, cwd)
    document = read_document(config, environ)
    _refuse_newer(document)
    settings = validate(document, Settings, hidden=frozenset({"folder", "data_url"}))
    chosen = data_root or (Path(environ[DATA_ROOT_VARIABLE]) if environ.get(DATA_ROOT_VARIABLE) else None)
    written = str(chosen if chosen is not None else document.values.get("data_root", settings.data_root))
    if _URL.match(written):
        return _in_object_storage(settings.model_copy(update={"folder": config.parent}), written, environ, cwd)
    root = (cwd if chosen is not None else config.parent) / Path(written).expanduser()
    copy = working_copy_at(root.resolve())  # named by a process that was started for a data root in object storage
    url = None if copy is None else str(copy.store)
    return settings.model_copy(update={"folder": config.parent, "data_root": root.resolve(), "data_url": url})


def _in_object_storage(settings: Settings, url: str, environ: Mapping[str, str], cwd: Path) -> Settings:
    """The settings of a data root in object storage: `data_root` is its working copy, which is made here; nothing is asked."""
    found = _S3.fullmatch(url)
    prefix = (found["prefix"] or "").strip("/") if found else ""
    if found is None or any(part in ("", ".", "..") or part.startswith(".") for part in prefix.split("/") if prefix):
        raise DataRootError(f"the data root {url} is neither a local folder nor s3://bucket/prefix")
    named = environ.get(CACHE_VARIABLE)
    cache = (
        cwd / Path(named).expanduser()
        if named
        else settings.resolve(settings.object_storage.working_copy or Path("working_copy"))
    )
    root = (cache / found["bucket"] / prefix).resolve()
    said = settings.object_storage
    endpoint = said.endpoint or environ.get("AWS_ENDPOINT_URL") or None
    if endpoint is not None and not ENDPOINT.match(endpoint):
        raise ConfigError("AWS_ENDPOINT_URL is not http(s)://host:port", "Correct it, or set `object_storage.endpoint`.")
    region = said.region or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = None if endpoint is None else endpoint.rstrip("/")
    with translated_errors(root):
        attach(root, bucket=found["bucket"], prefix=prefix, endpoint=endpoint, region=region)
    return settings.model_copy(update={"data_root": root, "data_url": f"s3://{found['bucket']}/{prefix}".rstrip("/")})


def open_data_root(settings: Settings) -> Layout:
    """Where a region's artifacts lie, with what other machines have published; for commands that only read.

    Raises:
        ObjectStorageError: the data root is in object storage, and that cannot be reached.
    """
    copy = working_copy_at(settings.data_root)
    if copy is not None:
        copy.pull()
    return Layout(settings.data_root)


def claim_data_root(settings: Settings) -> Layout:
    """Create the data root, make sure that it can be written, and mark it as this region's.

    Raises:
        DataRootError: it cannot be written, or belongs to another region.
        ObjectStorageError: it is in object storage, which cannot be reached, or does not honour conditional writes.
        SchemaVersionError: a newer version of this package wrote it.
        IntegrityError: its marker is damaged.
    """
    check_writable(settings.data_root)
    layout = open_data_root(settings)
    if not layout.marker.exists():
        facts = {"region": settings.region.name, "schema_version": SCHEMA_VERSION, "created_by": f"geoloc_dagster {__version__}"}
        write_json(layout.marker, facts, pointer=True)
    copy = working_copy_at(layout.root)
    if copy is not None:
        copy.store.prove_conditions(copy.name_of(layout.marker), layout.marker.read_bytes())
    _check_marker(layout, settings.region.name)
    return layout


def check_writable(root: Path) -> None:
    """Create a folder if need be and prove that files can be made in it.

    Raises:
        DataRootError: naming the folder and the reason.
    """
    if root.exists() and not root.is_dir():
        raise DataRootError(f"the data root {root} is a file, not a folder")
    try:
        with translated_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root):
                pass
    except OSError as error:
        raise DataRootError(f"cannot write {root}: {error.strerror or error}") from error


def resolved_yaml(settings: Settings) -> str:
    """The settings as YAML, with defaults written out and paths as they resolve."""

    def plain(value: Any) -> Any:
        if isinstance(value, BaseModel):
            fields = type(value).model_fields
            return {name: plain(getattr(value, name)) for name, field in fields.items() if not field.exclude}
        if isinstance(value, Path):
            return str(settings.resolve(value))
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return value

    said = plain(settings)
    if settings.data_url is not None:
        said["data_root"] = settings.data_url
    return yaml.safe_dump(said, sort_keys=False, allow_unicode=True)


def _refuse_newer(document: Document) -> None:
    version = document.values.get("version", CONFIG_VERSION)
    if isinstance(version, int) and version > CONFIG_VERSION:
        raise SchemaVersionError(
            f"{document.path}, line {document.line_of(('version',))}: version {version}; this package reads {CONFIG_VERSION}"
        )


def _check_marker(layout: Layout, region: str) -> None:
    marker = read_json(layout.marker)
    if not isinstance(marker, dict) or not isinstance(marker.get("region"), str):
        raise IntegrityError(f"{layout.marker} does not name a region", "Restore it, or choose another data root.")
    if marker.get("schema_version", 0) > SCHEMA_VERSION:
        raise SchemaVersionError(
            f"{layout.root} was written with schema version {marker['schema_version']}; this package knows {SCHEMA_VERSION}"
        )
    if marker["region"] != region:
        raise DataRootError(f"the data root {layout.root} belongs to region {marker['region']!r}, this is {region!r}")
