"""The subset of JSON Schema that strict structured output accepts.

Finds the first fault of a schema in the order in which it is written, as the API does, and words it
as the API would. A schema that need not be strict must at least be one. It does not check values
against a schema.
"""

import re
from collections.abc import Iterator

from lib.local_api import texts

MAX_PROPERTIES, MAX_LEVELS, MAX_CHARS = 5_000, 10, 120_000
MAX_ENUM_VALUES, LARGE_ENUM, MAX_LARGE_ENUM_CHARS = 1_000, 250, 15_000
NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
TYPES = ("string", "number", "boolean", "integer", "object", "array", "null")
FORMATS = (
    "date-time",
    "time",
    "date",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "uuid",
)
TEXTS = ("$ref", "pattern", "format", "title", "description")
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
COUNTS = ("minItems", "maxItems")
# What JSON Schema allows as the value of a keyword, and how that is called.
SHAPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    **dict.fromkeys(("properties", "$defs", "definitions"), (dict, "an object")),
    **dict.fromkeys(("required", "enum", "anyOf"), (list, "an array")),
    **dict.fromkeys(TEXTS, (str, "a string")),
    **dict.fromkeys(NUMBERS, ((int, float), "a number")),
    **dict.fromkeys(COUNTS, (int, "an integer")),
}
MAX_STEPS = 100
SCHEMA_TABLES = ("properties", "$defs", "definitions")
KEYWORDS = frozenset(
    (
        *("type", "properties", "required", "additionalProperties", "items", "enum", "const"),
        *("anyOf", "$ref", "$defs", "definitions", "title", "description", "$schema"),
        *("pattern", "format", "multipleOf", "minimum", "maximum"),
        *("exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems"),
    )
)

Path = tuple[str, ...]


def problem(name: str, schema: object) -> str | None:
    """What the API says of a strict schema called `name`, or None when it accepts the schema.

    >>> problem("answer", {"type": "object", "properties": {"a": {"type": "string"}}})
    "Invalid schema for response_format 'answer': In context=(), 'additionalProperties' is \
required to be supplied and to be false."
    """
    fault = next(_faults(schema), None)
    return None if fault is None else f"Invalid schema for response_format '{name}': {fault}"


def malformed(name: str, schema: dict) -> str | None:
    """What is said of a schema called `name` that is no JSON Schema, or None when it is one.

    >>> malformed("answer", {"properties": 5})
    "Invalid schema for response_format 'answer': In context=(), 'properties' must be an object. \
(text chosen by the local service)"
    """
    for path, _, node in _nodes(schema):
        fault = _shape_fault(node)
        if len(path) > MAX_STEPS:
            fault = f"the schema has more than {MAX_STEPS} steps of nesting."
        if fault:
            message = f"Invalid schema for response_format '{name}': In context={path}, {fault}"
            return texts.ours(message)
    return None


def _shape_fault(node: object) -> str | None:
    """The first keyword of a schema whose value cannot be one, not of the schemas within it."""
    if not isinstance(node, dict):
        return f"{texts.json_type(node)} is not a schema."
    for keyword, (kind, called) in SHAPES.items():
        value = node.get(keyword)
        if keyword in node and (isinstance(value, bool) or not isinstance(value, kind)):
            return f"'{keyword}' must be {called}."
    kinds = node.get("type", [])
    strange = [
        kind for kind in (kinds if isinstance(kinds, list) else [kinds]) if kind not in TYPES
    ]
    return f"{strange[0]!r} is not a type." if strange else None


def _faults(schema: object) -> Iterator[str]:
    """All faults of a schema, the root's first."""
    if not isinstance(schema, dict):
        yield texts.ours(f"{texts.json_type(schema)} is not a schema.")
        return
    if "anyOf" in schema or schema.get("type") != "object":
        got = "None" if "anyOf" in schema else schema.get("type")
        yield f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{got}\"'."
        return
    nodes = []
    for path, level, node in _nodes(schema):
        yield from (f"In context={path}, {fault}" for fault in _node_faults(node, schema))
        if level > MAX_LEVELS:
            yield texts.ours(f"the schema has more than {MAX_LEVELS} levels of nesting.")
        nodes.append(node)
    yield from _size_faults([node for node in nodes if isinstance(node, dict)])


def _nodes(root: dict) -> Iterator[tuple[Path, int, object]]:
    """Every schema within a schema with its path and its level, parents before children."""
    waiting: list[tuple[Path, int, object]] = [((), 1, root)]
    while waiting:
        path, level, node = waiting.pop()
        yield path, level, node
        if not isinstance(node, dict) or len(path) > MAX_STEPS:
            continue
        waiting += [
            ((*path, *steps), level + deeper, child)
            for steps, deeper, child in reversed(list(_children(node)))
        ]


