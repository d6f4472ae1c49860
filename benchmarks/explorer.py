"""What the explorer does under load: cold start, 200 photos by 16 askers, its share of the bare model, and its memory.

    python benchmarks/explorer.py --region demo [--photos 200] [--askers 16] [--rounds 5] [--soak 2000]

`--region` is a folder whose `geoloc run` went as far as `release`, such as a copy of `benchmarks/usual`. Photos are held-out
pictures of that region, enlarged to 640 pixels, as a user's are; each is sent by itself. The bare model is the release's own
encoder on the same photos, decoded and stacked in sixteens: decoding and forward pass and nothing else; beside it stands the same
with the search and the comparison of features that the experts add. They alternate with the explorer, and the median of the
ratios counts. Beside the ratio of the clock, in which the askers take their part of the cores, stands that of processor time: of
the bare model, and of the explorer without the askers. It holds beside other work too.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import numpy as np
import yaml
from PIL import Image

from geoloc_dagster.config import Layout
from geoloc_dagster.config.loader import load_settings
from geoloc_dagster.explorer.places import Places
from geoloc_dagster.prediction.fused import FusedPredictor, load_fused
from geoloc_dagster.prediction.panel import Photos, look_all
from geoloc_dagster.prediction.photo import as_picture

SIDE = 640
BATCH = 16


def photos_of(layout: Layout, count: int) -> list[bytes]:
    """Held-out pictures as photos of 640 pixels."""
    places, found = Places(layout), list[bytes]()
    for name in places.questions()["capture_id"].to_pylist()[:count]:
        content = places.encoded(name)
        assert content is not None
        stream = io.BytesIO()
        Image.open(io.BytesIO(content)).resize((SIDE, SIDE)).save(stream, "JPEG", quality=90)
        found.append(stream.getvalue())
    return (found * (count // len(found) + 1))[:count]


def unlimited(region: Path) -> Path:
    """The region's configuration without a limit of photos a minute, beside it."""
    values = yaml.safe_load((region / "geoloc.yaml").read_text())
    values["explorer"] = {**values.get("explorer", {}), "photos_per_minute": 10_000_000}
    path = region / "explorer_benchmark.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@contextmanager
def running(config: Path, photo: bytes) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """An explorer in a process of its own: its address, the process, and the seconds from its start to the first answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url, began = f"http://127.0.0.1:{port}", time.perf_counter()
    command = [sys.executable, "-m", "geoloc_dagster", "explorer", "--config", str(config), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                if httpx2.post(f"{url}/predict", files={"photos": ("a.jpg", photo)}, timeout=60).status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            if process.poll() is not None or time.perf_counter() - began > 300:
                raise SystemExit("the explorer does not answer")
            time.sleep(0.02)
        yield url, process, time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


def request_of(host: str, photo: bytes) -> bytes:
    """A request for one photo, as bytes."""
    edge = "photo-of-the-benchmark"
    part = f'--{edge}\r\nContent-Disposition: form-data; name="photos"; filename="a.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    body = part.encode() + photo + f"\r\n--{edge}--\r\n".encode()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: multipart/form-data; boundary={edge}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def asked(url: str, photos: list[bytes], askers: int) -> tuple[float, list[float], int]:
    """Seconds in all, seconds of each, and answers that were not 200; by plain sockets, which take little from the two cores."""
    host = url.removeprefix("http://")
    name, _, port = host.partition(":")
    waiting, times, wrong = [request_of(host, photo) for photo in photos], list[float](), 0

    async def ask() -> None:
        nonlocal wrong
        reader, writer = await asyncio.open_connection(name, int(port))
        while waiting:
            request = waiting.pop()
            began = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            await reader.readexactly(int(head.partition("content-length:")[2].split()[0]))
            times.append(time.perf_counter() - began)
            wrong += not head.startswith("http/1.1 200")
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(askers)))
    return time.perf_counter() - began, times, wrong


def bare(predictor: FusedPredictor, photos: list[bytes], *, experts: bool) -> float:
    """Seconds to decode the photos and put them through the networks in sixteens; or through all that the experts look at."""
    began = time.perf_counter()
    for start in range(0, len(photos), BATCH):
        part = photos[start : start + BATCH]
        sizes = predictor.sizes if experts else {encoder.image_size for encoder in predictor.encoders}
        pictures = {size: np.stack([as_picture(photo, size) for photo in part]) for size in sizes}
        vectors = {one.model_version: one.embed(pictures[one.image_size], BATCH) for one in predictor.encoders}
        if experts:
            look_all(predictor.experts, Photos(vectors, pictures.__getitem__))
    return time.perf_counter() - began


def processor_s(process: subprocess.Popen[bytes]) -> float:
    """Seconds that a process has computed."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    """Memory of a process, megabytes."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--region", type=Path, required=True)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--askers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--soak", type=int, default=2_000)
    options = parser.parse_args()
    layout = Layout(load_settings(options.region / "geoloc.yaml").data_root)
    photos, predictor = photos_of(layout, options.photos), load_fused(layout)
    print(f"{len(os.sched_getaffinity(0))} cores, load average {' '.join(f'{load:.1f}' for load in os.getloadavg())}")
    config = unlimited(options.region)
    cold = list[float]()
    for _ in range(3):
        with running(config, photos[0]) as (_, _, seconds):
            cold.append(seconds)
    print(f"cold start to first answer: {', '.join(f'{one:.1f}' for one in cold)} s")
    with running(config, photos[0]) as (url, process, _):
        asyncio.run(asked(url, photos, options.askers))
        ratios, busy, rates, all_times, failed = list[float](), list[float](), list[float](), list[float](), 0
        of_experts = list[float]()
        for _ in range(options.rounds):
            before = processor_s(process)
            took, times, wrong = asyncio.run(asked(url, photos, options.askers))
            spent, before = processor_s(process) - before, time.process_time()
            alone = bare(predictor, photos, experts=False)
            busy.append((time.process_time() - before) / spent)
            ratios.append(alone / took)
            of_experts.append(bare(predictor, photos, experts=True) / took)
            rates.append(len(photos) / took)
            all_times += times
            failed += wrong
        p50, p95 = np.quantile(all_times, [0.5, 0.95])
        print(f"{len(photos)} photos by {options.askers} askers, {options.rounds} rounds, {failed} failed:", end=" ")
        print(f"p50 {p50 * 1e3:.0f} ms, p95 {p95 * 1e3:.0f} ms, {statistics.median(rates):.1f} photos/s")
        shown = ", ".join(f"{one:.2f}" for one in ratios)
        print(f"share of the bare model ({len(predictor.encoders)} networks): {statistics.median(ratios):.2f} ({shown})")
        shown = ", ".join(f"{one:.2f}" for one in of_experts)
        print(f"share of all that its {len(predictor.experts)} experts look at: {statistics.median(of_experts):.2f} ({shown})")
        shown = f"{statistics.median(busy):.2f} ({min(busy):.2f}-{max(busy):.2f})"
        print(f"share of the bare model in processor time, without the askers: {shown}")
        memory = [resident_mb(process)]
        for _ in range(options.soak // len(photos)):
            _, _, wrong = asyncio.run(asked(url, photos, options.askers))
            failed += wrong
            memory.append(resident_mb(process))
        print(f"memory over {options.soak} more: {' '.join(f'{one:.0f}' for one in memory)} MB, {failed} failed")


if __name__ == "__main__":
    main()
