"""Freed memory is reused: a second round of the same allocations maps no new pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

_ROUNDS = """
import resource, sys
from geoloc_dagster.learning.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        block = bytearray(64 * 2**20)
        del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the GNU C library's allocator is asked")
def test_freed_memory_is_reused():
    kept, plain = (
        int(subprocess.run([sys.executable, "-c", _ROUNDS, mode], capture_output=True, check=True, text=True).stdout)
        for mode in ("keep", "plain")
    )
    assert kept < 1000
    assert kept < plain / 10
