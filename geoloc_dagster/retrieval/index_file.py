"""What the file of an index says that it holds, read before faiss opens it.

faiss takes index files for the work of friends: one may name other files, which are then opened, or state lengths that no buffer
has. So only the kinds that `index_planner` builds are let through, each field of them whole and of the size that follows from the
others; https://github.com/facebookresearch/faiss/blob/main/faiss/impl/index_write.cpp says in which order they stand.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import NoReturn

import faiss
import numpy as np

from geoloc_dagster.errors import UnsafeFileError
from geoloc_dagster.guards import DISTRUST

_INNER_PRODUCT = int(faiss.METRIC_INNER_PRODUCT)
_CODE_BYTES = {int(faiss.ScalarQuantizer.QT_8bit): 1, int(faiss.ScalarQuantizer.QT_fp16): 2}
_MOST_LISTS = 2**24


def check_index_file(path: Path, count: int, dimension: int) -> None:
    """Make sure that a file is a whole index of `count` vectors of `dimension`, and of a kind that is built here.

    Raises:
        UnsafeFileError: it is not; says what is wrong at which byte.
    """
    if path.stat().st_size == 0:
        raise UnsafeFileError(f"{path} is empty and no index", DISTRUST)
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _Reader(path, content)
        reader.index(count, dimension)
        if reader.at != len(content):
            reader.refuse(f"{len(content) - reader.at:,} bytes follow its end")


class _Reader:
    """Goes through a file field by field; `at` is the byte of the next one."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path, self._content, self.at = path, content, 0

    def refuse(self, what: str) -> NoReturn:
        raise UnsafeFileError(f"{self._path} is no index that is built here: {what} (byte {self.at:,})", DISTRUST)

    def index(self, count: int, dimension: int, *, nested: bool = False) -> None:
        """An index of any of our kinds; a transform may stand before one, not before another transform."""
        match self._code():
            case b"IxFI":
                self._header(count, dimension)
                self._floats(count * dimension, "vectors")
            case b"IxSQ":
                self._header(count, dimension)
                self._bytes(count * self._scalar_quantiser(dimension), "codes")
            case b"IxPT" if not nested:
                self._header(count, dimension)
                self._expect("transforms", self._number("i"), 1)
                self.index(count, self._transform(dimension), nested=True)
            case b"IwFl":
                self._lists(count, 4 * dimension, self._inverted_file(count, dimension))
            case b"IwSq":
                lists = self._inverted_file(count, dimension)
                size = self._scalar_quantiser(dimension)
                self._expect("bytes per code", self._number("Q"), size)
                self._flag()
                self._lists(count, size, lists)
            case b"IwPQ":
                lists = self._inverted_file(count, dimension)
                self._flag()
                size = self._number("Q")
                self._product_quantiser(dimension, size)
                self._lists(count, size, lists)
            case other:
                self.refuse(f"it is of kind {other!r}")

    def _header(self, count: int, dimension: int) -> None:
        self._expect("dimension", self._number("i"), dimension)
        self._expect("vectors", self._number("q"), count)
        self._pass(16)
        self._expect("trained", self._number("B"), 1)
        self._expect("metric", self._number("i"), _INNER_PRODUCT)

    def _scalar_quantiser(self, dimension: int) -> int:
        """How many bytes one code of it has."""
        kind = self._number("i")
        if kind not in _CODE_BYTES:
            self.refuse(f"its scalars are of kind {kind}")
        self._pass(8)  # how the range of values was found
        size = dimension * _CODE_BYTES[kind]
        self._expect("dimension of the codes", self._number("Q"), dimension)
        self._expect("bytes per code", self._number("Q"), size)
        self._floats(2 * dimension if _CODE_BYTES[kind] == 1 else 0, "ranges")
        return size

    def _product_quantiser(self, dimension: int, parts: int) -> None:
        self._expect("dimension of the codes", self._number("Q"), dimension)
        self._expect("parts", self._number("Q"), parts)
        if not 0 < parts <= dimension or dimension % parts:
            self.refuse(f"{parts:,} parts of {dimension} dimensions")
        self._expect("bits", self._number("Q"), 8)
        self._floats(256 * dimension, "centroids")

    def _transform(self, dimension: int) -> int:
        """The dimension that vectors have after it."""
        match self._code():
            case b"Pcam":
                self._pass(13)  # powers and flags of its training
                self._floats(dimension, "mean")
                self._floats(dimension, "eigenvalues")
                self._floats(dimension * dimension, "axes")
            case b"LTra":
                pass
            case other:
                self.refuse(f"its transform is of kind {other!r}")
        self._flag()
        start = self.at
        weights, biases = self._skip(4), self._skip(4)
        self._expect("dimension before the transform", self._number("i"), dimension)
        after = self._number("i")
        self._expect("trained", self._number("B"), 1)
        if not 0 < after <= dimension or weights != after * dimension or biases not in (0, after):
            self.at = start
            self.refuse(f"a transform to {after} dimensions of {weights:,} weights")
        return after

    def _inverted_file(self, count: int, dimension: int) -> int:
        """How many lists there are."""
        self._header(count, dimension)
        lists = self._number("Q")
        if not 0 < lists <= _MOST_LISTS:
            self.refuse(f"it has {lists:,} lists")
        if not 0 < self._number("Q") <= lists:
            self.refuse("it searches more lists than there are, or none")
        self._expect("coarse quantiser", self._code(), b"IxFI")
        self._header(lists, dimension)
        self._floats(lists * dimension, "centres of lists")
        self._expect("direct map", self._number("B"), 0)
        self._expect("entries of the direct map", self._skip(8), 0)
        return lists

    def _lists(self, count: int, code_bytes: int, lists: int) -> None:
        """Lists that lie in this file, each vector in exactly one of them."""
        self._expect("lists", self._code(), b"ilar")
        self._expect("lists", self._number("Q"), lists)
        self._expect("bytes per code", self._number("Q"), code_bytes)
        sizes = self._list_sizes(lists)
        if int(sizes.sum()) != count:
            self.refuse(f"its lists hold {int(sizes.sum()):,} vectors and not {count:,}")
        seen = np.zeros(count, bool)
        for size in sizes.tolist():
            self._pass(size * code_bytes)
            ids = np.frombuffer(self._take(8 * size), np.int64)
            if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= count):
                self.refuse(f"a list names a vector that is none of {count:,}")
            seen[ids] = True
        if not seen.all():
            self.refuse("its lists name a vector twice")

    def _list_sizes(self, lists: int) -> np.ndarray:
        kind = self._code()
        if kind not in (b"full", b"sprs"):
            self.refuse(f"its lists are laid out as {kind!r}")
        found = self._number("Q")
        if found > 2 * lists or (kind == b"full" and found != lists):
            self.refuse(f"{found:,} sizes of {lists:,} lists")
        sizes = np.frombuffer(self._take(8 * found), np.uint64)
        if kind == b"sprs":
            places, sizes = sizes[0 : found // 2 * 2 : 2], sizes[1::2]
            if found % 2 or (places >= lists).any() or (np.diff(places.astype(np.int64)) <= 0).any():
                self.refuse("its lists are not in their order")
        if (sizes > len(self._content)).any():
            self.refuse("a list is longer than the file")
        return sizes.astype(np.int64)

    # --- fields ----------------------------------------------------------------------------------------------------
    def _code(self) -> bytes:
        return self._take(4)

    def _flag(self) -> None:
        if self._number("B") > 1:
            self.refuse("a flag is neither true nor false")

    def _number(self, kind: str) -> int:
        return int(struct.unpack(f"<{kind}", self._take(struct.calcsize(f"<{kind}")))[0])

    def _floats(self, count: int, what: str) -> None:
        self._expect(what, self._skip(4), count)

    def _bytes(self, count: int, what: str) -> None:
        self._expect(what, self._skip(1), count)

    def _skip(self, item_bytes: int) -> int:
        """Pass over an array; how many items it has."""
        count = self._number("Q")
        self._pass(count * item_bytes)
        return count

    def _expect(self, what: str, found: object, wanted: object) -> None:
        if found != wanted:
            self.refuse(f"{what}: {found!r} and not {wanted!r}")

    def _pass(self, count: int) -> None:
        if count > len(self._content) - self.at:
            self.refuse(f"it claims {count:,} bytes more, and has {len(self._content) - self.at:,}")
        self.at += count

    def _take(self, count: int) -> bytes:
        self._pass(count)
        return self._content[self.at - count : self.at]
