"""What the libraries that reach object storage say when they cannot, as one error with a remedy."""

from __future__ import annotations

import re

from geoloc_dagster.errors import ObjectStorageError

_CODE = re.compile(r"<Code>(?P<code>\w+)</Code>")
_STATUS = re.compile(r"status code: (?P<status>\d{3} [A-Za-z ]+)")
_ASKED = re.compile(r"(?P<method>GET|PUT|HEAD|POST|DELETE) (?P<place>\S+?)(?:\?\S*)? in ")
_REMEDIES = {
    "credentials": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE and AWS_PROFILE, to keys "
    "that may read and write there.",
    "bucket": "Make the bucket, or correct `data_root`; nothing here makes buckets.",
}


def storage_problem(error: BaseException) -> ObjectStorageError | None:
    """The error behind an exception of obstore or Lance; None where it is about something else."""
    text = str(error)
    if "Generic S3 error" not in text and "NoSuchBucket" not in text and not type(error).__module__.startswith("obstore"):
        return None
    code, status, asked = _CODE.search(text), _STATUS.search(text), _ASKED.search(text)
    said = code["code"] if code else status["status"].strip() if status else "the connection failed or was cut"
    where = f" at {asked['method']} {asked['place']}" if asked else ""
    return ObjectStorageError(f"object storage: {said}{where}", _remedy(said))


def _remedy(said: str) -> str | None:
    if said in ("AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "ExpiredToken") or said.startswith(("401", "403")):
        return _REMEDIES["credentials"]
    return _REMEDIES["bucket"] if said == "NoSuchBucket" else None
