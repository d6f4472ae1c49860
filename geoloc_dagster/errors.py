"""Every error that a user can cause: a code, what was wrong, and what to do about it.

Raise a subclass of `GeolocError` with the cause as its message; the remedy is the class's unless the place that raises
knows a better one. The command line prints one line and exits with 2; Dagster fails the step without retrying.
"""

from __future__ import annotations

from typing import Any, ClassVar


class GeolocError(Exception):
    """A problem with one clear cause and one clear remedy; deterministic, so never retried.

    Attributes:
        facts: what is known beside the cause, for whoever looks at the failed step: counts so far, where evidence lies.
    """

    code: ClassVar[str] = "GEO-000"
    failure_class: ClassVar[str] = "other"
    default_remedy: ClassVar[str] = "Run `geoloc doctor` and read its first failing line."

    def __init__(self, cause: str, remedy: str | None = None) -> None:
        super().__init__(cause)
        self.cause = cause.rstrip(".")
        self.remedy = remedy or self.default_remedy
        self.facts: dict[str, Any] = {}

    def __str__(self) -> str:
        stop = "" if self.cause.endswith(("?", "!")) else "."
        return f"{self.code} {self.cause}{stop} {self.remedy}"


# --- configuration and set-up (1xx) ---------------------------------------------------------------------------------
class ConfigError(GeolocError):
    """The region's YAML is broken, has unknown keys or values out of range."""

    code = "GEO-101"
    failure_class = "configuration"
    default_remedy = "Correct that line; `geoloc check-config` repeats this check."


class ConfigNotFoundError(GeolocError):
    """No region configuration was named or found."""

    code = "GEO-102"
    failure_class = "configuration"
    default_remedy = (
        "Pass --config FILE, set GEOLOC_CONFIG, or run in a folder with a geoloc.yaml (`geoloc init DIR` writes one)."
    )


class DataRootError(GeolocError):
    """The data root cannot be written, or belongs to another region."""

    code = "GEO-103"
    failure_class = "disk"
    default_remedy = "Choose a writable folder of this region with --data-root or `data_root:`."


class DiskFullError(GeolocError):
    """Writing failed for lack of space; the previous version of the file is untouched."""

    code = "GEO-104"
    failure_class = "disk"
    default_remedy = "Free that much space and run the same command again; it goes on where it stopped."


class SchemaVersionError(GeolocError):
    """Data written by a newer version of this package."""

    code = "GEO-105"
    default_remedy = "Upgrade geoloc_dagster to at least the version that wrote it."


class ObjectStorageError(GeolocError):
    """The object storage of the data root cannot be reached, refuses, or ended the connection."""

    code = "GEO-106"
    failure_class = "storage"
    default_remedy = "See that the server runs and `object_storage:` is right, then run the same command again; it goes on."


class StaleWriteError(GeolocError):
    """Another machine has published the same thing while this one was at work on it."""

    code = "GEO-107"
    failure_class = "storage"
    default_remedy = "Run the same command again; it starts from what is there now."


# --- geography (2xx) ------------------------------------------------------------------------------------------------
class BoundaryError(GeolocError):
    """The region's polygon is missing, empty, invalid, too large or has its axes swapped."""

    code = "GEO-201"
    default_remedy = "Draw the polygon again in (longitude, latitude) order, e.g. with geojson.io."


class BufferCsvError(GeolocError):
    """A buffer CSV lacks a column, uses another separator or holds malformed values."""

    code = "GEO-202"
    default_remedy = "Export it comma-separated, in UTF-8, with the columns listed in the README."


class PartitioningError(GeolocError):
    """Rules of cells do not fit each other, or a file of cells is broken."""

    code = "GEO-203"
    default_remedy = "Correct what is named; the README's section on cells has rules and columns that fit."


# --- imagery (3xx) --------------------------------------------------------------------------------------------------
class CollectionSourceError(GeolocError):
    """An image collection is missing, cannot be read, or is not laid out as its provider expects."""

    code = "GEO-301"
    default_remedy = "Point `capture.sources` at the folders or tar files of the collection."


class UnsafeArchiveError(GeolocError):
    """An archive has members that point outside it, links or devices."""

    code = "GEO-302"
    default_remedy = "Do not use this archive; get it again from a source that you trust."


