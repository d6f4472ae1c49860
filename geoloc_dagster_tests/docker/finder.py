"""`docker/find_secrets.py` as a module: the script stands alone, in no package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "find_secrets.py"


def load() -> ModuleType:
    """The script, imported."""
    specification = importlib.util.spec_from_file_location("find_secrets", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules["find_secrets"] = module
    specification.loader.exec_module(module)
    return module
