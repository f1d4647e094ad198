"""An answer schema, taken apart once: what to fill, and where its evidence is.

Decides which kind of question each part of a JSON schema asks. Accepts any schema of the strict
subset of structured output, recursion included. Refuses to look at a text.
"""

import functools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from lib.local_api.annotators import clues, kinds
from lib.local_api.annotators.noise import salt
from lib.local_api.annotators.reading import Clue

_MOST_EXAMPLES = 40
_NULL = {"type": "null"}
NAME_MEMBERS = ("name", "text", "mention", "entity", "surface", "span", "label", "title", "term")
_ASKS_FOR_NAMES = re.compile(r"\bnam|\bentit|\bmention|\bproper", re.IGNORECASE)


@dataclass(eq=False)
class Node:
    """One question: `kind` is closed, number, string, list, object, union or open.

    `children` are a property's name (or "") and its node; `height` is the least depth of an
    answer, by which recursion ends.
    """

    number: int
    kind: str
    name: str
    about: str
    schema: dict[str, Any]
    salt: int
    values: tuple[Any, ...] = ()
    default: int | None = None
    gate: int | None = None
    is_topical: bool = False
    is_nullable: bool = False
    children: list[tuple[str, "Node"]] = field(default_factory=list)
    height: float = math.inf
    asked: dict[str, float] = field(default_factory=dict)
    examples: re.Pattern[str] | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """A schema's root question, all its questions by number, and its evidence by first stem."""

    root: Node
    nodes: tuple[Node, ...]
    index: Mapping[str, tuple[Clue, ...]]
    lists: Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class _Compiling:
    root: dict[str, Any]
    nodes: list[Node]
    open_refs: dict[str, Node]


@functools.lru_cache(maxsize=64)
def compiled(schema_json: bytes) -> Plan:
    """The plan of a schema, given as JSON so that equal schemas are analysed once."""
    schema = orjson.loads(schema_json)
    state = _Compiling(schema, [], {})
    root = _node(state, schema, "", "", "#")
    _set_heights(state.nodes)
    index: dict[str, list[Clue]] = {}
    for node in state.nodes:
        if node.kind not in ("object", "union"):
            values = node.values if node.kind == "closed" else (True,)
            for stem, clue in clues.clues(node.number, node.name, node.about, values):
                index.setdefault(stem, []).append(clue)
    evidence = {stem: tuple(found) for stem, found in index.items()}
    return Plan(root, tuple(state.nodes), evidence, _lists(root))


def _node(state: _Compiling, schema: object, name: str, about: str, path: str) -> Node:
    """The question that a schema asks; a reference that is being taken apart is met again."""
    schema = schema if isinstance(schema, dict) else {}
    ref = schema.get("$ref")
    if ref in state.open_refs:
        return state.open_refs[ref]
    if isinstance(ref, str):
        target = _resolved(state.root, ref)
        schema = {**target, **{k: v for k, v in schema.items() if k != "$ref"}}
    schema, is_nullable = _without_null(schema)
    about = (
        "\n".join(str(schema[key]) for key in ("title", "description") if key in schema) or about
    )
    node = Node(len(state.nodes), _kind(schema), name, about, schema, salt(path))
    node.is_nullable = is_nullable
    state.nodes.append(node)
    if isinstance(ref, str):
        state.open_refs[ref] = node
    if path == "#":
        state.open_refs["#"] = node
    _fill(state, node, path)
    if isinstance(ref, str):
        del state.open_refs[ref]
    return node


def _fill(state: _Compiling, node: Node, path: str) -> None:
    """Values and children of a new node."""
    schema = node.schema
    if node.kind == "closed":
        node.values = tuple(_values(schema))
        node.is_topical = clues.is_topical(node.about)
        node.default = clues.default(node.about, node.values)
    elif node.kind == "object":
        for name, part in schema.get("properties", {}).items():
            node.children.append((name, _node(state, part, name, "", f"{path}/{name}")))
        _set_gates(node)
    elif node.kind == "list":
        item = _node(state, schema.get("items", {}), node.name, node.about, f"{path}/[]")
        node.children.append(("", item))
        node.asked = _asked_by(node, item)
        node.examples = None if node.asked or not _is_named(item) else _examples(node, item)
    elif is_free(node):
        node.asked = kinds.of_list(clues.words_of(node.name).split(" ")[-1], "")
    elif node.kind == "union":
        for place, part in enumerate(schema["anyOf"]):
            branch = _node(state, part, node.name, node.about, f"{path}/{place}")
            node.children.append(("", branch))


def _kind(schema: Mapping[str, Any]) -> str:
    """Which question a schema asks, null left aside."""
    if schema.get("enum") or "const" in schema or schema.get("type") == "boolean":
        return "closed"
    branches = schema.get("anyOf")
    if branches:
        named = all(part.get("enum") or "const" in part for part in branches)
        return "closed" if named else "union"
    if schema.get("type") == "object" or "properties" in schema:
        return "object"
    if schema.get("type") == "array" or "items" in schema:
        return "list"
    return {"number": "number", "integer": "number", "string": "string"}.get(
        schema.get("type"), "open"
    )


