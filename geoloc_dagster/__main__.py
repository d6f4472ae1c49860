"""`python -m geoloc_dagster` is the same as `geoloc`."""

from geoloc_dagster.cli import main

main()
