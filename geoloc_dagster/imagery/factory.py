"""From the configuration to what pictures and lookups come from."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.config.collection import ServiceSettings
from geoloc_dagster.errors import ConfigError, ServiceKeyError
from geoloc_dagster.imagery.folder import FolderProvider
from geoloc_dagster.imagery.provider import Provider, Terms
from geoloc_dagster.imagery.purse import IMAGE_CHARGE, TILE_CHARGE, Budget

if TYPE_CHECKING:
    from geoloc_dagster.imagery.client import ServiceClient
    from geoloc_dagster.imagery.google import GoogleStreetView
    from geoloc_dagster.imagery.google_maps import GoogleMaps
    from geoloc_dagster.imagery.mapillary import Mapillary
    from geoloc_dagster.imagery.panoramax import Panoramax

_NO_LIMIT = 2**62
_FREE = ("emulator", "google_maps", "mapillary", "panoramax", "photo_list")
_GOOGLE, _PANORAMAX = "https://maps.googleapis.com", "https://api.panoramax.xyz"
_GOOGLE_MAPS = "https://www.google.com"
_RATE = {
    "google": 20.0,
    "google_maps": 0.5,
    "panoramax": 5.0,
    "mapillary": 10.0,
    "emulator": 500.0,
    "photo_list": 10.0,
}  # requests a second; the emulator is this machine's own


def provider_terms(settings: Settings) -> Terms:
    """The terms that every row of the region's pictures will carry."""
    capture = settings.capture
    if capture.provider in ("google", "google_maps"):
        return Terms("proprietary", "© Google", may_store=False, may_train=False, permission=capture.permission)
    if capture.provider == "emulator":
        return Terms("CC0-1.0", "emulated city")
    if capture.provider == "panoramax":  # each picture names its own licence; those that are not open are left out
        return Terms("NOASSERTION", "Panoramax contributors", permission=capture.permission)
    if capture.provider == "mapillary":
        from geoloc_dagster.imagery.mapillary import TERMS

        return TERMS
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
    if capture.provider == "google_maps":
        return _build_google_maps(settings, now)
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
) -> GoogleStreetView | Panoramax | Mapillary:
    """The live service of that name, for lookups and pictures; raises as those below."""
    if name == "mapillary":
        return _build_mapillary(settings, now)
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
    key = os.environ.get(service.key_variable) if emulated else _key(service, name)
    return GoogleStreetView(
        _client(settings, name, emulator_url() if emulated else service.base_url or _GOOGLE, now),
        provider_terms(settings),
        name=name,
        key=key or None,
        signing_secret=os.environ.get(service.signing_secret_variable) or None,
        radius_m=settings.coverage.radius_m,
        outdoor_only=settings.coverage.outdoor_only,
        size=capture.size,
        history=capture.history,
        has_history=emulated,
    )


def build_emulated_maps(settings: Settings, *, emulator_url: Callable[[], str], now: Callable[[], dt.datetime]) -> ServiceClient:
    """A client of the emulator that the region's pictures are of, for their class maps."""
    service = settings.service
    base_url = emulator_url() if settings.capture.provider == "emulator" else service.base_url or "http://127.0.0.1"
    client = _client(settings, "emulator", base_url, now)
    client.use_key(os.environ.get(service.key_variable) or None, os.environ.get(service.signing_secret_variable) or None)
    return client


def _build_panoramax(settings: Settings, now: Callable[[], dt.datetime]) -> Panoramax:
    from geoloc_dagster.imagery.panoramax import Panoramax

    capture = settings.capture
    return Panoramax(
        _client(settings, "panoramax", settings.service.base_url or _PANORAMAX, now),
        provider_terms(settings),
        radius_m=settings.coverage.radius_m,
        size=capture.size,
        fov_deg=capture.fov_deg,
        history=capture.history,
    )


def _build_mapillary(settings: Settings, now: Callable[[], dt.datetime]) -> Mapillary:
    """Its two hosts are two clients of one token and one ledger; under `service.base_url` they are two paths."""
    from geoloc_dagster.imagery.mapillary import GRAPH_PATH, GRAPH_URL, TILES_PATH, TILES_URL, Mapillary

    service, capture = settings.service, settings.capture
    base_url = None if service.base_url is None else service.base_url.rstrip("/")
    urls = (GRAPH_URL, TILES_URL) if base_url is None else (base_url + GRAPH_PATH, base_url + TILES_PATH)
    graph, tiles = (_client(settings, "mapillary", url, now) for url in urls)
    token = _key(service, "mapillary")
    for client in (graph, tiles):
        client.use_key(token, parameter="access_token")
    return Mapillary(
        graph,
        tiles,
        provider_terms(settings),
        radius_m=settings.coverage.radius_m,
        size=capture.size,
        fov_deg=capture.fov_deg,
        history=capture.history,
    )


def _key(service: ServiceSettings, name: str) -> str:
    key = os.environ.get(service.key_variable)
    if not key:
        raise ServiceKeyError(f"the environment variable {service.key_variable} is not set, and `{name}` wants a key")
    return key


