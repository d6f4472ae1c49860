"""Files as somebody would make them who means harm, and the loaders that would open them; each family in a process of its own.

    python -m geoloc_dagster_tests.hostile.files FAMILY FOLDER

A family is a function that yields cases: a name, what to do, and the errors that may be the answer. The process prints a line of
JSON per case. It may have no more than `HEAP` bytes of its own, so what is not refused in time ends it.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import struct
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from geoloc_dagster import storage
from geoloc_dagster.errors import GeolocError
from geoloc_dagster.tables import append_rows, verify_table

HEAP = 6 * 2**30
HUGE = 2**60
Case = tuple[str, Callable[[], object], tuple[str, ...]]

UNSAFE, INTEGRITY, WEIGHTS, ARCHIVE = "GEO-304", "GEO-503", "GEO-502", "GEO-302"


class Touch:
    """Unpickled, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def sparse(path: Path, size: int) -> Path:
    """A file that says it is that large, and takes no room."""
    with path.open("wb") as stream:
        stream.truncate(size)
    return path


# --- weights -------------------------------------------------------------------------------------------------------
def weights(folder: Path) -> Iterator[Case]:
    import pickle

    import torch
    from safetensors.torch import save, save_file

    from geoloc_dagster.learning.backbones import read_state_dict

    def case(name: str, path: Path, *codes: str) -> Case:
        return name, lambda: read_state_dict(path), codes

    def torch_file(name: str, value: Any) -> Path:
        torch.save(value, folder / name)
        return folder / name

    def repickled(name: str, content: bytes, **how: Any) -> Path:
        """An archive of torch whose pickle is another one."""
        path = torch_file("plain.pt", {"a": torch.ones(4)})
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(folder / name, "w", **how) as new:
            for member in old.namelist():
                new.writestr(member, content if member.endswith("data.pkl") else old.read(member))
        return folder / name

    good = torch_file("good.pt", {"state_dict": {"a": torch.ones(4)}, "epoch": 3})
    assert set(read_state_dict(good)) == {"a"}

    yield case("runs a command", torch_file("command.pt", {"a": Touch(folder / "ran")}), WEIGHTS)
    yield case("runs a command, hyper-parameters", torch_file("h.ckpt", {"state_dict": {}, "h": Touch(folder / "ran")}), WEIGHTS)
    (folder / "bare.pt").write_bytes(pickle.dumps(Touch(folder / "ran")))
    yield case("a bare pickle", folder / "bare.pt", UNSAFE)
    (folder / "old.pt").write_bytes(pickle.dumps(Touch(folder / "ran"), protocol=0))
    yield case("a pickle of protocol 0", folder / "old.pt", WEIGHTS)
    torch.save({"a": torch.ones(2)}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    yield case("torch's old format", folder / "legacy.pt", UNSAFE)
    script = torch.jit.script(torch.nn.Linear(2, 2))
    torch.jit.save(script, str(folder / "script.pt"))
    yield case("a program", folder / "script.pt", WEIGHTS, UNSAFE)
    yield case("bytes without end", repickled("bytes.pt", pickle.dumps(Bytes(), protocol=2)), WEIGHTS)
    stacked = pickle.dumps(Touch(folder / "ran"), protocol=4)
    yield case("a command, named from the stack", repickled("stack.pt", stacked), WEIGHTS)
    yield case("a view of more than there is", torch_file("view.pt", {"a": torch.ones(1).expand(2**40)}), UNSAFE)
    yield case("without memory", torch_file("meta.pt", {"a": torch.empty(2**50, device="meta")}), WEIGHTS, UNSAFE)
    yield case("sparse", torch_file("sparse.pt", {"a": torch.sparse_coo_tensor([[0]], [1.0], (2**40,))}), WEIGHTS, UNSAFE)
    yield case("deflated", repickled("deflated.pt", b"\0" * 2**27, compression=zipfile.ZIP_DEFLATED), UNSAFE)
    with zipfile.ZipFile(folder / "climbs.pt", "w") as archive:
        archive.writestr("../../data.pkl", pickle.dumps({}, protocol=2))
    yield case("members elsewhere", folder / "climbs.pt", UNSAFE)
    with zipfile.ZipFile(folder / "none.pt", "w") as archive:
        archive.writestr("x/readme", b"")
    yield case("another archive", folder / "none.pt", WEIGHTS)

    header = b'{"a":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}'
    for name, shape, end, claimed in (
        ("a header without end", 1, 4, HUGE),
        ("a header longer than the file", 1, 4, 2**20),
        ("more bytes than the file", 2**58, HUGE, None),
        ("a shape that is none of its bytes", 2**58, 4, None),
        ("a shape that overflows", 2**62, 0, None),
    ):
        text = header % (shape, end)
        path = folder / f"{name.replace(' ', '-')}.safetensors"
        path.write_bytes(struct.pack("<Q", len(text) if claimed is None else claimed) + text + b"\0" * 4)
        yield case(name, path, WEIGHTS)
    save_file({"a": torch.ones(2)}, folder / "a.safetensors")
    whole = (folder / "a.safetensors").read_bytes()
    for size in (0, 1, 7, 8, 9, len(whole) - 1):
        (folder / f"cut-{size}.safetensors").write_bytes(whole[:size])
        yield case(f"cut after {size}", folder / f"cut-{size}.safetensors", WEIGHTS)
    (folder / "named.safetensors").write_bytes(good.read_bytes())
    yield case("torch's, named as safetensors", folder / "named.safetensors", WEIGHTS)
    (folder / "named.pt").write_bytes(save({"a": torch.ones(2)}))
    yield case("safetensors, named as torch's", folder / "named.pt", WEIGHTS)
    yield from changed(folder, good.read_bytes(), ".pt", read_state_dict, 90)
    yield from changed(folder, whole, ".safetensors", read_state_dict, 90)


class Bytes:
    """Unpickled, it is a byte array of a terabyte."""

    def __reduce__(self) -> Any:
        return bytearray, (2**40,)


def changed(folder: Path, content: bytes, suffix: str, load: Callable[[Path], object], times: int) -> Iterator[Case]:
    """The same file with bytes of it changed, a number in it made huge, or its end cut off; loading it, or an error of ours."""
    draw = random.Random(len(content))
    for number in range(times):
        damaged = bytearray(content)
        match number % 3:
            case 0:
                for _ in range(draw.randint(1, 8)):
                    damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            case 1:
                place = draw.randrange(max(1, len(damaged) - 8))
                damaged[place : place + 8] = struct.pack("<Q", draw.choice([HUGE, 2**63, 2**64 - 1, 2**32, 2**31 - 1]))
            case _:
                del damaged[draw.randrange(len(damaged)) :]
        path = folder / f"changed-{number}{suffix}"
        path.write_bytes(damaged)
        yield f"changed {suffix} {number}", partial(load, path), ("", WEIGHTS, UNSAFE, INTEGRITY)


# --- indexes -------------------------------------------------------------------------------------------------------
def index(folder: Path) -> Iterator[Case]:
    import faiss
    import numpy as np
    import pyarrow as pa

    from geoloc_dagster.retrieval.index import load_index
    from geoloc_dagster.retrieval.index_file import check_index_file
    from geoloc_dagster.retrieval.index_planner import build

    count, dimension = 600, 16
    vectors = np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)

    def published(content: bytes, rows: int = count, size: int = dimension) -> Path:
        """An index as its maker would hand it over: every checksum is right."""
        made = folder / "made"
        made.mkdir()
        (made / "vectors.faiss").write_bytes(content)
        numbers = np.zeros(rows)
        table = {"capture_id": [str(n) for n in range(rows)], "lat_deg": numbers, "lng_deg": numbers, "s2_cell": numbers}
        storage.write_parquet(made / "rows.parquet", pa.table(table))
        storage.write_manifest(made, model_version="m", rows=rows, dimension=size, plan={"kind": "Flat", "probes": 0})
        return made.rename(folder / f"index-{storage.sha256_file(made / 'manifest.json')[:12]}")

    def use(path: Path) -> object:
        """As serving does it."""
        held = load_index(path)
        held.search(vectors[:3], 5)
        return held.vectors()

    def saved(kind: str) -> bytes:
        return faiss.serialize_index(build(vectors, kind)).tobytes()

    use(published(saved("Flat")))
    (folder / "other").mkdir()
    for kind in ("HNSW8", "LSH", "PQ4", "IVF16,PQ4x4fs", "IDMap,Flat", "IVF16_HNSW8,Flat"):
        made = faiss.index_factory(dimension, kind)
        made.train(vectors)
        made.add_with_ids(vectors, np.arange(count)) if kind.startswith("IDMap") else made.add(vectors)
        path = published(faiss.serialize_index(made).tobytes())
        yield f"of kind {kind}", partial(use, path), (UNSAFE,)
    yield "lists in another file", partial(use, published(elsewhere(folder, vectors))), (UNSAFE,)
    claims = bytearray(saved("Flat"))
    claims[8:16] = struct.pack("<q", HUGE)
    yield "more vectors than there are", partial(use, published(bytes(claims))), (UNSAFE,)
    yield "a manifest that agrees with that", partial(use, published(bytes(claims), rows=7)), (UNSAFE, INTEGRITY)
    yield "of no dimension", partial(use, published(saved("Flat"), size=2**31 - 1)), (UNSAFE,)
    yield "empty", partial(use, published(b"")), (UNSAFE,)
    twice = bytearray(saved("IVF16,Flat"))
    twice[-16:-8] = twice[-8:]
    yield "a vector in two places", partial(use, published(bytes(twice))), (UNSAFE,)

    def fuzz(path: Path) -> object:
        check_index_file(path, count, dimension)
        found = faiss.read_index(str(path))
        found.search(vectors[:3], 5)
        if hasattr(found, "make_direct_map"):
            found.make_direct_map()
        return found.reconstruct_n(0, count)

    for kind in ("Flat", "SQfp16", "SQ8", "PCA8,SQ8", "IVF16,Flat", "IVF16,SQ8", "OPQ4,IVF16,PQ4"):
        content = saved(kind)
        (folder / "good.faiss").write_bytes(content)
        check_index_file(folder / "good.faiss", count, dimension)
        yield from changed(folder, content, f".{kind}.faiss", fuzz, 30)
        yield from numbered(folder, content, kind, fuzz)