class PermissionMissingError(GeolocError):
    """The provider's terms forbid storing or model training and no permission is on record."""

    code = "GEO-303"
    failure_class = "permission"
    default_remedy = 'Choose another provider, or record the right to use it: `permission: "<reference>"`.'


class UnsafeFileError(GeolocError):
    """A file may do harm once it is opened: a pickle, which can run code, or one that points elsewhere or claims absurd sizes."""

    code = "GEO-304"
    default_remedy = "Convert it to safetensors, Parquet, CSV or GeoJSON where it was made."


class ImageError(GeolocError):
    """One picture cannot be used: truncated, not an image, or larger than the pixel limit."""

    code = "GEO-305"
    failure_class = "quality"
    default_remedy = "Use a complete JPEG, PNG or WebP of at most 50 megapixels."


class ServiceKeyError(GeolocError):
    """The imagery service wants a key, or refuses the one that it was given."""

    code = "GEO-306"
    failure_class = "key"
    default_remedy = "Put a valid key into the environment variable that `service.key_variable` names; keys do not go into files."


class ServiceBlockedError(GeolocError):
    """The imagery service answered with a page for people where data were expected: it does not want this traffic."""

    code = "GEO-307"
    failure_class = "bot"
    default_remedy = "Collection stopped and nothing tries to get around it; read the kept page, then ask the service."


class ServiceUnavailableError(GeolocError):
    """The imagery service failed so many times in a row that asking on would only burden it."""

    code = "GEO-308"
    failure_class = "network"
    default_remedy = "Everything collected so far is kept; run the same command again when the service answers."


class CoverageIncompleteError(GeolocError):
    """Not every grid point has been looked up; buffers built now would leave out streets and keep them out."""

    code = "GEO-309"
    default_remedy = "Materialise `street_view_metadata` again; each run goes on where the last one stopped."


class EgressError(GeolocError):
    """The proxy or Tor that the configuration names cannot be used."""

    code = "GEO-310"
    failure_class = "network"
    default_remedy = "Start it, or correct `egress:`; nothing is asked by another way instead."


class PageChangedError(GeolocError):
    """A page of an imagery service no longer has what the client knows it by."""

    code = "GEO-311"
    failure_class = "quality"
    default_remedy = "Look at the kept page; until the client knows it again, collect from another provider."


class BrowserMissingError(GeolocError):
    """The browser or its driver is missing or does not start."""

    code = "GEO-312"
    failure_class = "configuration"
    default_remedy = (
        "Debian: apt-get install chromium chromium-driver; elsewhere name them in `browser.binary` and `browser.driver`."
    )


class PhotoListError(GeolocError):
    """A list of photos is missing, or is no CSV or Parquet with the columns that it needs."""

    code = "GEO-313"
    failure_class = "configuration"
    default_remedy = "It needs `url`, `lat` and `lng` under any of their usual names; name others in `capture.photos.columns`."


class WorkerLostError(GeolocError):
    """A process that fetched pictures ended without a word, killed or out of memory."""

    code = "GEO-314"
    default_remedy = "What it had handed over is kept; run the same command again, with a smaller `capture.photos.processes`."


class ServiceQuotaError(GeolocError):
    """The imagery service says that its own quota is spent, before the configured budget was."""

    code = "GEO-315"
    failure_class = "quota"
    default_remedy = (
        "What came is kept, and the next night goes on; set the budgets below `service:` under what the service allows."
    )


# --- dataset (4xx) --------------------------------------------------------------------------------------------------
class LeakageError(GeolocError):
    """Two splits share a location, a panorama or a near-duplicate picture."""

    code = "GEO-401"
    default_remedy = "Leave the named rows out (`splits.drop_leaking: true`) or split by blocks."


class NotEnoughDataError(GeolocError):
    """A step has too little to work with: no usable rows, no queries, fewer places than a batch needs."""

    code = "GEO-402"
    default_remedy = "Collect more batches first, or lower the recipe's batch size."


class GateError(GeolocError):
    """A quality gate of a batch failed; the batch is held back, its neighbours are not."""

    code = "GEO-403"
    failure_class = "quality"
    default_remedy = "Look at the batch's contact sheet, then repeat the batch or exclude it in the configuration."


class ExportError(GeolocError):
    """These pictures cannot be exported like this."""

    code = "GEO-404"
    default_remedy = "Choose other pictures, or another folder."


