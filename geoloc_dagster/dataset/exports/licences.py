"""Which licences may lie in one export, and under which one the whole then stands.

Every picture keeps its own licence and attribution; the question is what somebody may do with the whole. Sources: the
compatibility pages of Creative Commons (BY-SA 4.0 takes in BY 4.0 and BY-SA 3.0, nothing takes in ND) and of Etalab (2.0 is
compatible with BY 4.0).
"""

from __future__ import annotations

from collections.abc import Mapping

from geoloc_dagster.errors import ExportError

_PERMISSIVE = ("CC0-1.0", "PDDL-1.0", "CC-BY-3.0", "CC-BY-4.0", "etalab-2.0", "OGL-UK-3.0", "ODC-By-1.0")
_SHARE_ALIKE = ("CC-BY-SA-3.0", "CC-BY-SA-4.0")
_REMEDY = "Choose with --licence, and export the others into a folder of their own."


def combined_licence(counts: Mapping[str, int], *, restricted: bool = False) -> str:
    """The licence of an export that holds so many pictures of each licence (SPDX ids, `proprietary`, `NOASSERTION`).

    Args:
        counts: pictures by licence.
        restricted: whether pictures that may not be passed on are wanted all the same, for the permission's holder alone.

    Raises:
        ExportError: they do not mix, or may not be passed on.
    """
    names = sorted(counts)
    said = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
    closed = [name for name in names if name in ("proprietary", "NOASSERTION")]
    if closed and len(names) > 1:
        raise ExportError(f"pictures of {said} do not go into one export: {closed[0]} mixes with nothing", _REMEDY)
    if closed and not restricted:
        raise ExportError(
            f"{said} pictures may not be passed on",
            "With --restricted they are exported for whoever holds the permission, and marked so.",
        )
    if len(names) == 1:
        return names[0]
    if all(name in _PERMISSIVE for name in names):
        return "CC-BY-4.0" if any(name not in ("CC0-1.0", "PDDL-1.0") for name in names) else "CC0-1.0"
    if all(name in (*_PERMISSIVE, *_SHARE_ALIKE) for name in names):
        return "CC-BY-SA-4.0"
    alone = next(name for name in names if name not in (*_PERMISSIVE, *_SHARE_ALIKE))
    raise ExportError(f"pictures of {said} do not go into one export: {alone} sets conditions of its own", _REMEDY)