def elsewhere(folder: Path, vectors: Any) -> bytes:
    """An index whose lists lie in another file, which faiss opens."""
    import faiss
    import numpy as np

    found: Any = faiss.index_factory(vectors.shape[1], "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    found.train(vectors)
    lists = faiss.OnDiskInvertedLists(found.nlist, found.code_size, str(folder / "lists.bin"))
    found.replace_invlists(lists)
    found.add_with_ids(vectors, np.arange(len(vectors)))
    return faiss.serialize_index(found).tobytes()


def numbered(folder: Path, content: bytes, kind: str, load: Callable[[Path], object]) -> Iterator[Case]:
    """The file with each of its first fields made huge, zero, or negative."""
    for place in range(4, min(len(content) - 8, 220), 5):
        damaged = bytearray(content)
        damaged[place : place + 8] = struct.pack("<Q", (HUGE, 0, 2**64 - 1)[place % 3])
        path = folder / f"field-{place}.faiss"
        path.write_bytes(damaged)
        yield f"{kind} byte {place}", partial(load, path), ("", UNSAFE)


# --- manifests, pointers, releases ---------------------------------------------------------------------------------
def manifests(folder: Path) -> Iterator[Case]:
    from geoloc_dagster.config.layout import Layout
    from geoloc_dagster.prediction.champion import read_champion
    from geoloc_dagster.prediction.release import newest_fusion, served_manifest
    from geoloc_dagster.retrieval.index import latest_index
    from geoloc_dagster.retrieval.pointer import write_pointer

    secret = folder / "secret"
    secret.write_bytes(b"sesame")
    digest = storage.sha256_file(secret)

    def made(name: str, files: Any, **said: Any) -> Path:
        place = folder / name
        place.mkdir()
        (place / "a").write_bytes(b"a")
        storage.write_json(place / "manifest.json", {"schema_version": 1, "files": files, **said})
        return place

    def case(name: str, place: Path, *codes: str) -> Case:
        return name, lambda: storage.verify_manifest(place), codes

    a = storage.sha256_file(made("good", {}) / "a")
    storage.verify_manifest(made("really-good", {"a": a}))
    yield case("names its neighbour", made("up", {"a": a, "../secret": digest}), UNSAFE)
    yield case("names a file by its whole path", made("root", {"a": a, str(secret): digest}), UNSAFE)
    yield case("names a folder", made("folder", {"a": a, ".": digest}), UNSAFE, INTEGRITY)
    yield case("names nothing", made("nothing", {"a": a, "": digest}), UNSAFE)
    linked = made("link", {"a": a, "b": digest})
    (linked / "b").symlink_to(secret)
    yield case("a link that leads out", linked, UNSAFE)
    hidden = made("hidden", {"a": a})
    (hidden / "b").symlink_to(folder, target_is_directory=True)
    yield case("a folder that leads out", hidden, UNSAFE)
    yield case("a file that it does not name", made("more", {}), INTEGRITY)
    yield case("a list of files", made("list", ["a"]), INTEGRITY)
    yield case("a version in words", made("words", {"a": a}, schema_version="1e9"), INTEGRITY)
    for name, content in (
        ("a list", b"[]"), ("a text", b'"x"'), ("no JSON", b"{"), ("deep", b"[" * 100_000), ("not text", b"\xff\xfe"),
    ):  # fmt: skip
        place = made(f"is {name}", {})
        (place / "manifest.json").write_bytes(content)
        yield case(f"a manifest that is {name}", place, INTEGRITY)
    large = made("large", {})
    sparse(large / "manifest.json", 2**40)
    yield case("a manifest of a terabyte", large, UNSAFE)
    pipe = made("pipe", {"a": a, "b": digest})
    os.mkfifo(pipe / "b")
    yield case("a pipe", pipe, INTEGRITY)

    layout = Layout(folder / "data")
    outside = made("outside", {"a": a}, rows=1)
    sum_of = storage.sha256_file(outside / "manifest.json")
    fields = {
        "folder": "../outside",
        "manifest_sha256": sum_of,
        "model_version": "m",
        "recipe": "r",
        "promoted_at": "",
        "reason": "",
    }
    write_pointer(layout.champion, {**fields, "evaluation": {}})
    yield "a champion elsewhere", lambda: read_champion(layout), (UNSAFE,)
    write_pointer(layout.indexes / "LATEST.json", {"index": "../../../outside"})
    yield "an index elsewhere", lambda: latest_index(layout.indexes), (UNSAFE,)
    write_pointer(layout.fusions / "LATEST.json", {"fusion": str(outside)})
    yield "a fusion elsewhere", lambda: newest_fusion(layout), (UNSAFE,)
    parts = {"index": {"folder": str(outside), "manifest_sha256": sum_of}}
    release = storage.write_json(layout.releases / "new" / "manifest.json", {"schema_version": 1, "parts": parts})
    digest = storage.sha256_file(release)
    release.parent.rename(layout.releases / digest[:12])
    write_pointer(layout.releases / "CURRENT.json", {"release": digest[:12], "manifest_sha256": digest})
    yield "a release of something elsewhere", lambda: served_manifest(layout), (UNSAFE,)

    def climbing() -> object:
        write_pointer(layout.releases / "CURRENT.json", {"release": "../../outside", "manifest_sha256": sum_of})
        return served_manifest(layout)

    yield "a release that climbs", climbing, (INTEGRITY, UNSAFE)


# --- exported models -----------------------------------------------------------------------------------------------
def exports(folder: Path) -> Iterator[Case]:
    from onnx import TensorProto, helper

    from geoloc_dagster.prediction.onnx_models import open_onnx_encoder

    facts = {
        "answers": "vectors", "model_version": "m", "model_manifest_sha256": "0" * 64, "side": 4, "length": 4, "batch": 1,
        "tolerance": 0.0, "difference": 0.0, "made_by": {},
    }  # fmt: skip
    (folder / "secret.bin").write_bytes(b"\0" * 16)

    def graph(tensor: TensorProto, operator: str = "Identity", domain: str = "") -> bytes:
        node = helper.make_node(operator, ["w"], ["answers"], domain=domain)
        out = helper.make_tensor_value_info("answers", TensorProto.FLOAT, None)
        model = helper.make_model(
            helper.make_graph([node], "g", [], [out], [tensor]),
            opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("of.others", 1)],
        )
        model.ir_version = 8
        return model.SerializeToString()

    def elsewhere_at(location: str) -> TensorProto:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", location), ("offset", "0"), ("length", "16")):
            tensor.external_data.add(key=key, value=value)
        return tensor

    def export(name: str, content: bytes, link: str | None = None) -> Path:
        place = folder / name
        place.mkdir()
        (place / "model.onnx").write_bytes(content)
        storage.write_json(place / "export.json", facts)
        storage.write_manifest(place)
        if link is not None:
            (place / link).symlink_to(folder / "secret.bin")
        return place

    def case(name: str, place: Path, *codes: str) -> Case:
        return name, lambda: open_onnx_encoder(place, "m", threads=1), codes or (INTEGRITY,)

    small = helper.make_tensor("w", TensorProto.FLOAT, [4], [0.0] * 4)
    open_onnx_encoder(export("good", graph(small)), "m", threads=1)
    for number, location in enumerate(("../secret.bin", str(folder / "secret.bin"), "a/../../secret.bin", "/etc/hostname")):
        yield case(f"weights in {location}", export(f"out-{number}", graph(elsewhere_at(location))))
    yield case("weights behind a link", export("linked", graph(elsewhere_at("w.bin")), "w.bin"), UNSAFE, INTEGRITY)
    huge = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[HUGE], raw_data=b"1234")
    yield case("a tensor of absurd size", export("huge", graph(huge)))
    yield case("an operator of others", export("operator", graph(small, "Run", "of.others")))
    yield case("no graph", export("none", b"\x80\x04."))
    yield case("nothing", export("empty", b""))
    content = graph(small)

    def changed_export(path: Path) -> object:
        return open_onnx_encoder(export(f"x{path.stem}", path.read_bytes()), "m", threads=1)

    yield from changed(folder, content, ".onnx", changed_export, 60)


