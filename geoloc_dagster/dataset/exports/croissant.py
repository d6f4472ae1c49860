"""The description of an export in Croissant 1.0 with the vocabulary of responsible AI (RAI 1.0), as JSON-LD."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geoloc_dagster.dataset.exports.formats import Whole

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_NUMBERS = ("lat_deg", "lng_deg", "heading_deg", "pitch_deg", "fov_deg")


def describe(whole: Whole, columns: Sequence[str], records_sha256: str) -> dict[str, Any]:
    """The content of `croissant.json` beside `records.csv` and `images/`.

    Args:
        whole: the export.
        columns: of the records.
        records_sha256: checksum of `records.csv`.
    """
    years = sorted({day.year for day in whole.facts["captured_on"].to_pylist() if day is not None})
    providers = sorted({str(name) for name in whole.facts["provider"].to_pylist()})
    passed_on = "may be passed on under its licence" if whole.redistributable else "may not be passed on"
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": whole.name,
        "description": f"{whole.rows:,} street views of {whole.name}; the set {passed_on}.",
        "license": whole.licence,
        "url": f"https://example.invalid/{whole.name}",
        "version": "1.0.0",
        "datePublished": dt.datetime.now(dt.UTC).date().isoformat(),
        "citeAs": f"Street views of {whole.name}; whom to name for each picture is in ATTRIBUTION.tsv.",
        "rai:dataCollection": f"Collected from {', '.join(providers)} at registered locations inside a polygon.",
        "rai:dataCollectionTimeframe": [str(year) for year in years],
        "rai:dataUseCases": "Visual place recognition and geo-localization within the polygon.",
        "rai:personalSensitiveInformation": "Streets with people and vehicles as their provider publishes them; EXIF is removed.",
        "rai:dataLimitations": "Only public streets that the provider has visited; seasons and daylight are not balanced.",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "records.csv",
                "name": "records.csv",
                "contentUrl": "records.csv",
                "encodingFormat": "text/csv",
                "sha256": records_sha256,
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "captures",
                "name": "captures",
                "key": {"@id": "captures/capture_id"},
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"captures/{name}",
                        "name": name,
                        "dataType": "sc:Float" if name in _NUMBERS else "sc:Text",
                        "source": {"fileObject": {"@id": "records.csv"}, "extract": {"column": name}},
                    }
                    for name in columns
                ],
            }
        ],
    }
