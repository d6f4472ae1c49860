"""What the client relies on of the maps site, and nothing else: addresses, labels, and the scripts that look for them.

Addresses: https://developers.google.com/maps/documentation/urls/get-started (`map_action=pano`), and what the site itself writes
into the address bar. When the site changes, this is the file to change.
"""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlencode

from geoloc_dagster.imagery.provider import View

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
MIN_FOV_DEG, MAX_FOV_DEG = 10.0, 100.0
MAP_PATH = "/maps/"
CLOCKWISE, COUNTERCLOCKWISE = "Rotate the view clockwise", "Rotate the view counterclockwise"
_VIEW = re.compile(
    r"/@(?P<lat>-?[\d.]+),(?P<lng>-?[\d.]+),3a,(?P<fov>[\d.]+)y,(?:(?P<heading>[\d.]+)h,)?(?P<tilt>[\d.]+)t"
    r"/data=[^?#]*?!1s(?P<pano>[\w-]+)!"
)
_DATE = re.compile(rf"(?P<month>{'|'.join(name[:3] for name in MONTHS)})[a-z]* (?P<year>\d{{4}})")
Kind = Literal["consent", "robots", "scene", "nothing", "place", "map", "unknown"]


@dataclass(frozen=True, slots=True)
class Address:
    """What the address bar says of a street view, degrees."""

    lat_deg: float
    lng_deg: float
    fov_deg: float
    heading_deg: float
    pitch_deg: float
    pano_id: str

    @classmethod
    def parse(cls, url: str) -> Address | None:
        """From `…/@lat,lng,3a,75y,{heading}h,{90+pitch}t/data=…!1s{panorama}!…`; None for any other page."""
        match = _VIEW.search(unquote(url))
        if match is None:
            return None
        lat, lng, fov, tilt = (float(match[name]) for name in ("lat", "lng", "fov", "tilt"))
        return cls(lat, lng, fov, float(match["heading"] or 0), tilt - 90, match["pano"])


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the page found.

    Attributes:
        kind: of page.
        url: of it.
        complete: whether it has loaded.
        date: of the capture, in the title card's words.
        has_dates: whether there is a button for more dates.
        dates: labels of the date strip, in its order; empty while it is closed.
        previews: pictures of the place panel that lead to the street view.
        box_px: of the scene's canvas: left, top, width, height, CSS pixels.
        pano_id: that the scene says it shows, where it says so.
        ready: whether the scene says that it is drawn, where it says so.
    """

    kind: Kind
    url: str
    complete: bool = False
    date: str | None = None
    has_dates: bool = False
    dates: tuple[str, ...] = ()
    previews: int = 0
    box_px: tuple[float, ...] | None = None
    pano_id: str | None = None
    ready: bool | None = None

    @classmethod
    def read(cls, said: dict[str, Any]) -> Seen:
        """From what `LOOK` returns."""
        box: list[float] | None = said["box_px"]
        return cls(
            kind=said["kind"],
            url=said["url"],
            complete=said["complete"],
            date=said["date"],
            has_dates=said["has_dates"],
            dates=tuple(said["dates"]),
            previews=said["previews"],
            box_px=None if box is None else tuple(box),
            pano_id=said["pano_id"],
            ready=said["ready"],
        )

    @property
    def address(self) -> Address | None:
        """Of the street view."""
        return Address.parse(self.url)

    @property
    def captured_on(self) -> dt.date | None:
        """The first of the month that the title card names."""
        return month_of(self.date)


def month_of(text: str | None) -> dt.date | None:
    """The first of a month written as `Sep 2022` or `September 2022`; None for anything else."""
    match = None if text is None else _DATE.fullmatch(text.strip())
    if match is None:
        return None
    return dt.date(int(match["year"]), [name[:3] for name in MONTHS].index(match["month"]) + 1, 1)


def label_of(month: dt.date) -> str:
    """What the button of a date is called."""
    return f"{MONTHS[month.month - 1]} {month.year}"


def link_to(pano_id: str, view: View) -> str:
    """The documented address of one view of one panorama, below the site's."""
    heading_deg = (view.heading_deg or 0.0) % 360
    query = {
        "api": "1",
        "map_action": "pano",
        "pano": pano_id,
        "heading": _number(heading_deg - 360 if heading_deg > 180 else heading_deg),
        "pitch": _number(view.pitch_deg),
        "fov": _number(view.fov_deg),
    }
    return f"/maps/@?{urlencode(query)}"


def gap_deg(a_deg: float, b_deg: float) -> float:
    """From heading `a` to heading `b`, clockwise, in [-180, 180)."""
    return (b_deg - a_deg + 180) % 360 - 180


