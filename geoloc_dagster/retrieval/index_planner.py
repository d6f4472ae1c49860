"""Which kind of index a gallery gets: several are tried, and the smallest that finds what the exact one finds is taken.

A gallery whose exact index is small enough is searched exactly, and nothing is tried. Of a larger one, or of a sample of it,
every kind is built, and pictures of the gallery are searched in it without themselves; recall is the share of their ten nearest
that it finds. Which kind is chosen depends on recall and bytes alone, so that the same vectors give the same index on every
machine; times are measured beside them.

Source: Jégou, Douze and Schmid, Product Quantization for Nearest Neighbor Search, TPAMI 2011; Ge et al., Optimized Product
Quantization, CVPR 2013; Douze et al., The Faiss library, 2024.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from geoloc_dagster.retrieval.encoder import Vectors

I64 = npt.NDArray[np.int64]
NEAREST = 10
EXACT = "Flat"
_PROBES = (1, 2, 4, 8, 16, 32, 64, 128)
_SEED = 1234
_FEWEST_TO_TRAIN_ON = 1_000
_VECTORS_PER_LIST = 64  # of 256 that faiss would take; the quarter of the time in a gallery of a million, and lists as good
_OPQ_ROUNDS, _OPQ_VECTORS = 10, 25_000  # of 50 and 65,536; more turn the vectors hardly better and take minutes


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What an index has to do.

    Attributes:
        recall: least share of the ten nearest that has to be found.
        exact_below_bytes: a gallery whose exact index is smaller gets that one.
        queries: pictures of the gallery that are searched.
        sample: vectors that kinds are tried on, at most; all of them where there are fewer.
    """

    recall: float = 0.99
    exact_below_bytes: int = 256 * 10**6
    queries: int = 500
    sample: int = 200_000


@dataclass(frozen=True, slots=True)
class Trial:
    """One kind of index over the vectors that were tried.

    Attributes:
        kind: as faiss' factory calls it.
        probes: lists that are searched of an inverted file; 0 where there are no lists.
        recall: share of the ten nearest that it finds.
        bytes_per_vector: of the index as it is stored.
        milliseconds: a query, in batches of 16.
        build_seconds: training and adding; the centroids of lists are learned by the first kind that has so many.
    """

    kind: str
    probes: int
    recall: float
    bytes_per_vector: float
    milliseconds: float
    build_seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What was chosen and why.

    Attributes:
        kind: of the index to build.
        probes: to search it with; 0 where there are no lists.
        reason: in a sentence.
        trials: every kind that was tried, each with the fewest probes that reach the recall, or with the most.
    """

    kind: str
    probes: int
    reason: str
    trials: tuple[Trial, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For a manifest: what decided, without times, which differ from run to run."""
        fields = ("kind", "probes", "recall", "bytes_per_vector")
        tried = [{name: getattr(trial, name) for name in fields} for trial in self.trials]
        return {"kind": self.kind, "probes": self.probes, "reason": self.reason, "trials": tried}


def plan_index(vectors: Vectors, settings: PlanSettings | None = None) -> Plan:
    """Choose the kind of index for a gallery.

    Args:
        vectors: of the gallery, float32 (N, dimension), L2-normalised.
        settings: what it has to do.

    Raises:
        ValueError: there are no vectors.
    """
    chosen = settings or PlanSettings()
    count, dimension = vectors.shape
    if count == 0:
        raise ValueError("an index needs vectors")
    if vectors.nbytes < chosen.exact_below_bytes:
        return Plan(EXACT, 0, f"{vectors.nbytes:,} bytes of exact vectors are few enough to keep them")
    trials = list(try_kinds(vectors, kinds_for(count, dimension), chosen))
    best = smallest(trials, chosen.recall)
    reason = f"the smallest of {len(trials)} kinds that finds {chosen.recall:.0%} of the {NEAREST} nearest: {best.recall:.1%}"
    return Plan(best.kind, best.probes, reason, tuple(trials))


def smallest(trials: Sequence[Trial], recall: float) -> Trial:
    """That of fewest bytes which finds enough; the exact one always does.

    Raises:
        ValueError: none of these does.
    """
    return min((trial for trial in trials if trial.recall >= recall), key=lambda trial: (trial.bytes_per_vector, trial.kind))


