"""`geoloc download` and `geoloc photos`: lists of photos, fetched into a folder or made of one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from geoloc_dagster.cores import processes_by_default

if TYPE_CHECKING:
    from geoloc_dagster.imagery.photo_folder import Download

_SHOWN = 20
photos = typer.Typer(no_args_is_help=True, help="Photos of one's own.")


def download(
    output: Annotated[Path, typer.Option("--output", help="The folder; one with a download in it goes on.")],
    url_csv: Annotated[Path, typer.Option("--url-csv", help="CSV or Parquet with URLs, and ids where they have any.")],
    shuffle: Annotated[bool, typer.Option("--shuffle", help="In a mixed order, the same every time.")] = False,
    size: Annotated[int | None, typer.Option("--size", min=16, help="Make the shorter side so many pixels.")] = None,
    size_suffix: Annotated[
        str, typer.Option("--size-suffix", help="Put before the suffix of every URL, as photo hosts name sizes: z.")
    ] = "",
    min_side: Annotated[int, typer.Option("--min-side", min=0, help="Refuse pictures with a shorter side below this.")] = 0,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of pictures that are made smaller.")] = 95,
    nrows: Annotated[int | None, typer.Option("--nrows", min=1, help="Only so many photos.")] = None,
    only: Annotated[
        list[Path] | None, typer.Option("--filter", help="A CSV of which to write the rows whose photo came; can be repeated.")
    ] = None,
    rate: Annotated[
        float, typer.Option("--rate", min=0.01, max=50_000, help="Requests a second to one host; much only to your own.")
    ] = 10.0,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, max=64, help="Requests to one host at once.")] = 8,
    processes: Annotated[int | None, typer.Option("--processes", min=1, max=64, help="That fetch. Default: the cores.")] = None,
    proxy: Annotated[str | None, typer.Option("--proxy", help="http|https|socks5|socks5h://host:port.")] = None,
) -> None:
    """Download the photos of a list into a folder, politely and as fast as that allows; goes on where it stopped."""
    import asyncio
    import datetime as dt

    from geoloc_dagster.imagery.bulk_processes import Crew

    async def fetch() -> Download:
        async with Crew.called_up("folder") as crew:  # they load while everything else does
            from geoloc_dagster.imagery.egress import Egress
            from geoloc_dagster.imagery.photo_folder import download, folder_job

            egress = Egress.parse(proxy)
            smaller: dict[str, Any] = {} if size is None else {"resize": "shorter", "size_px": size}
            job = folder_job(
                output,
                now=dt.datetime.now(dt.UTC),
                rate=rate,
                concurrency=concurrency,
                size_suffix=size_suffix,
                min_side_px=min_side,
                quality=quality,
                proxy=egress.address,
                credentials=egress.credentials,
                **smaller,
            )
            return await download(
                job,
                url_csv,
                crew,
                processes=processes or processes_by_default(),
                shuffle_seed=10 if shuffle else None,
                most=nrows,
                filter_files=only or (),
            )

    result = asyncio.run(fetch())
    typer.echo(f"{result.came:,} photos are in {output}; {result.asked:,} were asked for now")
    for kind, count in sorted(result.failures.items()):
        typer.echo(f"{kind}: {count:,}")
    if result.bad_rows:
        typer.echo(f"rows that could not be read: {result.bad_rows:,} (bad_rows.csv)")
    for host, reason in result.left_alone.items():
        typer.echo(f"{host} is left alone: {reason}", err=True)
    if result.failures:
        typer.echo(f"which, and why: {output / 'failures.csv'}")
    if result.stopped:
        typer.echo(f"stopped: {result.stopped}", err=True)


@photos.command("list")
def write_photos_list(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders or uncompressed tar files of photos.")],
    output: Annotated[Path, typer.Option("--output", help="The CSV: IMG_ID, AUTHOR, LAT, LON, date, heading.")],
) -> None:
    """Write where the photos of a folder were taken, as their EXIF says; those without a position are named."""
    from geoloc_dagster.console import name_first
    from geoloc_dagster.imagery.photo_files import is_files
    from geoloc_dagster.imagery.photo_sources import read_photos, write_list

    for folder in folders:
        if not is_files(folder):
            raise typer.BadParameter(f"{folder} is no folder and no tar file", param_hint="DIR")
    table = read_photos(folders)
    write_list(table, output)
    for line in name_first([f"left out: {problem}" for problem in table.problems], _SHOWN):
        typer.echo(line, err=True)
    typer.echo(f"{len(table.photos):,} photos in {output}; {table.bad_rows:,} left out")