# --- tables and lists ----------------------------------------------------------------------------------------------
def tables(folder: Path) -> Iterator[Case]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from geoloc_dagster.dataset.photo_positions import PhotoFile
    from geoloc_dagster.imagery.photo_rows import Rows

    rows = pa.table({"url": ["http://a.example/1.jpg"] * 50, "lat": [1.0] * 50, "lng": [2.0] * 50})
    whole = storage.write_parquet(folder / "good.parquet", rows).read_bytes()

    def listed(path: Path) -> object:
        return list(Rows(path, {}, can_lack_url=False, need_position=True))

    def placed(path: Path) -> object:
        return [piece.rows.num_rows for piece in PhotoFile(path).pieces()]

    loaders = {"read": storage.read_parquet, "listed": listed, "placed": placed}
    for load in loaders.values():
        assert load(folder / "good.parquet")
    many = folder / "many.parquet"
    with pq.ParquetWriter(many, pa.schema([("url", pa.string()), ("lat", pa.float64()), ("lng", pa.float64())])) as writer:
        piece = pa.table({"url": ["x"] * 4_000_000, "lat": [1.0] * 4_000_000, "lng": [2.0] * 4_000_000})
        writer.write_table(piece, row_group_size=4_000_000)
    for name, load in loaders.items():
        yield f"{name}: rows without end", partial(load, many), (UNSAFE,)
        bad = ("", INTEGRITY, UNSAFE, "GEO-313")
        for case, do, _ in changed(folder, whole, f".{name}.parquet", load, 36):
            yield f"{name}: {case}", do, bad
    end = bytearray(whole)
    end[-8:-4] = struct.pack("<I", 2**32 - 1)
    (folder / "footer.parquet").write_bytes(end)
    for name, load in loaders.items():
        yield f"{name}: a footer longer than the file", partial(load, folder / "footer.parquet"), (INTEGRITY, "GEO-313")


