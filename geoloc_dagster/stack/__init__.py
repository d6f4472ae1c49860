"""Everything that production runs, as processes of one machine: what `geoloc stack` starts, watches and ends.

The same services run in containers (`docker/compose.yaml`), from the same templates.
"""
