"""The vector tile as the protobuf library reads and writes it."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FIELD = descriptor_pb2.FieldDescriptorProto


def tile_message() -> type[Any]:
    """The message of the specification (vector_tile.proto 2.1), made by the protobuf library."""
    file = descriptor_pb2.FileDescriptorProto(name="vector_tile_of_tests.proto", package="of_tests", syntax="proto2")
    tile = file.message_type.add(name="Tile")

    def fields(message: Any, *rows: tuple[str, int, int, int, str]) -> None:
        for name, number, kind, label, of in rows:
            field = message.field.add(name=name, number=number, type=kind, label=label, type_name=of or None)
            if name in ("tags", "geometry"):
                field.options.packed = True

    one, many = FIELD.LABEL_OPTIONAL, FIELD.LABEL_REPEATED
    value = tile.nested_type.add(name="Value")
    fields(
        value,
        ("string_value", 1, FIELD.TYPE_STRING, one, ""),
        ("float_value", 2, FIELD.TYPE_FLOAT, one, ""),
        ("double_value", 3, FIELD.TYPE_DOUBLE, one, ""),
        ("int_value", 4, FIELD.TYPE_INT64, one, ""),
        ("uint_value", 5, FIELD.TYPE_UINT64, one, ""),
        ("sint_value", 6, FIELD.TYPE_SINT64, one, ""),
        ("bool_value", 7, FIELD.TYPE_BOOL, one, ""),
    )
    feature = tile.nested_type.add(name="Feature")
    fields(
        feature,
        ("id", 1, FIELD.TYPE_UINT64, one, ""),
        ("tags", 2, FIELD.TYPE_UINT32, many, ""),
        ("type", 3, FIELD.TYPE_UINT32, one, ""),
        ("geometry", 4, FIELD.TYPE_UINT32, many, ""),
    )
    layer = tile.nested_type.add(name="Layer")
    fields(
        layer,
        ("version", 15, FIELD.TYPE_UINT32, one, ""),
        ("name", 1, FIELD.TYPE_STRING, one, ""),
        ("features", 2, FIELD.TYPE_MESSAGE, many, ".of_tests.Tile.Feature"),
        ("keys", 3, FIELD.TYPE_STRING, many, ""),
        ("values", 4, FIELD.TYPE_MESSAGE, many, ".of_tests.Tile.Value"),
        ("extent", 5, FIELD.TYPE_UINT32, one, ""),
    )
    fields(tile, ("layers", 3, FIELD.TYPE_MESSAGE, many, ".of_tests.Tile.Layer"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("of_tests.Tile"))


TILE = tile_message()
