"""Lists that lag behind, repeat an item or drop one: the query is changed, the answer is real.

So pages stay as long as asked for, and `has_more` stays true, as with a service that has this
fault.
"""

import re
import urllib.parse

from starlette.types import Scope

from lib.local_api import clock, context, store
from lib.local_api.faults import calls, switches, table


def query(
    service: context.Service, scope: Scope, asked: calls.Call, switched: list[switches.Switch]
) -> bytes:
    """The query of a list request after all list faults that strike it."""
    given = scope["query_string"]
    words = first = dict(urllib.parse.parse_qsl(given.decode("latin-1"), keep_blank_values=True))
    for switch in switched:
        if switch.rule.fault.stage == "list":
            changed = _changed(service, switch.rule, _rows(service, asked, words), words)
            if changed != words and switches.strikes(switch):
                words = changed
    return given if words == first else urllib.parse.urlencode(words).encode()


def _rows(service: context.Service, asked: calls.Call, words: dict[str, str]) -> list:
    """All that the list holds, in its order."""
    if asked.operation == table.LIST_BATCHES:
        return store.page_of_batches(service.db, store.Page(-1, None))
    page = store.Page(-1, None, oldest_first=words.get("order") == "asc")
    now = clock.now(service.clock)
    return store.page_of_files(service.db, now, words.get("purpose"), page)


def _changed(
    service: context.Service, rule: switches.Rule, rows: list, words: dict[str, str]
) -> dict[str, str]:
    """The words of a query with which a list shows the fault; as they are if it has no chance."""
    ids = [row["id"] for row in rows]
    place = ids.index(words["after"]) if words.get("after") in ids else -1
    if rule.fault.name == "list_lags":
        newest = clock.now(service.clock) - rule.value
        hidden = [row["id"] for row in rows if row["created_at"] > newest]
        return _lagging(ids, hidden, place, words)
    if place < 0:
        return words
    place += -1 if rule.fault.name == "list_repeats" else 1
    if place < 0:
        return {name: word for name, word in words.items() if name != "after"}
    return {**words, "after": ids[place]} if place < len(ids) else words


def _lagging(
    ids: list[str], hidden: list[str], place: int, words: dict[str, str]
) -> dict[str, str]:
    """The query of a list in which these ids, the newest, are not to be seen."""
    if not hidden:
        return words
    if ids[0] == hidden[0]:
        return {**words, "after": ids[max(place, len(hidden) - 1)]}
    n_left = len(ids) - len(hidden) - place - 1
    if n_left <= 0:
        return {**words, "after": ids[-1]}
    limit = words.get("limit", "")
    return {
        **words,
        "limit": str(min(n_left, int(limit) if re.fullmatch("[1-9][0-9]{0,8}", limit) else n_left)),
    }