def kinds_for(count: int, dimension: int) -> list[str]:
    """Kinds that suit a gallery of `count` vectors: exact, half and byte floats, fewer dimensions, lists, and product codes."""
    plain = [EXACT, "SQfp16", "SQ8"]
    if count < _FEWEST_TO_TRAIN_ON:
        return plain
    lists = 2 ** max(4, round(math.log2(4 * math.sqrt(count))))
    half = dimension // 2
    plain += [f"PCA{half},SQfp16", f"PCA{half},SQ8"]
    listed = [f"IVF{lists},{code}" for code in ("Flat", "SQfp16", "SQ8")]
    pieces = [part for part in (dimension // 4, dimension // 8) if part and dimension % part == 0]
    return [*plain, *listed, *(f"OPQ{part},IVF{lists},PQ{part}" for part in pieces)]


def try_kinds(vectors: Vectors, kinds: Sequence[str], settings: PlanSettings) -> Iterator[Trial]:
    """Build each kind over the vectors, or a sample of them, and search it, one after the other; takes what `plan_index` does."""
    rng = np.random.default_rng(_SEED)
    if len(vectors) > settings.sample:
        vectors = vectors[np.sort(rng.permutation(len(vectors))[: settings.sample])]
    asked = np.sort(rng.permutation(len(vectors))[: settings.queries])
    exact = build(vectors, EXACT)
    truth = without_self(exact.search(vectors[asked], NEAREST + 1)[1], asked)
    learned: dict[int, Vectors] = {}
    for kind in kinds:
        yield _tried(vectors, kind, asked, truth, settings.recall, learned)


def build(vectors: Vectors, kind: str, learned: dict[int, Vectors] | None = None) -> Any:
    """A faiss index of a kind over all vectors; the same vectors give the same index.

    Args:
        vectors: float32 (N, dimension).
        kind: as faiss' factory calls it.
        learned: centroids of these vectors by the number of lists; what is there is taken, what is not is put there.
    """
    index: Any = faiss.index_factory(vectors.shape[1], kind, faiss.METRIC_INNER_PRODUCT)
    lists = lists_of(index)
    if lists is not None:
        lists.cp.seed, lists.cp.min_points_per_centroid, lists.cp.max_points_per_centroid = _SEED, 1, _VECTORS_PER_LIST
    if kind.startswith("OPQ"):
        turned: Any = faiss.downcast_VectorTransform(index.chain.at(0))
        turned.niter, turned.max_train_points = _OPQ_ROUNDS, _OPQ_VECTORS
    shared = learned if kind.startswith("IVF") else None  # lists of vectors that are turned or shortened first are others
    if lists is not None and shared is not None and lists.nlist in shared:
        lists.quantizer.add(shared[lists.nlist])
    index.train(vectors)
    if lists is not None and shared is not None:
        shared.setdefault(lists.nlist, lists.quantizer.reconstruct_n(0, lists.nlist))
    index.add(vectors)
    return index


def lists_of(index: Any) -> Any | None:
    """The inverted file within an index; None where there is none."""
    try:
        return faiss.extract_index_ivf(index)
    except RuntimeError:
        return None


def search_parameters(index: Any, probes: int, hidden: I64 | None) -> Any | None:
    """How to search an index: how many lists, and which rows are never found; None where there is nothing to say.

    Parameters of another kind of index than the one that is searched would be ignored without a word.
    """
    selector: Any = None if hidden is None else faiss.IDSelectorNot(faiss.IDSelectorBatch(hidden))
    plain: Any = faiss.SearchParameters
    inverted: Any = faiss.SearchParametersIVF
    moved: Any = faiss.SearchParametersPreTransform
    said = {} if selector is None else {"sel": selector}
    if probes:
        parameters = inverted(nprobe=probes, **said)
    elif said:
        parameters = plain(**said)
    else:
        return None
    return moved(index_params=parameters) if isinstance(faiss.downcast_index(index), faiss.IndexPreTransform) else parameters


def _tried(vectors: Vectors, kind: str, asked: I64, truth: I64, recall: float, learned: dict[int, Vectors]) -> Trial:
    began = time.perf_counter()
    index = build(vectors, kind, learned)
    seconds = time.perf_counter() - began
    size = len(faiss.serialize_index(index)) / len(vectors)
    lists = lists_of(index)
    steps = [0] if lists is None else [probes for probes in _PROBES if probes < lists.nlist] + [lists.nlist]
    found, probes, milliseconds = 0.0, 0, 0.0
    for probes in steps:
        parameters = search_parameters(index, probes, None)
        began = time.perf_counter()
        parts = [index.search(vectors[asked[i : i + 16]], NEAREST + 1, params=parameters)[1] for i in range(0, len(asked), 16)]
        milliseconds = (time.perf_counter() - began) * 1000 / len(asked)
        found = _share(without_self(np.concatenate(parts), asked), truth)
        if found >= recall:
            break
    return Trial(kind, probes, round(found, 4), round(size, 1), round(milliseconds, 3), round(seconds, 2))


def without_self(rows: I64, asked: I64) -> I64:
    """What each query finds but itself, and but the last where it does not find itself: (N, k + 1) -> (N, k) rows."""
    is_self = rows == asked[:, None]
    is_self[~is_self.any(axis=1), -1] = True  # a query that did not find itself gives up its last
    return rows[~is_self].reshape(len(rows), -1)


def _share(found: I64, truth: I64) -> float:
    return float((found[:, :, None] == truth[:, None, :]).any(axis=1).mean())
