"""A YAML document that knows the line of every key, and errors that name line, key and the likely meant spelling.

Used for `geoloc.yaml`; nothing here knows which keys that file may have: the pydantic model does.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from geoloc_dagster.errors import ConfigError

MAX_BYTES = 1_000_000
_SHOWN_ERRORS = 3
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")

Model = TypeVar("Model", bound=BaseModel)
Keys = tuple[int | str, ...]


@dataclass(frozen=True)
class Document:
    """The values of a YAML file and where each of them stands."""

    path: Path
    values: dict[str, Any]
    lines: Mapping[Keys, int]

    def line_of(self, keys: Sequence[int | str]) -> int:
        """The line, from 1, of the deepest of `keys` that the text really has; a missing key is at its section's line."""
        found = tuple(keys)
        while found not in self.lines:
            found = found[:-1]
        return self.lines[found]

    def error(self, keys: Sequence[int | str], problem: str) -> ConfigError:
        """An error at the line of `keys`."""
        return ConfigError(f"{self.path}, line {self.line_of(keys)}: {_dotted(keys)}{problem}")


def read_document(path: Path, environ: Mapping[str, str]) -> Document:
    """Read a YAML mapping of at most a megabyte; `${NAME}` and `${NAME:-default}` in its strings are looked up in `environ`.

    Raises:
        ConfigError: unreadable, not UTF-8, not YAML, no mapping, a key given twice, or a variable that is not set.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}", "Name a readable YAML file.") from error
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} has {len(content):,} bytes; a configuration has at most {MAX_BYTES:,}", "Name the right file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text", "Save the file as UTF-8.") from error
    try:
        document = _parse(text, path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: not valid YAML: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: nested too deeply to be a configuration") from error
    except ValueError as error:  # a date or a number that Python has none of
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    return _expand_variables(document, environ)


def validate(document: Document, model: type[Model], *, hidden: frozenset[str] = frozenset()) -> Model:
    """Build `model` from a document; `hidden` names top-level fields that a file may not set.

    Raises:
        ConfigError: with line, key, what is expected and what stands there; up to three problems, in the order of lines.
    """
    for key in hidden & document.values.keys():
        raise document.error((key,), f": unknown key{_suggestion(key, model, (), hidden)}")
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        details = sorted(error.errors(include_url=False), key=lambda detail: document.line_of(detail["loc"]))
    problems = [
        f"line {document.line_of(detail['loc'])}: {_dotted(detail['loc'])}{_problem(detail, model, hidden)}"
        for detail in details[:_SHOWN_ERRORS]
    ]
    more = f"; and {len(details) - _SHOWN_ERRORS} more" if len(details) > _SHOWN_ERRORS else ""
    raise ConfigError(f"{document.path}, {'; '.join(problems)}{more}")


def _parse(text: str, path: Path) -> Document:
    loader = yaml.SafeLoader(text)
    root = loader.get_single_node()
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(f"{path} holds no configuration: its top level must be `key: value` lines")
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):  # a few of them can stand for billions of values
            raise ConfigError(f"{path}, line {event.start_mark.line + 1}: aliases (`*{event.anchor}`) are not read")
    lines: dict[Keys, int] = {(): root.start_mark.line + 1}
    for keys, node in _walk(root, (), path):
        lines[keys] = node.start_mark.line + 1
    return Document(path, loader.construct_document(root), lines)


def _walk(node: yaml.Node, keys: Keys, path: Path) -> Iterator[tuple[Keys, yaml.Node]]:
    """Every key path below `node` with the node that names its line: the key's for mappings, the item's for lists."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if key in seen:
                raise ConfigError(f"{path}, line {line}: {_dotted((*keys, key))}: already set in line {seen[key]}")
            seen[key] = line
            yield (*keys, key), key_node
            yield from _walk(value_node, (*keys, key), path)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield (*keys, number), item
            yield from _walk(item, (*keys, number), path)


def _expand_variables(document: Document, environ: Mapping[str, str]) -> Document:
    def expand(value: Any, keys: Keys) -> Any:
        if isinstance(value, dict):
            return {key: expand(item, (*keys, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [expand(item, (*keys, number)) for number, item in enumerate(value)]
        return _VARIABLE.sub(lambda match: look_up(match, keys), value) if isinstance(value, str) else value

    def look_up(match: re.Match[str], keys: Keys) -> str:
        value = environ.get(match["name"]) or match["default"]
        if value is None:
            raise document.error(keys, f": the environment variable {match['name']} is not set")
        return value

    return Document(document.path, expand(document.values, ()), document.lines)


def _problem(detail: ErrorDetails, model: type[BaseModel], hidden: frozenset[str]) -> str:
    keys = detail["loc"]
    if detail["type"] == "extra_forbidden":
        return f": unknown key{_suggestion(str(keys[-1]), model, keys[:-1], hidden)}"
    if detail["type"] == "missing":
        return ": required, but not given"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Input ")
    found = detail["input"]
    got = f", not {found!r}" if isinstance(found, str | int | float | bool | None) else ""
    return f": {message}{got}"


def _suggestion(key: str, model: type[BaseModel], section: Sequence[int | str], hidden: frozenset[str]) -> str:
    valid = [name for name in _fields_at(model, section) if section or name not in hidden]
    close = difflib.get_close_matches(key, valid, n=1, cutoff=0.6)
    return f"; did you mean `{close[0]}`?" if close else f"; known here: {', '.join(valid)}"


def _fields_at(model: type[BaseModel], section: Sequence[int | str]) -> list[str]:
    """The field names of the model found by walking `section` down from `model`."""
    current: type[BaseModel] = model
    for key in section:
        field = current.model_fields.get(str(key))
        nested = None if field is None else next(_models_in(field.annotation), None)
        current = nested or current
    return list(current.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names, also inside unions and containers."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Union, UnionType, list, dict, tuple):
        for part in get_args(annotation):
            yield from _models_in(part)


def _dotted(keys: Sequence[int | str]) -> str:
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
    return text or "the file"