def _children(node: dict) -> Iterator[tuple[Path, int, object]]:
    """The schemas directly within a schema: their steps, how many levels deeper, themselves."""
    for table in SCHEMA_TABLES:
        inner = node.get(table)
        if isinstance(inner, dict):
            deeper = 1 if table == "properties" else 0
            yield from (((table, name), deeper, child) for name, child in inner.items())
    if "items" in node:
        yield ("items",), 1, node["items"]
    if isinstance(node.get("anyOf"), list):
        yield from ((("anyOf", str(n)), 0, child) for n, child in enumerate(node["anyOf"]))


def _node_faults(node: object, root: dict) -> Iterator[str]:
    """The faults of one schema, not of those within it."""
    if not isinstance(node, dict):
        yield texts.ours(f"{texts.json_type(node)} is not a schema.")
        return
    for keyword in node:
        if keyword not in KEYWORDS:
            yield f"'{keyword}' is not permitted."
    if "$ref" in node:
        yield from _reference_faults(node["$ref"], root)
    elif not {"type", "enum", "const", "anyOf"} & node.keys():
        yield "schema must have a 'type' key."
    yield from _type_faults(node)
    yield from _enum_faults(node)
    if "format" in node and node["format"] not in FORMATS:
        yield texts.ours(f"'format' may not be {node['format']!r}.")


def _type_faults(node: dict) -> Iterator[str]:
    """Faults of the type, and of what a type demands."""
    kinds = node.get("type", [])
    kinds = kinds if isinstance(kinds, list) else [kinds]
    for kind in kinds:
        if kind not in TYPES:
            yield texts.ours(f"{kind!r} is not a type.")
    if "object" in kinds:
        yield from _object_faults(node)
    if "array" in kinds and "items" not in node:
        yield "array schema missing items."


def _object_faults(node: dict) -> Iterator[str]:
    """An object closes itself and requires every property."""
    if node.get("additionalProperties") is not False:
        yield "'additionalProperties' is required to be supplied and to be false."
    properties = node.get("properties", {})
    if not isinstance(properties, dict):
        yield texts.ours("'properties' must be an object.")
        return
    required = node.get("required", [] if not properties else None)
    listed = required if isinstance(required, list) else []
    absent = [f" Missing '{name}'." for name in properties if name not in listed]
    strange = [name for name in listed if not isinstance(name, str) or name not in properties]
    extra = [f" Extra required key '{name}' supplied." for name in strange]
    if absent or extra or not isinstance(required, list):
        yield (
            "'required' is required to be supplied and to be an array including every key in"
            f" properties.{(absent + extra + [''])[0]}"
        )


def _enum_faults(node: dict) -> Iterator[str]:
    """An enum is a list with values."""
    if "enum" in node and not (isinstance(node["enum"], list) and node["enum"]):
        yield texts.ours("'enum' must be an array with at least one value.")


def _reference_faults(reference: object, root: dict) -> Iterator[str]:
    """A reference leads from the root to a schema."""
    if reference == "#":
        return
    found: object = root
    steps = reference[2:].split("/") if str(reference).startswith("#/") else [None]
    for step in steps:
        found = found.get(step) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        yield texts.ours(f"reference {reference!r} leads to no schema.")


def _size_faults(nodes: list[dict]) -> Iterator[str]:
    """Faults of a schema as a whole: too many properties, characters or enum values."""
    tables = [table for node in nodes for table in _tables(node)]
    names = [name for table in tables for name in table]
    n_properties = sum(len(n["properties"]) for n in nodes if isinstance(n.get("properties"), dict))
    if n_properties > MAX_PROPERTIES:
        yield texts.ours(f"the schema has {n_properties} properties, more than {MAX_PROPERTIES}.")
    enums = [node["enum"] for node in nodes if isinstance(node.get("enum"), list)]
    n_values = sum(map(len, enums))
    if n_values > MAX_ENUM_VALUES:
        yield texts.ours(f"the schema has {n_values} enum values, more than {MAX_ENUM_VALUES}.")
    constants = [node["const"] for node in nodes if "const" in node]
    n_chars = sum(len(str(text)) for text in [*names, *constants, *(v for e in enums for v in e)])
    if n_chars > MAX_CHARS:
        yield texts.ours(f"names, enums and consts have {n_chars} characters, over {MAX_CHARS}.")
    for values in enums:
        n_chars = sum(len(value) for value in values if isinstance(value, str))
        if len(values) > LARGE_ENUM and n_chars > MAX_LARGE_ENUM_CHARS:
            yield texts.ours(f"an enum has {n_chars} characters, over {MAX_LARGE_ENUM_CHARS}.")


def _tables(node: dict) -> list[dict]:
    """The tables of named schemas directly within a schema."""
    return [node[table] for table in SCHEMA_TABLES if isinstance(node.get(table), dict)]
