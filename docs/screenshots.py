"""Pictures of the Dagster UI on an existing data root, for the documentation: lineage, an asset's picture and plots, batches.

    python docs/screenshots.py --config geoloc.yaml --data-root data --out docs/figures

Only the web server runs, without the daemon: nothing is materialised by looking.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.dataset.pending import registered_batches
from geoloc_dagster_tests.end_to_end.browser import Page, missing_packages, open_browser, serve_ui

MAX_BYTES = 250_000
_QUIET_S = 4
_COLOURS = (256, 128, 64, 32, 16)


def main() -> None:
    """Write the pictures and say how large they are."""
    options = _options()
    missing = missing_packages()
    if missing:
        sys.exit(f"the browser is missing; Debian: apt-get install {' '.join(missing)}")
    region = load_settings(options.config, data_root=options.data_root).region.name
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with (
            serve_ui(options.config, options.data_root, folder, daemon=False) as url,
            open_browser(url, folder / "profile", folder) as page,
        ):
            page.enter()
            batch = options.batch or _first_batch(options.config, options.data_root)
            views: dict[str, Callable[[], None]] = {
                "ui_lineage": lambda: show_lineage(page),
                "ui_asset": lambda: show_asset(page, f"{region}/{options.asset}"),
                "ui_plots": lambda: show_plots(page, f"{region}/{options.asset}"),
                "ui_partitions": lambda: show_batches(page, f"{region}/{options.batches_of}", batch),
            }
            for name, show in views.items():
                show()
                settle(page)
                path = options.out / f"{name}.png"
                path.write_bytes(small_png(page.driver.get_screenshot_as_png()))
                sys.stdout.write(f"{path}: {path.stat().st_size:,} bytes\n")


def show_lineage(page: Page) -> None:
    """The whole graph with every group open; the side bars are closed, so that it has the whole width."""
    page.open("/asset-groups")
    page.see("Global asset lineage", "region", "release")
    page.click("//button[normalize-space(.)='Hide navigation']")
    page.click("//input[starts-with(@placeholder, 'Jump to')]/following::button[1]")
    page.expand_groups()
    page.see("grid_points", "faiss_index")


def show_asset(page: Page, asset: str) -> None:
    """The picture of an asset's last materialization, in front of its page."""
    page.open(f"/assets/{asset}")
    page.see("Latest materialization", "picture")
    page.show_picture()


def show_plots(page: Page, asset: str) -> None:
    """An asset's numbers over time."""
    page.open(f"/assets/{asset}")
    page.see("Latest materialization")
    page.click("//button[normalize-space(.)='Plots']")
    if page.driver.find_elements("xpath", "//button[normalize-space(.)='Events']"):  # partitioned: by partition unless told
        page.click("//button[normalize-space(.)='Events']")
    page.find("//canvas")


def show_batches(page: Page, asset: str, batch: str) -> None:
    """The batches of an asset with what one of them says of itself."""
    page.open(f"/assets/{asset}?view=partitions&partition={batch}")
    page.see("Materialized", "dagster/partition_row_count")


def settle(page: Page) -> None:
    """Wait until the page has looked the same for a while: graphs and plots say nowhere that they are complete."""
    seen: list[bytes] = []

    def quiet() -> bool:
        time.sleep(1)
        seen.append(page.driver.get_screenshot_as_png())
        return len(seen) > _QUIET_S and len(set(seen[-_QUIET_S:])) == 1

    page.until("the page comes to rest", quiet)


def small_png(content: bytes) -> bytes:
    """The picture with as many colours as the documentation's limit of bytes allows."""
    picture, size = Image.open(io.BytesIO(content)).convert("RGB"), 0
    for colours in _COLOURS:
        stream = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(stream, "PNG", optimize=True)
        size = stream.tell()
        if size <= MAX_BYTES:
            return stream.getvalue()
    raise ValueError(f"{size:,} bytes in {_COLOURS[-1]} colours; the limit is {MAX_BYTES:,}")


def _first_batch(config: Path, data_root: Path | None) -> str:
    batches = registered_batches(Layout(load_settings(config, data_root=data_root).data_root))
    if not batches:
        sys.exit("this data root has no batches yet; run `geoloc run` first")
    return batches[0]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", type=Path, required=True, help="the region's geoloc.yaml")
    parser.add_argument("--data-root", type=Path, help="in place of the configuration's")
    parser.add_argument("--out", type=Path, default=Path("docs/figures"), help="where the pictures go")
    parser.add_argument("--asset", default="evaluations", help="the asset of ui_asset.png and ui_plots.png")
    parser.add_argument("--batches-of", default="crops", help="the asset of ui_partitions.png")
    parser.add_argument("--batch", help="the batch of ui_partitions.png; default: the first")
    return parser.parse_args()


if __name__ == "__main__":
    main()