def lists(folder: Path) -> Iterator[Case]:
    from geoloc_dagster.dataset.photo_positions import PhotoFile
    from geoloc_dagster.evaluation.photo_tables import read_photos, read_predictions
    from geoloc_dagster.geo.buffer_csv import read_buffer_csv
    from geoloc_dagster.geo.cell_csv import read_cells_csv
    from geoloc_dagster.geo.features import read_polygons
    from geoloc_dagster.imagery.photo_rows import Rows

    def cells(path: Path) -> object:
        return read_cells_csv(path, "coarse")

    def written(name: str, content: bytes) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    head = b"class_label,hex_id,imgs_per_cell,latitude_mean,longitude_mean\n"
    cells(written("good.csv", head + b"0,89c25,3,40.7,-74.0\n"))
    for name, row in {
        "a class without end": b"%d,89c25,3,40.7,-74.0" % HUGE,
        "a class below none": b"-5,89c25,3,40.7,-74.0",
        "pictures without end": b"0,89c25,%d,40.7,-74.0" % 10**30,
        "a number of ten thousand digits": b"0,89c25," + b"9" * 10_000 + b",40.7,-74.0",
        "a place that is no number": b"0,89c25,3,nan,-74.0",
        "a token without end": b"0," + b"f" * 100_000 + b",3,40.7,-74.0",
        "a field without end": b"0," + b"f" * 200_000 + b",3,40.7,-74.0",
        "nothing": b"\0" * 100,
        "a path": b"0,../../../etc/passwd,3,40.7,-74.0",
    }.items():
        yield f"cells: {name}", partial(cells, written(f"{name}.csv", head + row + b"\n")), ("GEO-203",)
    yield "cells: a header without end", partial(cells, written("header.csv", b"x" * 200_000)), ("GEO-203",)
    yield "cells: a terabyte", partial(cells, sparse(folder / "large.csv", 2**40)), (UNSAFE,)
    wide = b"x" * 200_000 + b",b\n"
    yield "photos: a name without end", partial(read_photos, written("p.csv", wide)), ("GEO-313",)
    predicted = written("q.csv", b"img_id,p_key,pred_lat,pred_lng\n" + wide)
    yield "predictions: a field without end", lambda: read_predictions(predicted), ("GEO-313",)
    yield "positions: a name without end", partial(PhotoFile, written("n.csv", wide)), ("GEO-313",)
    names = written("m.csv", wide)
    yield "list: a name without end", lambda: list(Rows(names, {}, can_lack_url=False, need_position=True)), ("GEO-313",)
    buffers = written("b.csv", wide)
    yield "buffer: a name without end", lambda: read_buffer_csv(buffers), ("GEO-202",)
    for name, content in {
        "nested without end": b"[" * 200_000,
        "collections in collections": b'{"type":"FeatureCollection","features":[' * 50_000,
        "no number": b'{"type":"Polygon","coordinates":[[[0,0],[1e999,0],[1,1],[0,0]]]}',
        "a list": b"[]",
    }.items():
        path = written(f"{name}.geojson", content)
        yield f"polygons: {name}", partial(read_polygons, path), ("GEO-201",)
    yield "polygons: a terabyte", partial(read_polygons, sparse(folder / "large.geojson", 2**40)), ("GEO-201",)


