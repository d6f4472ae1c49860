"""Ctrl+C is told from a failure wherever it arrives, also while a library is calling us back."""

from __future__ import annotations

import sys

import dagster as dg
import pyarrow as pa
import pytest
from dagster._utils.error import SerializableErrorInfo, serializable_error_info_from_exc_info

from geoloc_dagster.defs.headless import was_interrupted


def record_of(error: BaseException, *, before: BaseException | None = None) -> SerializableErrorInfo:
    """As Dagster keeps it, raised while `before` was dealt with."""
    try:
        if before is None:
            raise error
        try:
            raise before
        except BaseException:  # noqa: BLE001 - Ctrl+C is none of the others
            raise error  # noqa: B904 - as libraries do that know nothing of it
    except BaseException:  # noqa: BLE001
        return serializable_error_info_from_exc_info(sys.exc_info())


@pytest.mark.parametrize(
    "error",
    [
        record_of(dg.DagsterExecutionInterruptedError()),
        record_of(KeyboardInterrupt()),
        record_of(pa.ArrowInvalid("External error: DagsterExecutionInterruptedError: ")),
        record_of(OSError("cannot read"), before=KeyboardInterrupt()),
    ],
    ids=["dagster", "python", "in the text of Arrow's", "before another"],
)
def test_ctrl_c_is_told_wherever_it_arrives(error: SerializableErrorInfo):
    assert was_interrupted(error)


def test_other_errors_are_failures():
    assert not was_interrupted(None)
    assert not was_interrupted(record_of(pa.ArrowInvalid("External error: ValueError")))
    assert not was_interrupted(record_of(OSError("cannot read"), before=ValueError("x")))