def _values(schema: Mapping[str, Any]) -> list[Any]:
    """The values of a closed question in schema order."""
    if "const" in schema:
        return [schema["const"]]
    if schema.get("enum"):
        return list(schema["enum"])
    if "anyOf" in schema:
        return [value for part in schema["anyOf"] for value in _values(part)]
    return [True, False]


def _without_null(schema: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A schema without its null branch, and whether it had one; type lists become anyOf."""
    kinds = schema.get("type")
    if isinstance(kinds, list):
        rest = [kind for kind in kinds if kind != "null"]
        plain = {key: value for key, value in schema.items() if key != "type"}
        if "enum" in schema:
            plain["enum"] = [value for value in schema["enum"] if value is not None]
        if len(rest) == 1:
            return {**plain, "type": rest[0]}, len(rest) < len(kinds)
        branches = [{**plain, "type": kind} for kind in rest] or [_NULL]
        return {"anyOf": branches, "description": schema.get("description", "")}, "null" in kinds
    if isinstance(schema.get("anyOf"), list):
        branches = [
            part for part in schema["anyOf"] if part != _NULL and part.get("type") != "null"
        ]
        outer = {key: value for key, value in schema.items() if key != "anyOf"}
        is_nullable = len(branches) < len(schema["anyOf"])
        if len(branches) == 1 and isinstance(branches[0], dict) and "$ref" not in branches[0]:
            inner, is_inner_nullable = _without_null(branches[0])
            return {**inner, **outer}, is_nullable or is_inner_nullable
        return {**outer, "anyOf": branches or [{"const": None}]}, is_nullable
    if schema.get("type") == "null":
        return {**schema, "const": None}, False
    return schema, False


def _resolved(root: Mapping[str, Any], ref: str) -> dict[str, Any]:
    """What a local reference points to; an empty schema when it points nowhere."""
    found: Any = root
    for step in ref.removeprefix("#").strip("/").split("/"):
        if step:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _set_gates(node: Node) -> None:
    """Let the fields that apply only when another one is true know that one."""
    by_name = dict(node.children)
    for _, child in node.children:
        wanted = by_name.get(clues.gate(child.about) or "")
        if wanted is not None and wanted is not child and True in wanted.values:
            child.gate = wanted.number


def _set_heights(nodes: list[Node]) -> None:
    """The least depth of an answer for each node: the shortest way out of recursion."""
    changed = True
    while changed:
        changed = False
        for node in nodes:
            height = _height(node)
            if height < node.height:
                node.height, changed = height, True


def _height(node: Node) -> float:
    below = [child.height for _, child in node.children]
    if node.is_nullable or (node.kind == "list" and not node.schema.get("minItems")):
        return 0.0
    if node.kind == "union":
        return 1 + min(below)
    return 1 + max(below, default=0.0)


def _lists(node: Node) -> dict[int, dict[str, float]]:
    """What the lists outside other lists ask for; they share the names of a text."""
    found: dict[int, dict[str, float]] = {}
    waiting, met = [node], set()
    while waiting:
        one = waiting.pop()
        if one.number not in met and one.kind in ("object", "union"):
            waiting += [child for _, child in one.children]
        elif one.kind == "list" and one.asked:
            found[one.number] = one.asked
        met.add(one.number)
    return dict(sorted(found.items()))


def _examples(node: Node, item: Node) -> re.Pattern[str] | None:
    """What a list of things that have no proper names gives as examples."""
    told = {one for one in clues.examples(f"{node.about}\n{item.about}") if one[:1].isalnum()}
    longest_first = sorted(told, key=lambda one: (-len(one), one))[:_MOST_EXAMPLES]
    listed = "|".join(map(re.escape, longest_first))
    return re.compile(rf"\b(?:{listed})\w{{0,3}}\b", re.IGNORECASE) if listed else None


def _asked_by(node: Node, item: Node) -> dict[str, float]:
    """The kinds of things that a list asks for; nothing when it is not about named things.

    The words of its name tell most; its description alone only when it speaks of names.
    """
    if not _is_named(item):
        return {}
    by_name = kinds.of_list(node.name, "")
    about = f"{node.about}\n{item.about}"
    if by_name or _ASKS_FOR_NAMES.search(about):
        asked = kinds.of_list(node.name, about)
        for _, child in item.children:
            for value in child.values:
                asked |= {k: max(w, asked.get(k, 0.0)) for k, w in _of_value(value).items()}
        return asked
    return {}


def _is_named(item: Node) -> bool:
    """Whether a list's item can be a name or something that has one."""
    return is_free(item) or (item.kind == "object" and name_member(item) is not None)


def _of_value(value: object) -> dict[str, float]:
    return kinds.of_list(value, "") if isinstance(value, str) else {}


def is_free(node: Node) -> bool:
    """Whether any string answers the question."""
    return node.kind == "string" and not node.schema.keys() & {"pattern", "format"}


def name_member(item: Node) -> str | None:
    """The member of an item that holds the name, if the item is about a named thing."""
    strings = [name for name, child in item.children if is_free(child)]
    return next((name for name in NAME_MEMBERS if name in strings), None)
