"""A pointer: the one small file that is replaced when what is served changes.

It carries a sha256 over its own fields, and must be byte for byte what was written.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from geoloc_dagster import storage
from geoloc_dagster.errors import IntegrityError

_SEAL = "sha256"


def write_pointer(path: Path, fields: dict[str, Any]) -> None:
    """Replace the pointer atomically; a failure leaves the previous one."""
    storage.write_json(path, {**fields, _SEAL: _seal(fields)}, pointer=True)


def read_pointer(path: Path, remedy: str) -> dict[str, Any]:
    """The fields of a pointer.

    Raises:
        IntegrityError: it is missing, or a byte of it has changed.
    """
    try:
        content = path.read_bytes()
        value: Any = json.loads(content)
        fields = {name: field for name, field in value.items() if name != _SEAL}
        as_written = (json.dumps({**fields, _SEAL: _seal(fields)}, indent=2, sort_keys=True) + "\n").encode()
    except FileNotFoundError as error:
        raise IntegrityError(f"{path} is missing", remedy) from error
    except (ValueError, AttributeError) as error:
        raise IntegrityError(f"{path} has changed since it was written ({error})", remedy) from error
    if content != as_written:
        raise IntegrityError(f"{path} has changed since it was written (sha256 differs)", remedy)
    return fields


def _seal(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
