"""`photo_list` against img2dataset: the same pictures, from the same server on this machine, with both cores.

    python -m venv /tmp/img2dataset-venv && /tmp/img2dataset-venv/bin/pip install img2dataset
    apt-get install nginx-light
    flock /tmp/bench.lock python benchmarks/bulk_download.py [--count 20000] [--rounds 3]

Ours runs twice. `geoloc download` does what img2dataset does, a list into files, with rates, robots.txt, opt-outs and a check of
every picture. The asset `photos` does more: rows of a Lance table with budgets, a sha256 of every picture and of every file.
img2dataset runs without its sha256. The contenders take turns. Memory is the greatest sum of PSS over all processes of a
contender, the server's not among them, sampled twice a second. A run in which the server failed, or a contender did not get
every picture, ends the benchmark; a setting of img2dataset that loses pictures while the best is looked for is left out. They
write to memory unless `--output` says otherwise: ext4 takes ten times as long to make a file where many were deleted in the last
minutes, and the benchmark deletes what each run wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime as dt
import io
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

IMG2DATASET = Path("/tmp/img2dataset-venv/bin/img2dataset")
PORT = 18_901
SIZES = [(640, 480), (800, 600), (1024, 683), (1024, 768), (768, 1024)]
BASES, SHIFTS = 500, 40
OURS = "ours"
PLAIN, CHECKED, RESIZED = "plain", "checked", "resized"
MODES: dict[str, list[str]] = {
    PLAIN: ["--resize_mode", "no", "--disable_all_reencoding", "True"],
    CHECKED: ["--resize_mode", "no", "--skip_reencode", "True"],
    RESIZED: ["--resize_mode", "keep_ratio", "--image_size", "256", "--encode_quality", "95", "--resize_only_if_bigger", "True"],
}


# --- the pictures and their server ----------------------------------------------------------------------------------
def make_base(seed: int):
    """A picture with detail at every scale, as photos have, and a little noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    width, height = SIZES[seed % len(SIZES)]
    out = np.zeros((height, width, 3), np.float32)
    for octave, strength in ((4, 60), (8, 40), (16, 26), (32, 18), (64, 13), (128, 10), (256, 8)):
        coarse = rng.normal(0, 1, (octave * 3 // 4, octave, 3)).astype(np.float32)
        for band in range(3):
            plane = Image.fromarray(coarse[..., band]).resize((width, height), Image.Resampling.BICUBIC)
            out[..., band] += strength * np.asarray(plane)
    out += rng.normal(0, 4.5, (height, width, 1)) + np.linspace(170, 90, height)[:, None, None]
    return np.clip(out, 0, 255).astype(np.uint8)


def make_some(job: tuple[int, str, int]) -> int:
    import numpy as np
    from PIL import Image

    seed, folder, shifts = job
    pixels, total = make_base(seed), 0
    for shift in range(shifts):
        stream = io.BytesIO()
        moved = np.ascontiguousarray(np.roll(pixels, (shift * 7, shift * 13), (0, 1)))
        Image.fromarray(moved).save(stream, "JPEG", quality=85)
        (Path(folder) / f"{seed:03d}_{shift:02d}.jpg").write_bytes(stream.getvalue())
        total += len(stream.getvalue())
    return total


def make_pictures(folder: Path) -> None:
    if folder.is_dir() and sum(1 for _ in folder.iterdir()) == BASES * SHIFTS:
        return
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(2) as pool:
        total = sum(pool.map(make_some, [(seed, str(folder), SHIFTS) for seed in range(BASES)]))
    print(f"made {BASES * SHIFTS:,} pictures of {total / BASES / SHIFTS / 1000:.0f} kB on average")


@contextlib.contextmanager
def nginx(work: Path) -> Generator[str]:
    config = work / "nginx.conf"
    paths = " ".join(f"{name}_temp_path {work}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config.write_text(
        f"""worker_processes 2; pid {work}/nginx.pid; error_log {work}/nginx.log; daemon off;
        events {{ worker_connections 4096; }}
        http {{ access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; {paths} types {{ image/jpeg jpg; }}
        server {{ listen 127.0.0.1:{PORT}; root {work}/pictures;
        location = /robots.txt {{ return 200 "User-agent: *\\nAllow: /\\n"; }} }} }}"""
    )
    (work / "nginx.log").write_bytes(b"")
    server = subprocess.Popen(["nginx", "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        wait_for(PORT)
        yield f"http://127.0.0.1:{PORT}"
    finally:
        server.terminate()
        server.wait()


def wait_for(port: int) -> None:
    """Until somebody listens there."""
    deadline_s = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline_s:
                sys.exit(f"nginx does not listen at port {port}")


def require_whole(work: Path, contender: str, run: tuple[float, float, float, int], wanted: int) -> None:
    """End the benchmark where a figure would mean nothing."""
    said = (work / "nginx.log").read_text()
    if run[3] != wanted or said:
        sys.exit(f"{contender} got {run[3]:,} of {wanted:,} pictures; the server said: {said[-300:] or 'nothing'}")


# --- measuring ------------------------------------------------------------------------------------------------------
def family(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    for one in found:
        for children in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found


def pss_mb(pid: int) -> float:
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.MULTILINE)
            total += int(found[1]) if found else 0
    return total / 1024


def measured(command: list[str], log: Path) -> tuple[float, float, float]:
    """Seconds, processor seconds and the greatest PSS, MB, of a command."""
    os.sync()  # what the one before has written is not this one's to wait for
    before = os.times()
    began = time.monotonic()
    with log.open("wb") as stream:
        child = subprocess.Popen(
            command, stdout=stream, stderr=stream, env={**os.environ, "NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1"}
        )
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            peak[0] = max(peak[0], pss_mb(child.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = child.wait()
    seconds = time.monotonic() - began
    ended.set()
    watcher.join()
    after = os.times()
    if code != 0:
        sys.exit(f"{command} failed; see {log}")
    busy = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, busy, peak[0]


# --- contenders -----------------------------------------------------------------------------------------------------
def run_theirs(work: Path, output: Path, mode: str, threads: int, form: str) -> tuple[float, float, float, int]:
    shutil.rmtree(output / "theirs", ignore_errors=True)
    command = [str(IMG2DATASET), "--url_list", str(work / "urls.csv"), "--input_format", "csv", "--url_col", "url"]
    command += ["--output_folder", str(output / "theirs"), "--processes_count", "2", "--thread_count", str(threads)]
    command += ["--number_sample_per_shard", "1000", "--output_format", form, "--extract_exif", "False", "--compute_hash", "None"]
    command += MODES[mode]
    seconds, busy, memory = measured(command, work / "theirs.log")
    stats = [json.loads(path.read_text())["successes"] for path in (output / "theirs").glob("*_stats.json")]
    return seconds, busy, memory, sum(stats)


def run_ours(work: Path, output: Path, mode: str, concurrency: int) -> tuple[float, float, float, int]:
    shutil.rmtree(output / "ours", ignore_errors=True)
    command = [
        sys.executable,
        __file__,
        "--as-asset",
        str(work),
        "--output",
        str(output),
        "--mode",
        mode,
        "--concurrency",
        str(concurrency),
    ]
    seconds, busy, memory = measured(command, work / "ours.log")
    return seconds, busy, memory, int((work / "ours.log").read_text().split()[-1])


def run_download(work: Path, output: Path, mode: str, concurrency: int) -> tuple[float, float, float, int]:
    shutil.rmtree(output / "files", ignore_errors=True)
    command = [str(Path(sys.executable).with_name("geoloc")), "download", "--output", str(output / "files")]
    command += ["--url-csv", str(work / "urls.csv"), "--rate", "20000", "--processes", "2", "--concurrency", str(concurrency)]
    command += ["--size", "256"] if mode == RESIZED else []
    seconds, busy, memory = measured(command, work / "files.log")
    return seconds, busy, memory, sum(1 for _ in (output / "files").glob("??/*"))


def as_asset(work: Path, output: Path, mode: str, concurrency: int) -> None:
    """What the asset `photos` does for its one batch, in this process and those that it starts."""
    from geoloc_dagster.config import Layout
    from geoloc_dagster.config.settings import Settings
    from geoloc_dagster.imagery.photo_batch import collect_photo_batch

    smaller = {"resize": "shorter", "size_px": 256} if mode == RESIZED else {}
    settings = Settings.model_validate(
        {
            "data_root": str(output / "ours"),
            "region": {"name": "bench", "boundary": "none", "start_point": [0, 0]},
            "capture": {
                "provider": "photo_list",
                "photos": {"files": ["urls.csv"], "processes": 2, **smaller},
                "licence": "CC0-1.0",
                "attribution": "made here",
                "commit_rows": 1000,
            },
            "service": {"requests_per_second": 20_000, "concurrency": concurrency, "images_per_day": 10_000_000},
        }
    )
    layout = Layout(settings.data_root)
    register(work / "urls.csv", layout.photos)
    now = dt.datetime.now(dt.UTC)
    result = asyncio.run(collect_photo_batch(settings, layout, "photos-0000", run_id="bench", now=now))
    print(result.rows_new - sum(result.failures_by_kind.values()))


def register(urls: Path, target: Path) -> None:
    """The list as registration leaves it: one batch."""
    import pyarrow as pa

    from geoloc_dagster.dataset.schema import PHOTOS
    from geoloc_dagster.imagery.photo_table import read_photo_lists
    from geoloc_dagster.storage import write_parquet

    photos = read_photo_lists([urls], need_position=False).photos
    rows = [
        {
            "location_id": photo.photo_id,
            "batch": "photos-0000",
            "url": photo.url,
            "lat_deg": 0.0,
            "lng_deg": 0.0,
            "precision": "unknown",
        }
        for photo in photos
    ]
    write_parquet(target, pa.Table.from_pylist(rows, schema=PHOTOS))


def run_bare(work: Path) -> tuple[float, float, float, int]:
    """A client that throws the bytes away: aiohttp in two processes, no etiquette at all."""
    command = [sys.executable, __file__, "--bare", str(work)]
    seconds, busy, memory = measured(command, work / "bare.log")
    return seconds, busy, memory, int((work / "bare.log").read_text().split()[-1])


def throw_away(urls: list[str]) -> int:
    import aiohttp

    async def all_of_them() -> int:
        queue, got = list(urls), 0
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64), read_bufsize=1 << 20) as session:

            async def work() -> None:
                nonlocal got
                while queue:
                    async with session.get(queue.pop()) as response:
                        body = await response.read()
                    got += len(body) > 0

            await asyncio.gather(*(work() for _ in range(16)))
        return got

    return asyncio.run(all_of_them())


def bare(work: Path) -> None:
    urls = (work / "urls.csv").read_text().split()[1:]
    with ProcessPoolExecutor(2) as pool:
        print(sum(pool.map(throw_away, [urls[::2], urls[1::2]])))


# --- what came out --------------------------------------------------------------------------------------------------
def compare_outputs(output: Path, count: int = 200) -> tuple[float, float]:
    """Mean and least PSNR, dB, of our 256-px pictures against theirs (from the last runs, files by URL)."""
    import lance
    import numpy as np
    import pyarrow.parquet as pq
    from PIL import Image

    rows = lance.dataset(str(output / "ours" / "tables" / "panoramas.lance")).to_table(
        columns=["source_url", "image"], limit=count
    )
    ours = dict(zip(rows["source_url"].to_pylist(), rows["image"].to_pylist(), strict=True))
    theirs: dict[str, bytes] = {}
    for path in (output / "theirs").glob("*.parquet"):
        table = pq.read_table(path, columns=["url", "key"])
        for url, key in zip(table["url"].to_pylist(), table["key"].to_pylist(), strict=True):
            if url in ours:
                theirs[url] = (output / "theirs" / path.stem / f"{key}.jpg").read_bytes()
    values = []
    for url, content in theirs.items():
        first, second = (
            np.asarray(Image.open(io.BytesIO(one)).convert("RGB")).astype(np.float64) for one in (ours[url], content)
        )
        values.append(10 * np.log10(255**2 / np.mean((first - second) ** 2)))
    return float(np.mean(values)), float(np.min(values))


def report(name: str, runs: list[tuple[float, float, float, int]]) -> float:
    rates = sorted(count / seconds for seconds, _, _, count in runs)
    rate, memory = statistics.median(rates), statistics.median(run[2] for run in runs)
    busy = statistics.median(run[1] / run[3] for run in runs) * 1000
    span = f"{rates[0]:.0f}–{rates[-1]:.0f}"
    print(f"| {name} | {rate:.0f} ({span}) | {busy:.2f} | {memory:.0f} | {runs[0][3]:,} |", flush=True)
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("/tmp/bulk-bench"))
    parser.add_argument("--output", type=Path, default=Path("/dev/shm/bulk-bench"), help="where the contenders write")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tune", type=int, default=4_000, help="pictures with which img2dataset's best setting is found")
    parser.add_argument("--as-asset", type=Path)
    parser.add_argument("--bare", type=Path)
    parser.add_argument("--mode", default=PLAIN)
    parser.add_argument("--modes", default=f"{PLAIN},{CHECKED},{RESIZED}")
    parser.add_argument("--concurrency", type=int, default=16)
    options = parser.parse_args()
    os.environ["GEOLOC_STATE"] = str(options.work / "state")
    if options.as_asset:
        as_asset(options.as_asset, options.output, options.mode, options.concurrency)
    elif options.bare:
        bare(options.bare)
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    work, output = options.work, options.output
    output.mkdir(parents=True, exist_ok=True)
    make_pictures(work / "pictures")
    names = sorted(path.name for path in (work / "pictures").iterdir())
    step = max(1, len(names) // options.count)
    with nginx(work) as url:

        def write_urls(count: int) -> None:
            (work / "urls.csv").write_text("url\n" + "".join(f"{url}/{name}\n" for name in names[::step][:count]))

        for mode in options.modes.split(","):
            write_urls(options.tune)
            form = "files" if mode == RESIZED else "webdataset"  # files, so that outputs can be compared; as fast or faster
            forms = ["files"] if mode == RESIZED else ["webdataset", "files"]
            trials = {
                (threads, form): run_theirs(work, output, mode, threads, form) for threads in (8, 16, 32, 64) for form in forms
            }
            whole = {setting: run for setting, run in trials.items() if run[3] == options.tune}
            if not whole:
                sys.exit(f"{mode}: img2dataset gets every picture with no setting; see {work / 'theirs.log'}")
            (threads, form), _ = min(whole.items(), key=lambda item: item[1][0])
            tried = ", ".join(f"{t}/{f} {run[3] / run[0]:.0f}" for (t, f), run in trials.items())
            print(f"\n{mode}: img2dataset by threads per process and form, pictures/s: {tried}")
            print("| contender | pictures/s | processor ms per picture | PSS MB | pictures |\n|---|---:|---:|---:|---:|")
            write_urls(options.count)
            files, ours, theirs, nothing = [], [], [], []
            for _ in range(options.rounds):
                theirs.append(run_theirs(work, output, mode, threads, form))
                require_whole(work, "img2dataset", theirs[-1], options.count)
                files.append(run_download(work, output, mode, options.concurrency))
                require_whole(work, "geoloc download", files[-1], options.count)
                ours.append(run_ours(work, output, mode, options.concurrency))
                require_whole(work, "the asset", ours[-1], options.count)
                if mode == PLAIN:
                    nothing.append(run_bare(work))
                    require_whole(work, "the bare client", nothing[-1], options.count)
            first = report(f"`geoloc download`, {mode}", files)
            asset = report(f"asset `photos`, {mode}", ours)
            second = report(f"img2dataset, {mode}, {threads} threads, {form}", theirs)
            if nothing:
                third = report("aiohttp, bytes thrown away", nothing)
                print(f"ratio to the bare client: {first / third:.2f}, asset {asset / third:.2f}")
            print(f"ratio to img2dataset: {first / second:.2f}, asset {asset / second:.2f}", flush=True)
            if mode == RESIZED:
                mean, least = compare_outputs(output)
                print(f"PSNR of our outputs to its own: mean {mean:.1f} dB, least {least:.1f} dB")


if __name__ == "__main__":
    main()
