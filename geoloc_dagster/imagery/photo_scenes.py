"""What a list says of the scene of a photo: its class out of 3, 16 and 365, and how likely each of the three is.

The columns are those of the collections re-published with labels of a Places365 network: S3_Label, S16_Label, S365_Label,
Prob_indoor, Prob_natural, Prob_urban.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from geoloc_dagster.dataset.scenes import PROBABILITIES, SCENES

CLASSES = {"scene_3": 3, "scene_16": 16, "scene_365": 365}
"""How many classes each label has."""
COLUMNS = (*CLASSES, *PROBABILITIES)
_MOST_OFF = 0.01  # published probabilities reach 1.00000008 and add up to 1 within 1e-6; rounded ones within this


class BadSceneError(Exception):
    """The list says something of the scene that cannot be; the message says what."""


def scene_of(row: Mapping[str, str]) -> dict[str, int | float]:
    """The columns of the scene that a row has a value for, by name.

    Args:
        row: texts by what their columns hold; empty ones say nothing.

    Raises:
        BadSceneError: a label is not one of its classes, or the probabilities are no probabilities of three scenes.
    """
    said: dict[str, int | float] = {name: _label(name, row[name]) for name in CLASSES if row.get(name)}
    texts = [row.get(name, "") for name in PROBABILITIES]
    if any(texts):
        said.update(zip(PROBABILITIES, _probabilities(texts), strict=True))
    return said


def _label(name: str, text: str) -> int:
    try:
        number = float(text)  # a column with gaps is one of floats to whoever wrote it
    except ValueError:
        number = math.nan
    if not (number.is_integer() and 0 <= number < CLASSES[name]):
        raise BadSceneError(f"its {name} {text[:40]!r} is not one of 0 to {CLASSES[name] - 1}")
    return int(number)


def _probabilities(texts: list[str]) -> list[float]:
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = [math.nan]
    if not (all(0 <= number <= 1 + _MOST_OFF for number in numbers) and abs(sum(numbers) - 1) <= _MOST_OFF):
        shown = ", ".join(repr(text[:20]) for text in texts)
        raise BadSceneError(f"its probabilities ({shown}) of {', '.join(SCENES)} are not three that add up to 1")
    return [min(number, 1.0) for number in numbers]
