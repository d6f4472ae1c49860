"""Panorama ids of the emulated service: 22 characters without a meaning to anyone else, and no table behind them.

An id hides place, date number and generation behind a keyed permutation of 128 bits, 40 of which are zero, so that a made-up
id is recognised. The generation rises on one night in twenty, as panorama ids of real services change; older ids then name
nothing.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import hashlib
import re
from typing import NamedTuple

NIGHTS_PER_CHANGE = 20
"""A night changes an id with a probability of exactly one in this many."""

_ROUNDS = 4
_CHECK_BYTES = 5
_SHAPE = re.compile(r"[A-Za-z0-9_-]{22}")


class PanoramaIdentity(NamedTuple):
    """What an id stands for: date `number` of place `place_id`, under the name it had in `generation`."""

    place_id: int
    number: int
    generation: int


class PanoramaIds:
    """Makes and reads the ids of one city.

    Args:
        seed: of the city; cities of other seeds have other ids.
    """

    def __init__(self, seed: int) -> None:
        self._rounds = [_keyed(f"round {index} of {seed}", 8) for index in range(_ROUNDS)]
        self._calendar = _keyed(f"calendar of {seed}", 8)

    def current(self, place_id: int, number: int, today: dt.date) -> str:
        """The id of a panorama on a day."""
        return self.encode(PanoramaIdentity(place_id, number, self.generation(place_id, number, today)))

    def encode(self, identity: PanoramaIdentity) -> str:
        """22 URL-safe base64 characters."""
        block = b"".join(
            (
                identity.place_id.to_bytes(7, "big"),
                identity.number.to_bytes(1, "big"),
                identity.generation.to_bytes(3, "big"),
                bytes(_CHECK_BYTES),
            )
        )
        left, right = block[:8], block[8:]
        for keyed in self._rounds:
            left, right = right, _mix(left, right, keyed)
        return base64.urlsafe_b64encode(left + right)[:22].decode()

    def decode(self, text: str) -> PanoramaIdentity | None:
        """What `encode` was given; None for any string that it never returns."""
        if not _SHAPE.fullmatch(text):
            return None
        try:
            block = base64.urlsafe_b64decode(text + "==")
        except binascii.Error:
            return None
        left, right = block[:8], block[8:]
        for keyed in reversed(self._rounds):
            left, right = _mix(right, left, keyed), left
        block = left + right
        if any(block[-_CHECK_BYTES:]):
            return None
        identity = PanoramaIdentity(*(int.from_bytes(part, "big") for part in (block[:7], block[7:8], block[8:11])))
        return identity if self.encode(identity) == text else None  # the last character has four bits that decoding ignores

    def generation(self, place_id: int, number: int, today: dt.date) -> int:
        """How often the id has changed up to and including last night; a pure function of its arguments and the seed.

        Nights fall into spans of `NIGHTS_PER_CHANGE`, offset per panorama, with one change at a random night of each span.
        """
        who = place_id.to_bytes(7, "big") + number.to_bytes(1, "big")
        night = today.toordinal() + _digest(self._calendar, who) % NIGHTS_PER_CHANGE
        span, within = divmod(night, NIGHTS_PER_CHANGE)
        change = _digest(self._calendar, who + span.to_bytes(4, "big")) % NIGHTS_PER_CHANGE
        return span + (within >= change)


def _keyed(key: str, digest_bytes: int) -> hashlib.blake2b:
    return hashlib.blake2b(key=hashlib.blake2b(key.encode(), digest_size=32).digest(), digest_size=digest_bytes)


def _digest(keyed: hashlib.blake2b, content: bytes) -> int:
    copy = keyed.copy()
    copy.update(content)
    return int.from_bytes(copy.digest(), "big")


def _mix(half: bytes, other: bytes, keyed: hashlib.blake2b) -> bytes:
    return (int.from_bytes(half, "big") ^ _digest(keyed, other)).to_bytes(8, "big")