def _build_google_maps(settings: Settings, now: Callable[[], dt.datetime]) -> GoogleMaps:
    """The browser on the maps site, with what the configuration says of it; nothing is started yet."""
    from geoloc_dagster.imagery.browser import Browser
    from geoloc_dagster.imagery.client import user_agent
    from geoloc_dagster.imagery.egress import Egress
    from geoloc_dagster.imagery.evidence import Evidence
    from geoloc_dagster.imagery.google_maps import GoogleMaps
    from geoloc_dagster.imagery.maps_walks import Walks
    from geoloc_dagster.imagery.robots import Robots, http_fetch
    from geoloc_dagster.imagery.tor import fresh_circuits

    capture, browser, layout = settings.capture, settings.browser, Layout(settings.data_root)
    egress = Egress.parse(settings.egress.proxy, settings.egress.credentials_variable)
    port = settings.egress.tor_control_port
    password = os.environ.get(settings.egress.tor_password_variable) or None
    circuits = None if port is None else fresh_circuits(port, password)
    robots = Robots(http_fetch(user_agent(), egress.proxy()))
    walks = Walks(
        _client(settings, "google_maps", settings.service.base_url or _GOOGLE_MAPS, now, robots.allowed),
        lambda: Browser(layout.browsers, binary=browser.binary, driver=browser.driver, switches=browser.switches),
        Evidence(layout.evidence, "google_maps", lambda: now().date()).keep,
        size=capture.size,
        workers=browser.workers,
        proxy=egress.browser_proxy(),
        user_agent=user_agent(),
        fresh_circuit=None if circuits is None else circuits.fresh,
        blocked=None if circuits is None else circuits.blocked,
    )
    return GoogleMaps(walks, provider_terms(settings), fov_deg=capture.fov_deg, history=capture.history)


def _client(
    settings: Settings,
    name: str,
    url: str,
    now: Callable[[], dt.datetime],
    allowed: Callable[[str], Awaitable[bool]] | None = None,
) -> ServiceClient:
    """A client with the configuration's etiquette, budgets and way out; the emulator is asked directly."""
    from geoloc_dagster.imagery.buckets import HostBuckets, host_buckets_path
    from geoloc_dagster.imagery.client import Etiquette, ServiceClient
    from geoloc_dagster.imagery.egress import Egress
    from geoloc_dagster.imagery.ledger import Ledger

    service, layout = settings.service, Layout(settings.data_root)
    etiquette = Etiquette(
        requests_per_second=requests_per_second(service, name),
        concurrency=service.concurrency,
        deadline_s=service.deadline_s,
        max_bytes=service.max_bytes,
        attempts=service.attempts,
    )
    egress = Egress.parse(settings.egress.proxy, settings.egress.credentials_variable)
    return ServiceClient(
        name,
        url,
        etiquette,
        ledger=Ledger(layout.ledger),
        budgets=daily_budgets(service, free=name in _FREE),
        buckets=HostBuckets(host_buckets_path()),
        allowed=allowed,
        today=lambda: now().date(),
        evidence=layout.evidence,
        proxy=None if name == "emulator" else egress.proxy(),
    )


def requests_per_second(service: ServiceSettings, name: str) -> float:
    """How fast a service, or each host of a list, is asked by all processes of this host."""
    return service.requests_per_second or _RATE[name]


def daily_budgets(service: ServiceSettings, *, free: bool = False) -> list[Budget]:
    """What the configuration allows a day, as the ledger counts it; what has no limit is counted all the same.

    Pictures of a free service cost no money, whatever the configuration says of its price.
    """
    images, requests, most = service.images_per_day, service.requests_per_day, service.bytes_per_day
    dollars, price = service.dollars_per_day, 0 if free else round(service.dollars_per_1000_images * 1_000)
    return [
        Budget(IMAGE_CHARGE, images, {IMAGE_CHARGE: 1}, f"{images:,} requests for a picture a day"),
        Budget(TILE_CHARGE, service.tiles_per_day, {TILE_CHARGE: 1}, f"{service.tiles_per_day:,} vector tiles a day"),
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


def budget_facts(settings: Settings, today: dt.date) -> dict[str, float]:
    """What a materialization says of the day: what was asked for (`today_…`), the limit where there is one, and what is left."""
    service, spent = settings.service, spent_today(settings, today)
    limits = {
        "pictures": service.images_per_day,
        "requests": service.requests_per_day,
        "bytes": service.bytes_per_day,
        "dollars": None if settings.capture.provider in _FREE else service.dollars_per_day,
    }
    facts: dict[str, float] = {}
    for what, used in spent.items():
        limit = limits[what]
        facts[f"today_{what}"] = used
        if limit is not None:
            facts |= {f"limit_{what}": limit, f"left_{what}": max(0, limit - used)}
    return facts


def images_left(settings: Settings, today: dt.date) -> int | None:
    """What is left of today's budget of pictures; None where none is needed."""
    if settings.capture.provider == "folder":
        return None
    from geoloc_dagster.imagery.ledger import Ledger

    used = Ledger(Layout(settings.data_root).ledger).used(settings.capture.provider, today, IMAGE_CHARGE)
    return max(0, settings.service.images_per_day - used)
