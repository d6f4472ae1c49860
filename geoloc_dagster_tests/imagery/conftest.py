"""Fixtures of these tests."""

from geoloc_dagster_tests.imagery.disks import small_disk  # noqa: F401 (a fixture is used by its name)
