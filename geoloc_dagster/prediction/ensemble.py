"""Models beside the champions: networks that were trained apart seldom agree on what is wrong.

Each recipe that `fusion.ensemble` names takes part with its newest model, beside the champion of its kind. One of retrieval has a
table of vectors and an index of its own, of the same rows as the champion's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from geoloc_dagster.config import Layout
from geoloc_dagster.errors import ModelMismatchError
from geoloc_dagster.learning.registry import newest_training
from geoloc_dagster.prediction.champion import open_encoder, read_champion
from geoloc_dagster.prediction.parts import BESIDE
from geoloc_dagster.retrieval.embedding import embed_batch
from geoloc_dagster.retrieval.encoder import Encoder
from geoloc_dagster.retrieval.index import GalleryIndex, build_index, latest_index, load_index
from geoloc_dagster.retrieval.index_planner import PlanSettings
from geoloc_dagster.scale.engine import LOCAL, Engine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Member:
    """A model beside the champion of its kind.

    Attributes:
        kind: of its recipe.
        recipe: that it was trained by.
        model_version: names its weights.
        folder: of the model.
    """

    kind: str
    recipe: str
    model_version: str
    folder: Path

    @property
    def expert(self) -> str:
        """What its expert is called, as a champion's is called by its kind."""
        return f"{self.kind}{BESIDE}{self.recipe}"


def members_of(layout: Layout, recipes: Sequence[str]) -> list[Member]:
    """The newest model of each of these recipes that has one, beside a champion of its kind; champions' own recipes are left out.

    Raises:
        IntegrityError: a champion has changed since it was promoted, or a model holds no recipe.
    """
    from geoloc_dagster.learning.recipe import recipe_of

    found, led_by = list[Member](), dict[str, str]()
    for recipe in recipes:
        newest = newest_training(layout.checkpoints / recipe)
        if newest is None:
            logger.warning("recipe %s of fusion.ensemble has no trained model yet; it is left out", recipe)
            continue
        kind = recipe_of(newest.folder).kind
        pointer = layout.champion_of(kind)
        if kind not in led_by and pointer.exists():
            led_by[kind] = read_champion(layout, pointer).recipe
        if led_by.get(kind, recipe) != recipe:
            found.append(Member(kind, recipe, newest.model_version, newest.folder))
    return found


def networks_of(layout: Layout, recipes: Sequence[str]) -> list[Member]:
    """Those of `members_of` that are of retrieval, and so have vectors and an index; raises as it does."""
    return [member for member in members_of(layout, recipes) if member.kind == "retrieval"]


def embed_members(
    layout: Layout,
    recipes: Sequence[str],
    batch: str,
    progress: Callable[[int, int], None] | None = None,
    encoder_loader: Callable[[Path], Encoder] | None = None,
    engine: Engine = LOCAL,
) -> int:
    """Embed the crops of a batch with every network; how many there are. Raises as `embed_batch` does."""
    members = networks_of(layout, recipes)
    for member in members:
        encoder, embeddings = (encoder_loader or open_encoder)(member.folder), layout.embeddings_of(member.recipe)
        embed_batch(encoder, layout.crops, embeddings, batch, progress=progress, engine=engine, model_folder=member.folder)
    return len(members)


def index_members(layout: Layout, recipes: Sequence[str], catalog: pa.Table, plan: PlanSettings | None = None) -> int:
    """Build the index of every network as `plan` wants it; how many there are. Raises as `build_index` does."""
    members = networks_of(layout, recipes)
    for member in members:
        embeddings, folder = layout.embeddings_of(member.recipe), layout.indexes_of(member.recipe)
        build_index(embeddings, catalog, member.model_version, folder, plan=plan)
    return len(members)


def member_indexes(layout: Layout, members: Sequence[Member], of_champion: GalleryIndex) -> dict[str, GalleryIndex]:
    """The indexes of networks, by recipe.

    Raises:
        NoReleaseError: one has not been built.
        IntegrityError: one has changed since it was written.
        ModelMismatchError: one is of another model, or of other rows than the champion's.
    """
    found: dict[str, GalleryIndex] = {}
    for member in members:
        index = load_index(latest_index(layout.indexes_of(member.recipe)))
        if index.model_version != member.model_version or not index.rows.equals(of_champion.rows):
            raise ModelMismatchError(
                f"{index.folder} holds {index.rows.num_rows:,} vectors of {index.model_version}, the newest model of "
                f"{member.recipe} is {member.model_version} and the champion's index has {of_champion.rows.num_rows:,} rows"
            )
        found[member.recipe] = index
    return found
