"""Where each artifact of a region lies below its data root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geoloc_dagster.tables import tables_in


@dataclass(frozen=True, slots=True)
class Layout:
    """Every path below one data root; nothing else in the project joins paths to it."""

    root: Path

    @property
    def marker(self) -> Path:
        """Names the region and the schema version that this root belongs to."""
        return self.root / "geoloc.json"

    @property
    def boundary(self) -> Path:
        """GeoParquet of the validated polygon."""
        return self.root / "region" / "boundary.parquet"

    @property
    def grid_cells(self) -> Path:
        """GeoParquet of the cells in which locations are sampled."""
        return self.root / "region" / "grid_cells.parquet"

    @property
    def grid_points(self) -> Path:
        """GeoParquet of the points inside the boundary."""
        return self.root / "region" / "grid_points.parquet"

    @property
    def street_view_metadata(self) -> Path:
        """Lance table of lookups."""
        return self.root / "tables" / "street_view_metadata.lance"

    @property
    def buffers(self) -> Path:
        """Folder of the buffer CSVs."""
        return self.root / "buffers"

    @property
    def locations(self) -> Path:
        """GeoParquet of every registered location with series, rank and batch."""
        return self.root / "buffers" / "locations.parquet"

    @property
    def photos(self) -> Path:
        """Parquet of the registered photos of the region's lists: URL, licence and what else the lists say."""
        return self.root / "buffers" / "photos.parquet"

    @property
    def photo_problems(self) -> Path:
        """CSV of the rows of the lists that could not be used."""
        return self.root / "buffers" / "photo_problems.csv"

    @property
    def panoramas(self) -> Path:
        """Lance table of captures, whatever provider they are of."""
        return self.root / "tables" / "panoramas.lance"

    @property
    def visits(self) -> Path:
        """Lance table of when each location was looked at, beside its captures."""
        return self.root / "tables" / "visits.lance"

    @property
    def tombstones(self) -> Path:
        """Lance table of what was forgotten, and is never fetched again."""
        return self.root / "tables" / "tombstones.lance"

    @property
    def ledger(self) -> Path:
        """SQLite file that counts what was asked of services each day; shared by all processes."""
        return self.root / "service" / "ledger.sqlite"

    @property
    def evidence(self) -> Path:
        """Folder of answers that made collection stop."""
        return self.root / "service" / "evidence"

    @property
    def browsers(self) -> Path:
        """Folder of records of running browsers, by which those of killed processes are ended."""
        return self.root / "service" / "browsers"

    @property
    def crops(self) -> Path:
        """Lance table of crops."""
        return self.root / "tables" / "crops.lance"

    @property
    def catalog(self) -> Path:
        """Parquet feature table."""
        return self.root / "dataset" / "catalog.parquet"

    @property
    def s2_partitions(self) -> Path:
        """Folder of the S2 cells: a CSV per level, and how they belong together."""
        return self.root / "cells" / "s2_partitions"

    @property
    def cell_labels(self) -> Path:
        """Parquet of the class of each catalog row at each level."""
        return self.root / "cells" / "cell_labels.parquet"

    @property
    def scene_labels(self) -> Path:
        """Lance table of the scene of each crop."""
        return self.root / "tables" / "scene_labels.lance"

    @property
    def segmentation_maps(self) -> Path:
        """Lance table of what each pixel of each crop shows."""
        return self.root / "tables" / "segmentation_maps.lance"

    @property
    def checkpoints(self) -> Path:
        """Folder with one folder per recipe, therein one per model version."""
        return self.root / "checkpoints"

    @property
    def evaluations(self) -> Path:
        """Folder with one folder per recipe."""
        return self.root / "evaluations"

    @property
    def champion(self) -> Path:
        """JSON pointer to the promoted checkpoint of retrieval."""
        return self.root / "checkpoints" / "champion.json"

    @property
    def cells_champion(self) -> Path:
        """JSON pointer to the promoted classifier of cells."""
        return self.champion_of("cells")

    def champion_of(self, kind: str) -> Path:
        """JSON pointer to the promoted model of a kind of recipes: `retrieval`, `cells`, `scenes`, `sequence`."""
        return self.champion if kind == "retrieval" else self.root / "checkpoints" / f"champion-{kind}.json"

    @property
    def fusions(self) -> Path:
        """Folder with one folder per fusion of experts."""
        return self.root / "fusion"

    @property
    def embeddings(self) -> Path:
        """Lance table of the champion's vectors."""
        return self.root / "tables" / "embeddings.lance"

    @property
    def local_features(self) -> Path:
        """Lance table of the local features of crops."""
        return self.root / "tables" / "local_features.lance"

    @property
    def indexes(self) -> Path:
        """Folder with one folder per index."""
        return self.root / "index"

    def embeddings_of(self, recipe: str) -> Path:
        """Lance table of the vectors of a retrieval recipe beside the champion's."""
        return self.root / "tables" / f"embeddings-{recipe}.lance"

    def all_embeddings(self) -> list[Path]:
        """Every table of vectors that there is, the champion's and the others."""
        return tables_in(self.embeddings.parent, "embeddings*.lance")

    def indexes_of(self, recipe: str) -> Path:
        """Folder with the indexes of a retrieval recipe beside the champion's."""
        return self.indexes / "ensemble" / recipe

    @property
    def onnx_models(self) -> Path:
        """Folder with one folder per trained model that was exported for serving."""
        return self.root / "onnx"

    @property
    def cards(self) -> Path:
        """Folder with one folder per model card and data card; `model_card.json` and `data_card.json` point to the newest."""
        return self.root / "cards"

    @property
    def releases(self) -> Path:
        """Folder of immutable release manifests; `CURRENT.json` points to the served one."""
        return self.root / "releases"

    @property
    def reports(self) -> Path:
        """Folder of `summary.json` and the report."""
        return self.root / "reports"

    @property
    def report(self) -> Path:
        """The page that says what the last run made."""
        return self.reports / "report.html"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME of headless runs and of `make dev`."""
        return self.root / "dagster"

    @property
    def mlflow_uri(self) -> str:
        """Tracking URI of the embedded MLflow."""
        return f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> Path:
        """Artifact folder of the embedded MLflow."""
        return self.root / "mlflow" / "artifacts"