def _number(value: float) -> str:
    return format(value, ".4f").rstrip("0").rstrip(".")


# `look()` says what there is now; the function waits until it is one of the wanted kinds, under another address than `from`.
LOOK = r"""
async (wanted, from, milliseconds) => {
  const seen = node => !!node && node.getClientRects().length > 0;
  const all = (selector, within) => [...(within || document).querySelectorAll(selector)];
  const names = 'January February March April May June July August September October November December'.split(' ');
  const label = new RegExp(`^(${names.join('|')}) \\d{4}`);
  const date = new RegExp(`^(?:Image capture: )?((?:${names.concat(names.map(name => name.slice(0, 3))).join('|')}) \\d{4})$`);
  const dateOf = card => all('*', card).filter(node => !node.childElementCount)
    .map(node => node.textContent.trim().match(date)).filter(Boolean).map(match => match[1])[0] || null;
  const look = () => {
    const path = location.pathname, canvas = document.querySelector('.widget-scene canvas');
    const card = document.querySelector('#titlecard'), found = card ? dateOf(card) : null;
    const previews = all('button[aria-label=""]').filter(button => seen(button) && button.querySelector('img')).length;
    const consent = path.startsWith('/consent') || location.hostname.startsWith('consent.');
    const robots = path.startsWith('/sorry') || !!document.querySelector('#captcha-form, .g-recaptcha');
    const nothing = all('[role="alert"]').some(node => seen(node) && /no imagery here/i.test(node.textContent));
    const panel = path.startsWith('/maps/place/') && seen(document.querySelector('[role="main"]'));
    const kind = consent ? 'consent' : robots ? 'robots' : nothing ? 'nothing'
      : seen(canvas) && /,3a,.*!1s/.test(decodeURIComponent(location.href)) && found ? 'scene'
      : panel ? 'place' : seen(document.querySelector('#searchboxinput')) ? 'map' : 'unknown';
    const box = canvas && canvas.getBoundingClientRect();
    return {kind, url: location.href, complete: document.readyState === 'complete', date: found,
      has_dates: !!document.querySelector('button[jsaction*="titlecard.timemachineClick"]'),
      dates: all('button[aria-label]').filter(b => seen(b) && label.test(b.ariaLabel)).map(b => b.ariaLabel), previews,
      box_px: box ? [box.x, box.y, box.width, box.height] : null,
      pano_id: canvas && canvas.dataset.panoId || null,
      ready: canvas && canvas.dataset.ready ? canvas.dataset.ready === 'true' : null};
  };
  const end = performance.now() + milliseconds;
  for (;;) {
    const now = look();
    if ((wanted.includes(now.kind) && now.url !== from && now.ready !== false) || performance.now() > end) return now;
    await new Promise(requestAnimationFrame);
  }
}
"""
# The middle of the first visible element, once it can be hit there: nothing may lie over it.
FIND = r"""
async (selector, milliseconds) => {
  const end = performance.now() + milliseconds;
  for (;;) {
    const node = [...document.querySelectorAll(selector)].find(one => one.getClientRects().length > 0);
    if (node) {
      node.scrollIntoView({block: 'nearest', inline: 'nearest', behavior: 'instant'});
      const box = node.getBoundingClientRect(), x = box.x + box.width / 2, y = box.y + box.height / 2;
      const top = document.elementFromPoint(x, y);
      if (top && (node.contains(top) || top.contains(node))) return [x, y];
    }
    if (performance.now() > end) return null;
    await new Promise(requestAnimationFrame);
  }
}
"""
# Only the scene, or everything again; the first takes effect with the second frame.
PLAIN = r"""
async plain => {
  if (!window.geolocPlain) {
    window.geolocPlain = new CSSStyleSheet();
    window.geolocPlain.replaceSync('body * { visibility: hidden !important } ' +
      '.widget-scene, .widget-scene canvas { visibility: visible !important }');
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, window.geolocPlain];
  }
  window.geolocPlain.disabled = !plain;
  if (!plain) return true;
  await new Promise(requestAnimationFrame);
  await new Promise(requestAnimationFrame);
  return true;
}
"""
# The button that rejects, else the one that accepts: by what its form sends, which no language changes, else by its label.
ANSWER_CONSENT = r"""
() => {
  const button = value => {
    const hidden = document.querySelector(`form input[name="set_eom"][value="${value}"]`);
    return hidden && hidden.form.querySelector('button, input[type="submit"]');
  };
  const labelled = text => document.querySelector(`[aria-label="${text}"]`);
  const node = button('true') || labelled('Reject all') || button('false') || labelled('Accept all');
  if (!node) return false;
  setTimeout(() => node.click(), 0);
  return true;
}
"""
