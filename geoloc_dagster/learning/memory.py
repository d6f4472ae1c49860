"""Keep the memory that a training step frees for the next step, instead of giving it back to the system every time."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # malloc.h of the GNU C library


def keep_freed_memory() -> bool:
    """Tell the C library's allocator to reuse freed blocks of any size; True where it could be told (Linux with glibc).

    On the CPU a step allocates and frees the same hundreds of megabytes again and again; having every page mapped and
    zeroed anew cost 20 to 30 % of the time on a virtual machine (75,000 page faults a step against none). The process
    keeps its peak size until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 256 * 2**20))
    return all(mallopt(option, value) == 1 for option, value in options)
