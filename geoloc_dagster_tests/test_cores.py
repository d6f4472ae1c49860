"""Threads that wait for each other leave the cores to other work, wherever torch is loaded by us."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from geoloc_dagster import cli
from geoloc_dagster.cores import share_cores
from geoloc_dagster.defs import build_definitions
from geoloc_dagster.starter import write_region

SPINS = "GOMP_SPINCOUNT"


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SPINS, "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what is set in a test is taken back after it
        del os.environ[name]


def test_what_the_environment_says_is_kept(monkeypatch: pytest.MonkeyPatch):
    share_cores()
    assert os.environ[SPINS] == "1000"
    monkeypatch.setenv(SPINS, "7")
    share_cores()
    assert os.environ[SPINS] == "7"
    monkeypatch.delenv(SPINS)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    share_cores()
    assert SPINS not in os.environ


def test_commands_share_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["geoloc", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ[SPINS] == "1000"


def test_what_dagster_starts_shares_the_cores(tmp_path: Path):
    write_region(tmp_path / "here")
    build_definitions(tmp_path / "here")
    assert os.environ[SPINS] == "1000"
