"""An answer to a schema, filled in from a text.

Decides every value of an answer so that the schema accepts it, whatever the text says. Refuses to
take the text as anything but evidence.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from lib.local_api.annotators import entities, judging, literals, quantities, reading
from lib.local_api.annotators.entities import Entity
from lib.local_api.annotators.noise import Noise
from lib.local_api.annotators.plan import Node, Plan, is_free, name_member
from lib.local_api.annotators.reading import Hit, Reading

Value = str | int | float | bool | list | dict | None

_MISSING: Any = object()
_DEEPEST, _ENDLESS = 8, 60
_MOST_VALUES = 20_000
_MOST_ITEMS = 3
_MENTION_MEMBERS = 3


@dataclass(frozen=True, eq=False)
class Scene:
    """What a question is asked about: a text or a stretch of its words, with evidence and noise."""

    plan: Plan
    read: Reading
    hits: dict[int, tuple[Hit, ...]]
    noise: Noise
    first: int
    last: int
    depth: int = 0
    entity: Entity | None = None
    decided: dict[int, int] = field(default_factory=dict)
    n_values: list[int] = field(default_factory=lambda: [0])
    seen: list[Entity] = field(default_factory=list)
    filed: dict[int, list[Entity]] = field(default_factory=dict)

    def hits_of(self, node: Node) -> tuple[Hit, ...]:
        """The evidence for a question inside the scene's stretch."""
        found = self.hits.get(node.number, ())
        if self.depth == 0:
            return found
        return tuple(hit for hit in found if self.first <= hit.position < self.last)


def answer(plan: Plan, text: str, noise: Noise) -> Value:
    """The simulated answer: a value that the plan's schema accepts."""
    read = reading.read(text)
    scene = Scene(plan, read, reading.hits(read, plan.index), noise, 0, len(read.stems))
    return _value(scene, plan.root)


def _value(scene: Scene, node: Node) -> Value:
    """What is found, else null where allowed, else a value made up.

    Where a schema allows no finite answer, or asks for an endless list, null ends it.
    """
    scene.n_values[0] += 1
    if scene.n_values[0] > _MOST_VALUES or scene.depth > _ENDLESS:
        return None
    must_end = scene.depth > _DEEPEST
    found = _MISSING if must_end and node.is_nullable else _FINDERS[node.kind](scene, node)
    if found is not _MISSING:
        return found
    return None if node.is_nullable else _made_up(scene, node)


def _made_up(scene: Scene, node: Node) -> Value:
    """A valid value without evidence."""
    if node.kind == "number":
        return literals.fitted(literals.middle(node.schema), node.schema)
    if node.kind == "closed":
        return node.values[node.default or 0]
    made = literals.made_up(node.schema, scene.noise.text)
    return "" if made is None else made


def _applies(scene: Scene, node: Node) -> bool:
    """Whether the field that this one depends on is true."""
    if node.gate is None:
        return True
    gate = scene.plan.nodes[node.gate]
    return gate.values[_decided(scene, gate)] is True


def _decided(scene: Scene, node: Node) -> int:
    """The place of the chosen value, decided once per scene."""
    if node.number not in scene.decided:
        near: tuple[int, ...] = ()
        if node.gate is not None:
            near = tuple(hit.position for hit in scene.hits_of(scene.plan.nodes[node.gate]))
        totals = judging.scores(node, scene.hits_of(node), scene.noise, near)
        scene.decided[node.number] = judging.choice(totals)
    return scene.decided[node.number]


def _closed(scene: Scene, node: Node) -> Value:
    if scene.entity is not None and (place := entities.value(node, scene.entity)) is not None:
        return node.values[place]
    if not _applies(scene, node) or (node.is_nullable and not scene.hits_of(node)):
        return _MISSING
    return node.values[_decided(scene, node)]


def _number(scene: Scene, node: Node) -> Value:
    if not _applies(scene, node):
        return _MISSING
    if scene.entity is not None:
        figure = entities.attribute(node, scene.read, scene.entity)
        return _MISSING if figure is None else figure
    spread = scene.noise.skill.spread * scene.noise.z(node.salt)
    found = quantities.found(
        node, scene.read, scene.hits_of(node), (scene.first, scene.last), spread
    )
    return _MISSING if found is None else found


def _string(scene: Scene, node: Node) -> Value:
    told = _told(scene, node) if _applies(scene, node) else None
    return _MISSING if told is None else told


def _told(scene: Scene, node: Node) -> Value:
    """What the text has for a string: a shape, an attribute, a name, or the most telling quote."""
    if node.kind == "string" and not is_free(node):
        return literals.found_in(scene.read.text, node.schema)
    if scene.entity is not None:
        return entities.attribute(node, scene.read, scene.entity)
    if node.asked:
        named = _entities(scene, node)
        most = max(named, key=lambda entity: entity.name.n_mentions, default=None)
        return most and most.name.text
    quote = next(_telling(scene, node), None)
    if quote or node.is_nullable or not scene.read.sentences:
        return quote
    return scene.read.quote(scene.read.sentence_at(scene.first))


