"""What `geoloc.yaml` may say of a data root `s3://bucket/prefix`; never a credential."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import Field

from geoloc_dagster.config.section import Section

ENDPOINT: Final = re.compile(r"^https?://[^/@\s]+/?$")


class ObjectStorageSettings(Section):
    """The S3-compatible server that a data root `s3://…` lies in. Its keys come from AWS's variables or its credentials file."""

    endpoint: str | None = Field(
        default=None,
        pattern=ENDPOINT.pattern,
        description="http(s)://host:port of the server; else that of AWS_ENDPOINT_URL, else AWS's own.",
    )
    region: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9-]{1,63}$",
        description="That requests are signed for; else that of AWS_REGION, else us-east-1.",
    )
    working_copy: Path | None = Field(
        default=None,
        description="Folder for everything but tables, relative to this file; `working_copy` by default, GEOLOC_CACHE "
        "wins. It may be lost.",
    )
