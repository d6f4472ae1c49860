"""The table schemas: the seam between collection, dataset, learning and retrieval.

One word per thing: a *location* is a registered place on the map; a *view* is one heading (or rotation) at a location; a
*place* is what a picture must be matched to: a location; a *capture* is one picture of one view on one date;
a *visit* is one look at a location for whatever it has.
"""

from __future__ import annotations

import json

import pyarrow as pa

SCHEMA_VERSION = 1
_METADATA = {b"geoloc_schema_version": str(SCHEMA_VERSION).encode()}
# Encoded pictures do not get smaller; trying took a tenth of the time that collecting one takes.
_IMAGE = pa.field("image", pa.large_binary(), metadata={b"lance-encoding:compression": b"none"})

# One row per lookup, nearest to the start point first.
STREET_VIEW_METADATA = pa.schema(
    [
        pa.field("lookup_id", pa.string(), nullable=False),  # grid point id
        pa.field("requested_lat_deg", pa.float64(), nullable=False),
        pa.field("requested_lng_deg", pa.float64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),  # OK | ZERO_RESULTS | NOT_FOUND | INVALID_REQUEST
        pa.field("pano_id", pa.string()),
        pa.field("lat_deg", pa.float64()),
        pa.field("lng_deg", pa.float64()),
        pa.field("captured_on", pa.date32()),
        pa.field("copyright", pa.string()),
        pa.field("looked_up_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ],
    metadata=_METADATA,
)

# One row per registered photo of a list: what the list says of it.
PHOTOS = pa.schema(
    [
        pa.field("location_id", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        pa.field("url", pa.string(), nullable=False),
        pa.field("lat_deg", pa.float64(), nullable=False),
        pa.field("lng_deg", pa.float64(), nullable=False),
        pa.field("captured_on", pa.date32()),
        pa.field("precision", pa.string(), nullable=False),
        pa.field("creator", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("attribution", pa.string()),
        pa.field("heading_deg", pa.float64()),
        pa.field("scene_3", pa.int16()),  # 0 indoor | 1 natural | 2 urban
        pa.field("scene_16", pa.int16()),
        pa.field("scene_365", pa.int16()),
        pa.field("prob_indoor", pa.float32()),
        pa.field("prob_natural", pa.float32()),
        pa.field("prob_urban", pa.float32()),
    ],
    metadata=_METADATA,
)

# One row per captured view, as collected: bytes untouched, but for parts that were blurred.
CAPTURES = pa.schema(
    [
        pa.field("capture_id", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        _IMAGE,
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("sha256", pa.string()),  # of `image`
        pa.field("provider", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),  # folder or archive name; provider name for live ones
        pa.field("pano_id", pa.string()),
        pa.field("sequence_id", pa.string()),
        pa.field("location_id", pa.string(), nullable=False),
        pa.field("lat_deg", pa.float64(), nullable=False),
        pa.field("lng_deg", pa.float64(), nullable=False),
        pa.field("requested_lat_deg", pa.float64()),
        pa.field("requested_lng_deg", pa.float64()),
        pa.field("captured_on", pa.date32()),  # first of the month where precision is month
        pa.field("capture_precision", pa.string(), nullable=False),  # day | month | unknown
        pa.field("heading_deg", pa.float32()),  # absolute; null where only a rotation is known
        pa.field("rotation", pa.int16()),  # 0-3 from an unknown start heading; null where the heading is absolute
        pa.field("pitch_deg", pa.float32()),
        pa.field("fov_deg", pa.float32()),
        pa.field("fetched_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("source_url", pa.string()),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("attribution", pa.string(), nullable=False),
        pa.field("creator", pa.string()),
        pa.field("status", pa.string(), nullable=False),  # ok | failed
        pa.field("failure", pa.string()),  # class of the failure where status is failed
        pa.field("redacted_boxes", pa.int32()),  # parts blurred before it was stored; null where nothing looked for any
    ],
    metadata=_METADATA,
)

# One row per visit of a location: what its provider offered then. Pending work is found here, and never remembered elsewhere.
VISITS = pa.schema(
    [
        pa.field("location_id", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        pa.field("provider", pa.string(), nullable=False),
        pa.field("visited_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("dates", pa.int32(), nullable=False),  # panoramas offered; 0 where there was nothing
        pa.field("views_new", pa.int32(), nullable=False),  # rows that this visit added
        pa.field("pending", pa.int32(), nullable=False),  # views to try again; the place is complete at 0
        pa.field("run_id", pa.string(), nullable=False),
    ],
    metadata=_METADATA,
)

# One row per request to forget, and one per capture that it took away; neither is ever fetched again.
TOMBSTONES = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),  # pano | creator | provider | bbox | capture
        pa.field("value", pa.string(), nullable=False),  # bbox: south,west,north,east in degrees
        pa.field("request", pa.string(), nullable=False),  # of a capture: what asked for it
        pa.field("forgotten_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ],
    metadata=_METADATA,
)

# One row per capture that has a picture: the square crop, encoded, with what was found in it.
CROPS = pa.schema(
    [
        pa.field("capture_id", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        _IMAGE,  # JPEG, size x size; null where undecodable
        pa.field("sha256", pa.string()),  # of `image`
        pa.field("capture_sha256", pa.string()),
        pa.field("phash", pa.uint64()),  # 64-bit DCT hash of the crop
        pa.field("brightness", pa.float32()),  # mean of grey, 0..255
        pa.field("contrast", pa.float32()),  # standard deviation of grey
        pa.field("flags", pa.list_(pa.string()), nullable=False),  # of this picture alone: undecodable | black | uniform
        pa.field("source", pa.string(), nullable=False),
        pa.field("pano_id", pa.string()),
        pa.field("location_id", pa.string(), nullable=False),
        pa.field("lat_deg", pa.float64(), nullable=False),
        pa.field("lng_deg", pa.float64(), nullable=False),
        pa.field("captured_on", pa.date32()),
        pa.field("heading_deg", pa.float32()),
        pa.field("rotation", pa.int16()),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("attribution", pa.string(), nullable=False),
    ],
    metadata=_METADATA,
)

# One row per crop: the scene that the list of its photo or a model says.
SCENE_LABELS = pa.schema(
    [
        pa.field("capture_id", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        pa.field("prob_indoor", pa.float32()),
        pa.field("prob_natural", pa.float32()),
        pa.field("prob_urban", pa.float32()),
        pa.field("scene", pa.int16()),  # 0 indoor | 1 natural | 2 urban; null where nobody says
        pa.field("scene_16", pa.int16()),
        pa.field("scene_365", pa.int16()),
        pa.field("source", pa.string()),  # of `scene`: list, or the version of the model; null where there is none
    ],
    metadata=_METADATA,
)

# What pixels of class maps show, in the order of their numbers.
MAP_CLASSES = ("other", "sky", "building", "road", "vegetation", "water", "vehicle", "person", "sign")

# One row per crop: what each of its pixels shows.
SEGMENTATION_MAPS = pa.schema(
    [
        pa.field("capture_id", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        # PNG of the numbers of the classes, one byte per pixel; null where there is no picture or nothing knows its classes.
        pa.field("class_map", pa.large_binary(), metadata={b"lance-encoding:compression": b"none"}),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("crop_sha256", pa.string()),  # of the crop that it is the map of
        pa.field("source", pa.string()),  # emulator, or the version of the model; null where there is no map
    ],
    metadata=_METADATA | {b"classes": json.dumps(MAP_CLASSES).encode()},
)

# One row per crop: the feature table. `view` is `r0`..`r3` for rotations and `h000`..`h359` for headings.
CATALOG = pa.schema(
    [
        pa.field("capture_id", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        pa.field("series", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("location_id", pa.string(), nullable=False),
        pa.field("lat_deg", pa.float64(), nullable=False),
        pa.field("lng_deg", pa.float64(), nullable=False),
        pa.field("district", pa.string(), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("heading_deg", pa.float32()),
        pa.field("captured_on", pa.date32()),
        pa.field("year", pa.int16()),
        pa.field("pano_id", pa.string()),
        pa.field("sha256", pa.string()),  # of the crop
        pa.field("phash", pa.uint64()),
        # The first capture_id of all rows that show one and the same picture; null where it occurs once.
        pa.field("duplicate_group", pa.string()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),  # the picture's own and those found by comparison
        pa.field("split", pa.string(), nullable=False),  # train | dev | test | none (guard band)
        pa.field("usable", pa.bool_(), nullable=False),
        pa.field("is_query", pa.bool_(), nullable=False),
        pa.field("near_train_m", pa.float32()),  # to the nearest train location for dev rows, train or dev for test rows
        pa.field("licence", pa.string(), nullable=False),
        pa.field("attribution", pa.string(), nullable=False),
        pa.field("creator", pa.string()),  # who took it, where the provider says so
    ],
    metadata=_METADATA,
)

# Local features of each crop, `count` of `retrieval.local_features.WIDTH` bytes; `model_version` names how they were made.
LOCAL_FEATURES = pa.schema(
    [
        pa.field("capture_id", pa.string(), nullable=False),
        pa.field("batch", pa.string(), nullable=False),
        pa.field("model_version", pa.string(), nullable=False),
        pa.field("count", pa.int32(), nullable=False),
        pa.field("features", pa.binary(), nullable=False),
        pa.field("crop_sha256", pa.string(), nullable=False),
    ],
    metadata=_METADATA,
)

# One vector per crop of the champion.
EMBEDDINGS_COLUMNS = [
    pa.field("capture_id", pa.string(), nullable=False),
    pa.field("batch", pa.string(), nullable=False),
    pa.field("model_version", pa.string(), nullable=False),
]


def embeddings_schema(dimension: int) -> pa.Schema:
    """Schema of the embeddings of one model: float32 vectors of `dimension`, L2-normalised."""
    vector = pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False)
    return pa.schema([*EMBEDDINGS_COLUMNS, vector], metadata=_METADATA)
