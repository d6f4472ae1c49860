"""The entry point that Dagster loads when no region folder is named: the region of GEOLOC_CONFIG or `./geoloc.yaml`."""

import dagster as dg

from geoloc_dagster.defs import build_definitions


@dg.definitions
def defs() -> dg.Definitions:
    """Build the region's definitions when Dagster asks for them, so that importing this module stays free."""
    return build_definitions()
