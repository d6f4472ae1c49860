"""From the configuration to a provider."""

from __future__ import annotations

from geoloc_dagster.config import Settings
from geoloc_dagster.imagery.folder import FolderProvider
from geoloc_dagster.imagery.provider import Provider, Terms


def build_provider(settings: Settings) -> Provider:
    """The provider that `capture.provider` names, with the terms that its rows will carry."""
    capture = settings.capture
    open_licence = capture.licence.lower() != "proprietary"
    terms = Terms(
        licence=capture.licence,
        attribution=capture.attribution,
        may_store=open_licence,
        may_train=open_licence,
        permission=capture.permission,
    )
    return FolderProvider([settings.resolve(source) for source in capture.sources], terms, fov_deg=capture.fov_deg)