def yamls(folder: Path) -> Iterator[Case]:
    from geoloc_dagster.config.loader import load_settings
    from geoloc_dagster.learning.cells_import import read_key_map
    from geoloc_dagster.learning.recipe import parse_recipe

    laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
    )
    texts = {
        "aliases of aliases": laughs,
        "an object": "kind: !!python/object/apply:os.system ['touch ran']\n",
        "a name": "kind: !!python/name:os.system\n",
        "nested without end": "[" * 20_000,
        "two megabytes": "# " + "x" * 2_000_000,
        "a date that is none": "kind: 2024-99-99\n",
        "a number of ten thousand digits": "kind: " + "9" * 10_000,
    }
    for number, (name, text) in enumerate(texts.items()):
        path = folder / f"{number}.yaml"
        path.write_text(text)
        yield f"configuration: {name}", partial(load_settings, path), ("GEO-101",)
        yield f"key map: {name}", partial(read_key_map, path), ("GEO-501",)
        yield f"recipe: {name}", partial(parse_recipe, text, path), ("GEO-501",)


def archives(folder: Path) -> Iterator[Case]:
    from geoloc_dagster.imagery.archive import list_source

    def tar(name: str, *entries: tuple[tarfile.TarInfo, bytes]) -> Path:
        with tarfile.open(folder / name, "w") as archive:
            for entry, content in entries:
                archive.addfile(entry, io.BytesIO(content) if content else None)
        return folder / name

    def entry(name: str, *, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
        made = tarfile.TarInfo(name)
        made.size, made.type, made.linkname = size, kind, link
        return made

    for name, made in {
        "climbs": entry("../../a.jpg"), "from the root": entry("/etc/a.jpg"), "backslashes": entry("..\\a.jpg"),
        "a link": entry("a.jpg", kind=tarfile.SYMTYPE, link="/etc/passwd"),
        "another name": entry("a.jpg", kind=tarfile.LNKTYPE, link="../secret"),
        "a device": entry("a.jpg", kind=tarfile.CHRTYPE), "a pipe": entry("a.jpg", kind=tarfile.FIFOTYPE),
    }.items():  # fmt: skip
        yield name, partial(list_source, tar(f"{name}.tar", (made, b""))), (ARCHIVE,)
    claimed = entry("a.jpg", size=HUGE)
    (folder / "claims.tar").write_bytes(claimed.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    yield "a member of absurd size", lambda: list_source(folder / "claims.tar"), ("GEO-301", ARCHIVE)
    longname = entry("././@LongLink", size=HUGE, kind=tarfile.GNUTYPE_LONGNAME)
    (folder / "name.tar").write_bytes(longname.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    yield "a name of absurd length", lambda: list_source(folder / "name.tar"), ("GEO-301", ARCHIVE)
    good = tar("good.tar", (entry("a.jpg", size=4), b"abcd")).read_bytes()
    for case, do, _ in changed(folder, good, ".tar", list_source, 60):
        yield case, do, ("", "GEO-301", ARCHIVE, UNSAFE)


def lance_tables(folder: Path) -> Iterator[Case]:
    """Tables of ours whose bytes were changed. They are not for passing on: data that Lance cannot read may end the process, so
    that the checksums which every commit leaves beside a table have to stop it before.
    """
    import shutil

    import pyarrow as pa

    schema = pa.schema([("capture_id", pa.string()), ("batch", pa.string())], metadata={b"geoloc_schema_version": b"1"})
    good = folder / "good.lance"
    append_rows(good, pa.table({"capture_id": ["a", "b"], "batch": ["x", "x"]}, schema=schema))
    kinds = {"manifest": next((good / "_versions").glob("*.manifest")), "data": next((good / "data").glob("*.lance"))}

    verify_table(good)

    for kind, file in kinds.items():

        def attempt(changed_file: Path, *, kind: str = kind, file: Path = file) -> object:
            table = folder / f"{kind}-{changed_file.stem}.lance"
            shutil.copytree(good, table)
            shutil.copytree(folder / "good.lance.sha256", folder / f"{table.name}.sha256")
            (table / file.relative_to(good)).write_bytes(changed_file.read_bytes())
            return verify_table(table)

        for case, do, _ in changed(folder, file.read_bytes(), f".{kind}", attempt, 24):
            yield case, do, (INTEGRITY,)


FAMILIES: dict[str, Callable[[Path], Iterator[Case]]] = {
    "weights": weights, "index": index, "manifests": manifests, "exports": exports, "tables": tables, "lists": lists,
    "yamls": yamls, "archives": archives, "lance_tables": lance_tables,
}  # fmt: skip


def say(what: dict[str, Any]) -> None:
    """A line of JSON, at once: the next case may be the last."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def held(what: str) -> int:
    """Memory of this process, bytes: VmRSS what it holds, VmHWM the most that it held."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


def main(family: str, folder: Path) -> None:
    """Try every case of a family and print what came of it."""
    resource.setrlimit(resource.RLIMIT_DATA, (HEAP, HEAP))
    for name, do, codes in FAMILIES[family](folder):
        Path("/proc/self/clear_refs").write_text("5")  # the most that was ever held is counted anew
        before, began = held("VmRSS"), time.process_time()
        say({"begun": name})
        try:
            do()
            said, code = "", ""
        except GeolocError as error:
            said, code = str(error), error.code
        except BaseException as error:  # noqa: BLE001 - what would end the command, or a server, with a traceback
            said, code = f"{type(error).__name__}: {error}"[:300], type(error).__name__
        grown, spent = held("VmHWM") - before, time.process_time() - began
        say({"name": name, "code": code, "may_be": codes, "said": said[:300], "grown_bytes": grown, "seconds": spent})


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
