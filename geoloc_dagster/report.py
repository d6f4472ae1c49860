"""One self-contained page of what a run made: figures, pictures, and what to open next."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from geoloc_dagster.config import Layout, Settings
from geoloc_dagster.dataset.pending import registered_batches
from geoloc_dagster.evaluation.geolocation import HIERARCHY
from geoloc_dagster.evaluation.geolocation_reports import radius_name
from geoloc_dagster.evaluation.summary import CLASSIFIERS
from geoloc_dagster.geo.boundary import read_boundary
from geoloc_dagster.imagery.coverage import read_lookups
from geoloc_dagster.learning.registry import newest_training
from geoloc_dagster.storage import read_geoparquet, read_json, read_parquet
from geoloc_dagster.tables import open_table
from geoloc_dagster.viz import overview

_STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8882}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin-top:2.5rem}.lead{font-size:1.3rem;margin-top:.3rem}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.3rem .8rem;border-bottom:1px solid var(--line);text-align:right}
th:first-child,td:first-child{text-align:left}tr.model td{font-weight:600}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(20rem,1fr));gap:1rem}
figure{margin:0}figure img{width:100%;border:1px solid var(--line);background:#fff}figcaption{font-size:.9rem}
code,pre{background:var(--soft);border-radius:.2rem;padding:.1rem .3rem}pre{padding:.8rem;overflow-x:auto}
.wide{grid-column:1/-1}.wide img{width:min(100%,44rem)}
"""


def run_report(settings: Settings, layout: Layout, summary: Mapping[str, Any]) -> str:
    """The HTML page of a region's current state; sections of what has not been made yet are left out.

    Args:
        settings: the region.
        layout: of its data root.
        summary: as `reports/summary.json` holds it.
    """
    reports = _reports(settings, layout)
    parts = [
        f"<h1>{_text(settings.region.name)}</h1>",
        _lead(reports, summary),
        *(_figures(report) for _, report in reports),
        _pictures(settings, layout, reports),
        _assets(summary),
        _next(settings, layout),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(settings.region.name)}: report</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>{body}</body></html>\n'
    )


def _reports(settings: Settings, layout: Layout) -> list[tuple[Path, dict[str, Any]]]:
    """The newest evaluations of every recipe, by folder; the held-out test split last, and of it the recipe that is served."""
    served = {read_json(path)["recipe"] for path in (layout.champion, layout.cells_champion) if path.is_file()}
    found: list[tuple[Path, dict[str, Any]]] = []
    for recipe in settings.recipes:
        training = newest_training(layout.checkpoints / recipe)
        if training is not None:
            paths = sorted((layout.evaluations / recipe).glob(f"{training.model_version}*/report.json"))
            found += [(path.parent, read_json(path)) for path in paths]
    placing = [item for item in found if item[1].get("kind") != "scenes"]
    return sorted(placing, key=lambda item: (item[1]["split"], item[0].parent.name in served))


def _lead(reports: list[tuple[Path, dict[str, Any]]], summary: Mapping[str, Any]) -> str:
    minutes = float(summary.get("seconds", 0)) / 60
    if not reports:
        return f'<p class="lead">No model has been evaluated yet. The last run took {minutes:.1f} minutes.</p>'
    report = reports[-1][1]
    if report.get("kind") in CLASSIFIERS:
        return _lead_of_cells(report, minutes)
    first = report["same_place"]["recall@1"]
    return (
        f'<p class="lead">A street view of a place that the model has never seen is matched to that place in other years in '
        f"<b>{first['value']:.1%}</b> of cases at the first guess (95 % interval {first['low']:.1%} to {first['high']:.1%}; "
        f"{report['n_queries']:,} queries at {report['n_places']:,} places). The last run took {minutes:.1f} minutes.</p>"
    )


