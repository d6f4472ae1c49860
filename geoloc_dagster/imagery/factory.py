"""From the configuration to what pictures and lookups come from."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.settings import ServiceSettings
from geoloc_dagster.errors import ConfigError, ServiceKeyError
from geoloc_dagster.imagery.folder import FolderProvider
from geoloc_dagster.imagery.provider import Provider, Terms

if TYPE_CHECKING:
    from geoloc_dagster.imagery.client import Budget, ServiceClient
    from geoloc_dagster.imagery.google import GoogleStreetView
    from geoloc_dagster.imagery.panoramax import Panoramax

_NO_LIMIT = 2**62
_FREE = ("emulator", "panoramax", "photo_list")
IMAGE_CHARGE = "image"  # the ledger's word for a picture asked for
_URLS = {"google": "https://maps.googleapis.com", "panoramax": "https://api.panoramax.xyz"}
_RATE = {
    "google": 20.0,
    "panoramax": 5.0,
    "emulator": 500.0,
    "photo_list": 10.0,
}  # requests a second; the emulator is this machine's own


def provider_terms(settings: Settings) -> Terms:
    """The terms that every row of the region's pictures will carry."""
    capture = settings.capture
    if capture.provider == "google":
        return Terms("proprietary", "© Google", may_store=False, may_train=False, permission=capture.permission)
    if capture.provider == "emulator":
        return Terms("CC0-1.0", "emulated city")
    if capture.provider == "panoramax":  # each picture names its own licence; those that are not open are left out
        return Terms("NOASSERTION", "Panoramax contributors", permission=capture.permission)
    open_licence = capture.licence.lower() != "proprietary"
    return Terms(
        licence=capture.licence,
        attribution=capture.attribution,
        may_store=open_licence,
        may_train=open_licence,
        permission=capture.permission,
    )


def build_provider(settings: Settings, *, emulator_url: Callable[[], str], now: Callable[[], dt.datetime]) -> Provider:
    """The provider that `capture.provider` names, with the terms that its rows will carry.

    Args:
        settings: the region.
        emulator_url: gives the address of a running emulator; called only where the configuration names it.
        now: aware; its date (UTC) is the day of the budgets.

    Raises:
        ServiceKeyError: the service wants a key and the environment has none.
    """
    capture = settings.capture
    if capture.provider == "photo_list":
        from geoloc_dagster.imagery.photo_batch import job_of, registered_photos

        layout = Layout(settings.data_root)
        return job_of(settings, layout, batch="", run_id="", now=now()).provider(
            photos_of=lambda ids: registered_photos(layout, ids)
        )
    if capture.provider != "folder":
        return build_service(settings, capture.provider, emulator_url=emulator_url, now=now)
    sources = [settings.resolve(source) for source in capture.sources]
    return FolderProvider(sources, provider_terms(settings), fov_deg=capture.fov_deg)


def build_service(
    settings: Settings, name: str, *, emulator_url: Callable[[], str], now: Callable[[], dt.datetime]
) -> GoogleStreetView | Panoramax:
    """The live service of that name, for lookups and pictures; raises as those below."""
    if name == "panoramax":
        return _build_panoramax(settings, now)
    return build_street_view(settings, name, emulator_url=emulator_url, now=now)


def build_street_view(
    settings: Settings, name: str, *, emulator_url: Callable[[], str], now: Callable[[], dt.datetime]
) -> GoogleStreetView:
    """A client of the street-view API named `google` or `emulator`, for lookups and pictures.

    Raises:
        ServiceKeyError: the service wants a key and the environment has none.
        ConfigError: the emulator is asked for under somebody else's address.
    """
    from geoloc_dagster.imagery.google import GoogleStreetView

    service, capture = settings.service, settings.capture
    emulated = name == "emulator"
    if emulated and service.base_url is not None:
        raise ConfigError(
            "service.base_url is set although the provider is `emulator`", "Leave it out, or set GEOLOC_EMULATOR_URL."
        )
    key = os.environ.get(service.key_variable) or None
    if key is None and not emulated:
        raise ServiceKeyError(f"the environment variable {service.key_variable} is not set, and `{name}` wants a key")
    return GoogleStreetView(
        _client(settings, name, emulator_url() if emulated else None, now),
        provider_terms(settings),
        name=name,
        key=key,
        signing_secret=os.environ.get(service.signing_secret_variable) or None,
        radius_m=settings.coverage.radius_m,
        outdoor_only=settings.coverage.outdoor_only,
        size=capture.size,
        history=capture.history,
        has_history=emulated,
    )


