"""What sections of `geoloc.yaml` have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]


class Section(BaseModel):
    """Unknown keys are errors: a misspelt option must not be a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