def _telling(scene: Scene, node: Node) -> Iterator[str]:
    """Sentences of the scene that hold evidence for a question, the strongest first."""
    weights: dict[reading.Sentence, float] = {}
    for hit in scene.hits_of(node):
        if scene.noise.notices(hit.salt):
            sentence = scene.read.sentence_at(hit.position)
            weights[sentence] = weights.get(sentence, 0.0) + hit.weight
    for sentence in sorted(weights, key=lambda one: (-weights[one], one.start)):
        yield scene.read.quote(sentence)


def _object(scene: Scene, node: Node) -> Value:
    inner = replace(scene, depth=scene.depth + 1, decided={})
    if node.is_nullable and not any(inner.hits_of(child) for _, child in node.children):
        return _MISSING
    named = name_member(node) if scene.entity is not None else None
    return {
        name: scene.entity.name.text if name == named else _value(inner, child)
        for name, child in node.children
    }


def _union(scene: Scene, node: Node) -> Value:
    """The branch with most evidence; near the end of patience, the one that ends soonest."""
    inner = replace(scene, depth=scene.depth + 1)
    branches = [child for _, child in node.children]
    if scene.depth > _DEEPEST:
        return _value(inner, min(branches, key=lambda branch: branch.height))
    if node.is_nullable and not any(_n_hits(inner, branch) for branch in branches):
        return _MISSING
    return _value(inner, max(branches, key=lambda branch: _n_hits(inner, branch)))


def _n_hits(scene: Scene, node: Node) -> int:
    """Pieces of evidence for a question and for the parts right below it."""
    return len(scene.hits_of(node)) + sum(len(scene.hits_of(child)) for _, child in node.children)


def _list(scene: Scene, node: Node) -> Value:
    """As many items as are found, within the schema's bounds."""
    item = node.children[0][1]
    least = min(node.schema.get("minItems", 0), _MOST_VALUES)
    found = _items(scene, node, item) if scene.depth <= _DEEPEST and _applies(scene, node) else []
    if not found and not least and node.is_nullable:
        return _MISSING
    inner = replace(scene, depth=scene.depth + 1, decided={})
    found += [_value(inner, item) for _ in range(least - len(found))]
    return found[: max(node.schema.get("maxItems", len(found)), 0)]


def _items(scene: Scene, node: Node, item: Node) -> list[Value]:
    """The items that the text gives: names, chosen values, quotes, or an item for each place."""
    if node.asked or node.examples:
        return [_named(scene, item, entity) for entity in _entities(scene, node)]
    if item.kind == "closed":
        return _chosen(scene, item)
    if is_free(item):
        return list(_telling(scene, node))[:_MOST_ITEMS]
    return [_value(stretch, item) for stretch in _stretches(scene, item)]


def _entities(scene: Scene, node: Node) -> list[Entity]:
    """The entities for a question: a list's share of the text's, or those in the stretch."""
    if node.examples:
        return entities.examples(scene.read.text, node.examples)
    if not scene.seen:
        takes_parts = all(len(one.children) < _MENTION_MEMBERS for _, one in node.children)
        scene.seen.extend(entities.seen(scene.read.text, scene.noise, takes_parts))
        scene.filed.update(entities.filed(scene.seen, scene.plan.lists))
    if node.number in scene.filed:
        return scene.filed[node.number]
    beside = entities.filed(scene.seen, {node.number: node.asked})[node.number]
    return [
        one
        for one in beside
        if scene.first <= one.name.sentence.first < scene.last
        and (scene.entity is None or one.name is not scene.entity.name)
    ]


def _named(scene: Scene, item: Node, entity: Entity) -> Value:
    """An item of an entity list: the name alone, or an object about it."""
    if item.kind == "string":
        return entity.name.text
    at = entity.name.sentence
    inner = replace(scene, first=at.first, last=at.last, entity=entity, decided={})
    return _value(replace(inner, depth=scene.depth + 1), item)


def _chosen(scene: Scene, item: Node) -> list[Any]:
    """All values of a closed item that have more evidence than nothing at all."""
    totals = judging.scores(item, scene.hits_of(item), scene.noise)
    told = {hit.value for hit in scene.hits_of(item)}
    return [item.values[place] for place in sorted(told) if totals[place] > judging.PRIOR]


def _stretches(scene: Scene, item: Node) -> list[Scene]:
    """A scene for each sentence that says something about an item's parts."""
    places = [hit.position for _, child in item.children for hit in scene.hits_of(child)]
    places += [hit.position for hit in scene.hits_of(item)]
    sentences = sorted({scene.read.sentence_at(place) for place in places})[:_MOST_ITEMS]
    return [
        replace(scene, first=one.first, last=one.last, depth=scene.depth + 1, decided={})
        for one in sentences
    ]


_FINDERS = {
    "closed": _closed,
    "number": _number,
    "string": _string,
    "object": _object,
    "union": _union,
    "list": _list,
    "open": _string,
}
