"""Typed YAML: files read into dataclasses and written from plain data, in one way everywhere.

A schema is a frozen dataclass: its annotations are the types, `Annotated[float, within(0, 1)]` adds a condition beside
the field. pydantic checks a file against it; what is wrong is said once, as `file: section: key is value, expected …`.
pydantic is imported when the first file is checked: commands that read none do not pay for it.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import io
import json
import typing
from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from lighttrack_ros.errors import LightTrackError
from lighttrack_ros.outputs import write_text

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_BYTES = 1_000_000  # of a file; the largest of ours, ranges.yaml of a transformer, has a tenth
MAX_DEPTH = 20  # sections and lists inside each other
_EXPECTED = {  # pydantic's kinds of error in our words; for others its own message serves
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_long": "fewer entries",
    "dict_type": "a section with keys",
    "dataclass_type": "a section with keys",
}
_Schema = TypeVar("_Schema")


@dataclass(frozen=True)
class Condition:
    """Stands beside a type: `Annotated[int, Condition(is_even, "an even number")]`."""

    holds: Callable[[Any], bool]
    expected: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self._check, handler(source))

    def _check(self, value: Any) -> Any:
        if not self.holds(value):
            raise ValueError(self.expected)
        return value


def within(low: float, high: float) -> Condition:
    """`low <= value <= high`."""
    return Condition(lambda value: low <= value <= high, f"{low} to {high}")


def at_least(low: float) -> Condition:
    return Condition(lambda value: bool(low <= value), f"at least {low}")


def one_of(*choices: Any) -> Condition:
    return Condition(lambda value: value in choices, f"one of {', '.join(map(str, choices))}")


not_empty = Condition(bool, "a text")


def load(path: Path, version: int | None = None, remedy: str = "") -> dict[str, Any]:
    """The content of a YAML file, not yet checked against a schema.

    Args:
        version: what the file's `version` must be; the entry is taken out. None: the file has none.
        remedy: how the user gets a file that can be read; ends the message.

    Raises:
        LightTrackError: it cannot be read, is larger or deeper than settings are, is no YAML in UTF-8, has a key twice
            or aliases, holds no `key: value` lines, or is of another version.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ValueError(f"over {MAX_BYTES:,} bytes, too large for settings")
        tree = yaml.load(io.StringIO(content.decode()), _Loader)
        data = json.loads(json.dumps(tree, default=str))  # none but JSON's types; a date becomes text
        if not isinstance(data, dict):
            raise ValueError(f"expected `key: value` lines, found {type(data).__name__}")
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise LightTrackError(f"{path}: cannot be read ({reason}{remedy and f'; {remedy}'})") from error
    if version is not None and (found := data.pop("version", None)) != version:
        raise wrong(path, "version", found, str(version) + (remedy and f" ({remedy})"))
    return data


def check(schema: type[_Schema], data: Any, where: str | Path, **given: Any) -> _Schema:
    """`data`, as it comes from `load`, as an instance of the dataclass `schema`.

    Args:
        where: the file, and the section in it if `data` is one; begins the message.
        given: fields that do not come from the file, by name.

    Raises:
        LightTrackError: an entry is unknown, missing or not what the schema expects; names the first such.
    """
    try:
        from pydantic import ConfigDict, TypeAdapter, ValidationError
    except ImportError as error:  # apt's pydantic is 1 on Ubuntu 22.04 and 24.04
        raise LightTrackError(f"pydantic 2 is needed ({error}); python3 -m pip install 'pydantic>=2.6'") from error
    stored: Any = _without(schema, given) if given else schema
    # In a list, as pydantic takes settings for a standard dataclass only from what is around it.
    adapter = TypeAdapter(list[stored], config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
    try:
        # As JSON, pydantic's strict mode is what YAML's own types call for: a list may be a tuple and a whole number
        # a float, while '128', true or 128.0 are no whole numbers.
        values = adapter.validate_json(json.dumps([data]))[0]
    except ValidationError as error:
        raise LightTrackError(_message(stored, error.errors(include_url=False)[0], where)) from error
    return schema(**vars(values), **given) if given else values


def save(path: Path, data: dict[str, Any], version: int, inline: bool = False) -> None:
    """Write plain data, e.g. of `dataclasses.asdict`, so that `load` reads it; tuples become lists.

    Args:
        inline: the innermost lists and sections take one line each.

    Raises:
        OSError: the file cannot be written.
    """
    plain = json.loads(json.dumps({"version": version, **data}))
    flow = None if inline else False
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120, default_flow_style=flow)
    write_text(path, text)


def wrong(path: Path, key: str, value: object, expected: str) -> LightTrackError:
    """The error for an entry that cannot be."""
    return LightTrackError(f"{path}: {key} is {value!r:.100}, expected {expected}")


class _Loader(yaml.SafeLoader):
    """Refuses what settings never need and what can hurt: aliases, keys that come twice, deep nesting."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        alias = self.check_event(yaml.AliasEvent)
        if alias or self._depth == MAX_DEPTH:
            what = "an alias (*name), which is not taken" if alias else f"more than {MAX_DEPTH} levels"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem=f"found {what}", problem_mark=mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"found the key {key.value!r} twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _without(schema: Any, given: Container[str]) -> Any:
    """The dataclass without some of its fields."""
    types = typing.get_type_hints(schema, include_extras=True)
    fields = [item for item in dataclasses.fields(schema) if item.name not in given]
    return dataclasses.make_dataclass("Stored", [(item.name, types[item.name], copy.copy(item)) for item in fields])


def _message(schema: type, error: ErrorDetails, where: str | Path) -> str:
    kind, value, loc = error["type"], f"{error['input']!r:.100}", error["loc"][1:]
    steps = [f"entry {step + 1}" if isinstance(step, int) else step for step in loc]
    entry = ": ".join([str(where), *steps])
    if kind == "missing":
        return f"{entry} is missing"
    if kind == "unexpected_keyword_argument":
        place, known = ": ".join([str(where), *steps[:-1]]), _keys(schema, loc[:-1])
        close = difflib.get_close_matches(steps[-1], known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(known)
        return f"{place}: unknown key {steps[-1]!r} ({hint})"
    if kind == "value_error":  # of a Condition
        return f"{entry} is {value}, expected {error['ctx']['error']}"
    return f"{entry}: is {value}, expected {_EXPECTED.get(kind, error['msg'])}"


def _keys(schema: Any, loc: tuple[int | str, ...]) -> list[str]:
    """The field names of the section at `loc`."""
    for step in loc:
        kind = typing.get_type_hints(schema).get(str(step))  # None where the step is a mapping's key or an index
        schema = next(filter(dataclasses.is_dataclass, (kind, *typing.get_args(kind))), schema)
    return [item.name for item in dataclasses.fields(schema)]
