"""Named points at which a test can end the process without a word, as a power cut would.

`GEOLOC_FAILPOINT="writer.before_commit:3"` kills the process with SIGKILL when it passes that point for the third time.
Without the variable a point costs one comparison.
"""

from __future__ import annotations

import os
import signal

NAMES = (
    "file.opened",
    "file.written",
    "file.synced",
    "file.renamed",
    "object.put",
    "object.folder_put",
    "table.before_commit",
    "table.committed",
    "table.compacted",
    "table.pinned",
    "table.tidied",
    "table.sealed",
    "table.before_merge",
    "table.merged",
    "ledger.begun",
    "ledger.taken",
    "ledger.committed",
    "bucket.claimed",
    "client.turn",
    "client.paid",
    "client.connected",
    "client.received",
    "client.judged",
    "lookups.begun",
    "lookups.answered",
    "lookups.before_commit",
    "lookups.committed",
    "locations.before_write",
    "locations.written",
    "collect.begun",
    "collect.compared",
    "collect.connected",
    "collect.found",
    "collect.history",
    "collect.received",
    "collect.visited",
    "collect.disconnected",
    "writer.row",
    "writer.before_commit",
    "writer.captures_committed",
    "writer.visits_committed",
    "bulk.fetched",
    "bulk.row",
    "bulk.written",
    "bulk.committed",
    "crops.begun",
    "crops.made",
    "crops.written",
    "scenes.begun",
    "scenes.made",
    "scenes.written",
    "maps.begun",
    "maps.made",
    "maps.written",
    "export.shard_written",
    "forget.buried",
    "table.deleted",
    "table.purged",
)
"""Every point, in the order in which a collection meets them."""

_armed, _, _count = os.environ.get("GEOLOC_FAILPOINT", "").partition(":")
_left = int(_count or 1)


def failpoint(name: str) -> None:
    """Pass a point; the process does not survive the armed one."""
    global _left
    if name != _armed:
        return
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
