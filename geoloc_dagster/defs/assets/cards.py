"""Group `release`: the cards, which say in words and figures what is served and what it was made of."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from geoloc_dagster.defs.automation import index_first_condition, refresh_condition
from geoloc_dagster.defs.metadata import facts
from geoloc_dagster.defs.region import Region

if TYPE_CHECKING:
    from geoloc_dagster.prediction.cards import Card

_SHOWN = 30_000  # characters of a card in the event log


def build(region: Region) -> list[dg.AssetsDefinition]:
    """The assets of this module for one region."""

    @region.asset("release", deps=["catalog"], automation_condition=refresh_condition(), kinds={"markdown"})
    def data_card(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """Rows by source, licence, year, district and split, whom to name, what was taken down, and limits, as Markdown."""
        from geoloc_dagster.prediction.data_card import make_data_card

        card = make_data_card(region.settings, region.layout)
        held = card.facts["captures"]["rows"]
        return _said(card, held, taken_down=card.facts["taken_down"]["captures"], usable=card.facts["catalog"]["usable"])

    @region.asset("release", deps=["champion", "fusion"], automation_condition=index_first_condition(region), kinds={"markdown"})
    def model_card(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        """The champions: recipes, data versions, rows, evaluation figures with intervals, and limits, as Markdown."""
        from geoloc_dagster.prediction.model_card import make_model_card

        card = make_model_card(region.settings, region.layout)
        versions = {f"model_version_{kind}": model["model_version"] for kind, model in card.facts["models"].items()}
        return _said(card, len(card.facts["models"]), **versions)

    return [data_card, model_card]


def _said(card: "Card", rows: int, **numbers: Any) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"card": dg.MetadataValue.md(card.text[:_SHOWN]), **facts(rows, card.folder, **numbers)})
