"""Signatures of requests: the documented examples, and secrets that cannot be."""

from __future__ import annotations

import pytest

from geoloc_dagster.errors import ServiceKeyError
from geoloc_dagster.imagery.signature import sign


@pytest.mark.parametrize(
    ("secret", "path_and_query", "signature"),
    [
        (
            "vNIXE0xscrmjlyV-12Nj_BvUPaw=",
            "/maps/api/geocode/json?address=New+York&client=clientID",
            "chaRF2hTJKOScPr-RQCEhZbSzIE=",
        ),
        ("a2V5", "/maps/api/geocode/json?address=Sesame+St.&client=foo", "fxbWUIcNPZSekVOhp2ul9LW5TpY="),
    ],
)
def test_the_documented_examples(secret: str, path_and_query: str, signature: str):
    assert sign(path_and_query, secret) == signature


@pytest.mark.parametrize("secret", ["", "a2V", "a2V5!", "clé", "a2V5 a2V5"])
def test_an_unusable_secret_is_refused_without_being_repeated(secret: str):
    with pytest.raises(ServiceKeyError) as caught:
        sign("/path?key=x", secret)
    assert not secret or secret not in str(caught.value)
    assert caught.value.__cause__ is None