# --- learning and retrieval (5xx) -----------------------------------------------------------------------------------
class RecipeError(GeolocError):
    """A recipe names something that does not exist or cannot be combined."""

    code = "GEO-501"
    default_remedy = "Correct the recipe; `geoloc check-config` lists the valid names."


class WeightsError(GeolocError):
    """Pretrained weights cannot be had or do not fit the backbone."""

    code = "GEO-502"
    default_remedy = "Set `weights: none`, give a local file, or run once with network access."


class IntegrityError(GeolocError):
    """A file is not the file that was written: its checksum differs, or it is missing."""

    code = "GEO-503"
    failure_class = "data"
    default_remedy = "Materialise the asset that owns it again; the last good release stays served."


class ModelMismatchError(GeolocError):
    """Vectors, index or cells of different models were about to be mixed."""

    code = "GEO-504"
    default_remedy = "Materialise `embeddings` for every batch with the current champion, then `faiss_index`."


class NoReleaseError(GeolocError):
    """There is nothing to predict with yet."""

    code = "GEO-505"
    default_remedy = "Run `geoloc run` (or materialise up to `release`) first."


class OutsideRegionError(GeolocError):
    """The question is about a place outside the region that the model knows."""

    code = "GEO-506"
    default_remedy = "Ask a model of that region."


class OnnxExportError(GeolocError):
    """A trained model cannot be exported for serving, or what was exported answers otherwise than the model."""

    code = "GEO-508"
    default_remedy = "Releases serve this model through torch, which is slower to start; other models are not affected."


class ExplorerUnreachableError(GeolocError):
    """No explorer answers at an address, or it refuses what it was asked."""

    code = "GEO-509"
    failure_class = "network"
    default_remedy = "Start one with `geoloc explorer`, or leave out --url to ask the release on this machine."


class StepFailedError(GeolocError):
    """A step of a headless run failed; its message already holds code, cause and remedy where it has them."""

    code = "GEO-507"
    default_remedy = "The run's log is in the Dagster UI (`make dev`)."

    def __init__(self, cause: str, *, asset: str, partition: str | None = None) -> None:
        super().__init__(cause)
        self.asset = asset
        self.partition = partition

    def __str__(self) -> str:
        where = f"{self.asset}[{self.partition}]" if self.partition else self.asset
        return (
            self.cause + f" (in {where})"
            if self.cause.startswith("GEO-")
            else f"{self.code} {where}: {self.cause}. {self.remedy}"
        )


# --- production (6xx) -----------------------------------------------------------------------------------------------
class MissingProgramError(GeolocError):
    """A program of the operating system that the stack runs, or its account, is missing."""

    code = "GEO-601"
    failure_class = "configuration"
    default_remedy = "Debian: apt-get install postgresql nginx-light."


class PortTakenError(GeolocError):
    """A port that the stack was asked to listen on is in use."""

    code = "GEO-602"
    failure_class = "configuration"
    default_remedy = "End that program, or choose another one with --port."


class StackError(GeolocError):
    """A service of the stack does not start."""

    code = "GEO-603"
    default_remedy = "Read its log, correct what it says, and start the stack again; nothing is left running."


class StackRunningError(GeolocError):
    """Another stack runs on this folder."""

    code = "GEO-604"
    failure_class = "configuration"
    default_remedy = "Use that one, or end it first (Ctrl+C where it was started)."


class StackFolderError(GeolocError):
    """An account that a service of the stack runs as cannot reach the stack's folder."""

    code = "GEO-605"
    failure_class = "disk"
    default_remedy = "Name a folder that everybody may enter with --folder, or start the stack as another user than root."


class EngineMissingError(GeolocError):
    """The engine that is to do the work of steps is not installed."""

    code = "GEO-606"
    failure_class = "configuration"
    default_remedy = "Install the extra on every node: pip install 'geoloc-dagster[ray]'; or unset GEOLOC_ENGINE."


class EngineError(GeolocError):
    """The cluster that is to do the work of steps cannot be reached, refuses the token, or loses the work again and again."""

    code = "GEO-607"
    failure_class = "network"
    default_remedy = (
        "Look at `ray status`, RAY_ADDRESS and RAY_AUTH_TOKEN_PATH; a run that is started again goes on where this one stopped."
    )
