"""What serving through ONNX Runtime costs and saves beside torch: pictures per second, and a cold process to its first answer.

    .venv/bin/python benchmarks/onnx_serving.py --data-root demo/data --photo photo.jpg [--model FOLDER] [--rounds 7]

Both runtimes are asked by turns in one run, so that what else the machine does meets both; medians and their ratios are printed.
Without `--model` the encoder is that of the release, which must hold its export. Cold processes answer one photo of the release
with its fusion, after checking every byte of it; their CPU time is what a busy machine changes least.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from geoloc_dagster.config import Layout
from geoloc_dagster.prediction.release import served_manifest

ASK = """
import sys
from pathlib import Path
from geoloc_dagster.config import Layout
from geoloc_dagster.prediction.fused import load_fused
load_fused(Layout(Path(sys.argv[1])), runtime=sys.argv[3]).predict([Path(sys.argv[2])])
"""
RUNTIMES = ("torch", "onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--model", type=Path, help="A trained model of retrieval in place of the released one.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=0, help="Of either runtime; their defaults without it.")
    options = parser.parse_args()
    if options.photo is not None:
        cold(options.data_root, options.photo, options.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        throughput(options.model or released(options.data_root), Path(scratch), options.rounds, options.threads)


def released(data_root: Path) -> Path:
    """The released model of retrieval."""
    _, manifest = served_manifest(Layout(data_root))
    return data_root / manifest["parts"]["model"]["folder"]


def cold(data_root: Path, photo: Path, rounds: int) -> None:
    """Fresh processes, first to last; the first of each runtime is left out, because it fills the page cache."""
    taken: dict[str, list[tuple[float, float]]] = {runtime: [] for runtime in RUNTIMES}
    for _ in range(rounds + 1):
        for runtime in RUNTIMES:
            before, started = os.times(), time.perf_counter()
            subprocess.run([sys.executable, "-c", ASK, str(data_root), str(photo), runtime], check=True)
            wall, after = time.perf_counter() - started, os.times()
            cpu = after.children_user + after.children_system - before.children_user - before.children_system
            taken[runtime].append((wall, cpu))
    print(f"cold process to its first answer, medians of {rounds}")
    for column, name in enumerate(("wall s", "CPU s")):
        torch_, onnx_ = (statistics.median(run[column] for run in taken[runtime][1:]) for runtime in RUNTIMES)
        print(f"  {name:7} torch {torch_:7.2f}   onnx {onnx_:6.2f}   ratio {torch_ / onnx_:5.1f}")


def throughput(model: Path, scratch: Path, rounds: int, threads: int) -> None:
    """Pictures per second of one encoder, batch 1 and 16."""
    import torch

    from geoloc_dagster.learning.encoder import load_encoder
    from geoloc_dagster.learning.onnx_export import export_model, probe_pictures
    from geoloc_dagster.prediction.onnx_models import open_onnx_encoder

    if threads:
        torch.set_num_threads(threads)
    export = export_model(model, scratch)
    encoders: dict[str, Any] = {
        "torch": load_encoder(model, device="cpu", precision="32"),
        "onnx": open_onnx_encoder(export.folder, model.name, threads=threads or None),
    }
    side = encoders["onnx"].image_size
    pictures = np.concatenate([probe_pictures(side), probe_pictures(side, 1)])[:16]
    print(f"{model.name}: {side} px, {encoders['onnx'].dimension}-d vectors; the export differs by {export.facts.difference:.1e}")
    for size in (1, 16):
        taken: dict[str, list[float]] = {runtime: [] for runtime in RUNTIMES}
        repeats = max(1, 16 // size)
        for turn in range(rounds + 1):
            for runtime in RUNTIMES:
                seconds = timed(encoders[runtime], pictures[:size], repeats)
                if turn:
                    taken[runtime].append(size * repeats / seconds)
        torch_, onnx_ = (statistics.median(taken[runtime]) for runtime in RUNTIMES)
        ratios = [onnx / torch for torch, onnx in zip(*(taken[runtime] for runtime in RUNTIMES), strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"  batch {size:2}  torch {torch_:7.1f}/s   onnx {onnx_:7.1f}/s   ratio {statistics.median(ratios):.2f} ({spread})")


def timed(encoder: Any, pictures: np.ndarray, repeats: int) -> float:
    """Seconds."""
    started = time.perf_counter()
    for _ in range(repeats):
        encoder.embed(pictures)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