def _build_panoramax(settings: Settings, now: Callable[[], dt.datetime]) -> Panoramax:
    from geoloc_dagster.imagery.panoramax import Panoramax

    capture = settings.capture
    return Panoramax(
        _client(settings, "panoramax", None, now),
        provider_terms(settings),
        radius_m=settings.coverage.radius_m,
        size=capture.size,
        fov_deg=capture.fov_deg,
        history=capture.history,
    )


def _client(settings: Settings, name: str, emulator_url: str | None, now: Callable[[], dt.datetime]) -> ServiceClient:
    """A client with the configuration's etiquette, budgets and way out; the emulator is asked directly."""
    from geoloc_dagster.imagery.buckets import HostBuckets, host_buckets_path
    from geoloc_dagster.imagery.client import Etiquette, ServiceClient
    from geoloc_dagster.imagery.egress import Egress
    from geoloc_dagster.imagery.ledger import Ledger

    service, layout = settings.service, Layout(settings.data_root)
    etiquette = Etiquette(
        requests_per_second=service.requests_per_second or _RATE[name],
        concurrency=service.concurrency,
        deadline_s=service.deadline_s,
        max_bytes=service.max_bytes,
        attempts=service.attempts,
    )
    egress = Egress.parse(settings.egress.proxy, settings.egress.credentials_variable)
    return ServiceClient(
        name,
        emulator_url or service.base_url or _URLS[name],
        etiquette,
        ledger=Ledger(layout.ledger),
        budgets=daily_budgets(service),
        buckets=HostBuckets(host_buckets_path()),
        today=lambda: now().date(),
        evidence=layout.evidence,
        proxy=egress.proxy() if emulator_url is None else None,
    )


def daily_budgets(service: ServiceSettings) -> list[Budget]:
    """What the configuration allows a day, as the ledger counts it; what has no limit is counted all the same."""
    from geoloc_dagster.imagery.client import Budget

    images, requests, most = service.images_per_day, service.requests_per_day, service.bytes_per_day
    dollars, price = service.dollars_per_day, round(service.dollars_per_1000_images * 1_000)
    return [
        Budget(IMAGE_CHARGE, images, {IMAGE_CHARGE: 1}, f"{images:,} requests for a picture a day"),
        Budget("request", _NO_LIMIT if requests is None else requests, {}, f"{requests or 0:,} requests a day"),
        Budget("byte", _NO_LIMIT if most is None else most, {}, f"{most or 0:,} bytes a day"),
        Budget(
            "microdollar",
            _NO_LIMIT if dollars is None else round(dollars * 1_000_000),
            {IMAGE_CHARGE: price},
            f"{dollars or 0:,.2f} dollars a day",
        ),
    ]


def spent_today(settings: Settings, today: dt.date) -> dict[str, float]:
    """What the provider of pictures has been asked for today: pictures, requests, bytes, dollars; empty for a folder."""
    if settings.capture.provider == "folder":
        return {}
    from geoloc_dagster.imagery.ledger import Ledger

    ledger, name = Ledger(Layout(settings.data_root).ledger), settings.capture.provider
    used = {what: ledger.used(name, today, what) for what in (IMAGE_CHARGE, "request", "byte", "microdollar")}
    dollars = 0.0 if name in _FREE else used["microdollar"] / 1_000_000
    return {"pictures": used[IMAGE_CHARGE], "requests": used["request"], "bytes": used["byte"], "dollars": dollars}


def images_left(settings: Settings, today: dt.date) -> int | None:
    """What is left of today's budget of pictures; None where none is needed."""
    if settings.capture.provider == "folder":
        return None
    from geoloc_dagster.imagery.ledger import Ledger

    used = Ledger(Layout(settings.data_root).ledger).used(settings.capture.provider, today, IMAGE_CHARGE)
    return max(0, settings.service.images_per_day - used)