def _lead_of_cells(report: Mapping[str, Any], minutes: float) -> str:
    said = report["figures"][HIERARCHY]
    radius = sorted(said["within_m"], key=int)[len(said["within_m"]) // 2]
    share = said["within_m"][radius]
    asked, groups, one = _words(report)
    return (
        f'<p class="lead">{one} that the model has never seen is placed within <b>{radius_name(int(radius))}</b> of where '
        f"it was taken in <b>{share['value']:.1%}</b> of cases (95 % interval {share['low']:.1%} to {share['high']:.1%}; "
        f"{report['n_photos']:,} {asked} by {report['n_groups']:,} {groups}). The last run took {minutes:.1f} minutes.</p>"
    )


def _words(report: Mapping[str, Any]) -> tuple[str, str, str]:
    """What was asked about, by what it is grouped, and one of it at the beginning of a sentence."""
    if report["kind"] == "sequence":
        return "places and dates", "places", "A place"
    return "photos", "photographers", "A photo"


def _figures_of_cells(report: Mapping[str, Any]) -> str:
    rows = [(name, report["figures"][name], "model" if name == HIERARCHY else "") for name in report["answers"]]
    rows += [(name, figures, "") for name, figures in report["baselines"].items()]
    radii = sorted(report["figures"][HIERARCHY]["within_m"], key=int)
    head = "".join(f"<th>{radius_name(int(radius))}</th>" for radius in radii)
    body = ""
    for name, figures, kind in rows:
        cells = "".join(_interval(figures["within_m"][radius]) for radius in radii)
        body += f'<tr class="{kind}"><td>{_text(name)}</td>{cells}</tr>'
    return (
        f"<h2>Held-out {_words(report)[0]}: {_text(report['set'])}</h2>"
        f"<p>Share of {_words(report)[0]} whose answer lies within each radius; in brackets: 95 % intervals, "
        f"{_words(report)[1]} resampled.</p>"
        f"<table><tr><th>answer</th>{head}</tr>{body}</table>"
    )


def _figures(report: Mapping[str, Any]) -> str:
    if report.get("kind") in CLASSIFIERS:
        return _figures_of_cells(report)
    rows = [(str(report["name"]), report, "model"), *((name, value, "") for name, value in report["baselines"].items())]
    cuts = sorted(report["same_place"], key=lambda cut: int(cut.removeprefix("recall@")))
    head = "".join(f"<th>{_text(cut.replace('recall@', 'R@'))}</th>" for cut in cuts)
    body = ""
    for name, figures, kind in rows:
        cells = "".join(_interval(figures["same_place"][cut]) for cut in cuts)
        body += f'<tr class="{kind}"><td>{_text(name)}</td>{cells}</tr>'
    return (
        f"<h2>Held-out places, split <code>{_text(report['split'])}</code></h2>"
        f"<p>A query is the newest picture of a view; it is looked for among {report['n_gallery']:,} older pictures. "
        "In brackets: 95 % intervals, places resampled.</p>"
        f"<table><tr><th>descriptor</th>{head}</tr>{body}</table>"
    )


def _interval(figure: Mapping[str, float]) -> str:
    return f"<td>{figure['value']:.3f} ({figure['low']:.3f}–{figure['high']:.3f})</td>"


def _pictures(settings: Settings, layout: Layout, reports: list[tuple[Path, dict[str, Any]]]) -> str:
    shown: list[tuple[bytes, str]] = []
    if layout.boundary.is_file():
        boundary = read_boundary(layout.boundary)
        if open_table(layout.street_view_metadata) is not None:
            lookups: pa.Table = read_lookups(layout.street_view_metadata)
            shown.append((overview.coverage_map(boundary, lookups), "Where there is a street view"))
        if layout.locations.is_file():
            shown.append((overview.locations_map(boundary, read_geoparquet(layout.locations)), "What is collected"))
        if layout.catalog.is_file():
            shown.append((overview.splits_map(boundary, read_parquet(layout.catalog)), "What is learned from, and held out"))
    for folder, report in reports[-1:]:
        captions = {
            "map.png": "Where places are found again",
            "recall.png": "How often, among the first k",
            "year_matrix.png": "Pictures of one year among those of another",
            "age_gap.png": "How finding fades with the years between",
            "atlas.png": "The districts: what is known, and how well it is found",
            "errors.png": "How far answers are off",
            "levels.png": "What each level reaches, and what its cells allow",
        }
        there = {name: text for name, text in captions.items() if (folder / name).is_file()}
        shown += [((folder / name).read_bytes(), f"{text} ({report['split']})") for name, text in there.items()]
    figures = [_figure(content, caption) for content, caption in shown]
    for folder, report in reports[-1:]:
        caption = (
            "Photos, and how far off the answer is"
            if report.get("kind") in CLASSIFIERS
            else "Queries, and their nearest pictures"
        )
        figures.append(_figure((folder / "sheet.jpg").read_bytes(), caption, wide=True))
    for batch in registered_batches(layout)[:1]:
        sheet = overview.batch_sheet(layout.crops, batch)
        if sheet is not None:
            figures.append(_figure(sheet, f"Pictures of batch {batch}", wide=True))
    return f'<h2>Pictures</h2><div class="pictures">{"".join(figures)}</div>' if figures else ""


def _figure(content: bytes, caption: str, *, wide: bool = False) -> str:
    kind = "png" if content[:4] == b"\x89PNG" else "webp" if content[8:12] == b"WEBP" else "jpeg"
    data = base64.b64encode(content).decode()
    return (
        f'<figure class="{"wide" if wide else ""}"><img alt="{_text(caption)}" src="data:image/{kind};base64,{data}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
    )


def _assets(summary: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{_text(name)}</td><td>{int(entry['partitions']) or ''}</td><td>{int(entry['rows']):,}</td>"
        f"<td>{float(entry['seconds']):,.1f}</td></tr>"
        for name, entry in summary.get("assets", {}).items()
    )
    head = "<tr><th>asset</th><th>batches</th><th>rows</th><th>seconds</th></tr>"
    return f"<h2>What was made</h2><table>{head}{rows}</table>" if rows else ""


def _next(settings: Settings, layout: Layout) -> str:
    config = _text(str(settings.folder))
    lines = [f"geoloc dev --config {config} --data-root {_text(str(layout.root))}    # the Dagster UI on http://127.0.0.1:3000"]
    if (layout.releases / "CURRENT.json").is_file():
        lines.append(f"geoloc predict photo.jpg --config {config} --data-root {_text(str(layout.root))} --map answer.png")
    return f"<h2>What to open next</h2><pre>{chr(10).join(lines)}</pre>"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
