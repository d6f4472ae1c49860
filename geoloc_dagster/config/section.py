"""What sections of `geoloc.yaml` have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Unknown keys are errors: a misspelt option must not be a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)
