"""Signing the URLs of street-view requests: HMAC-SHA1 over path and query, as Google's Maps services ask for it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac

from geoloc_dagster.errors import ServiceKeyError


def sign(path_and_query: str, secret: str) -> str:
    """The `signature` parameter of one request, URL-safe base64.

    Args:
        path_and_query: from the first slash of the path to the end of the query, encoded as it is sent, without a signature.
        secret: the signing secret as it is handed out, URL-safe base64.

    Raises:
        ServiceKeyError: the secret is no URL-safe base64; it is not repeated in the message.
    """
    return base64.urlsafe_b64encode(hmac.new(_secret_bytes(secret), path_and_query.encode(), hashlib.sha1).digest()).decode()


def _secret_bytes(secret: str) -> bytes:
    try:
        decoded = base64.b64decode(secret.encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ServiceKeyError(f"the URL signing secret is not URL-safe base64 ({type(error).__name__})") from None
    if not decoded:
        raise ServiceKeyError("the URL signing secret is empty")
    return decoded
