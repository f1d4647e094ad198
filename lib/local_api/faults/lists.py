"""Lists that lag behind, repeat an item or drop one: the query is changed, the answer is real.

So pages stay as long as asked for, and `has_more` stays true, as with a service that has this
fault.
"""

import urllib.parse

from starlette.types import Scope

from lib.local_api import clock, context, store
from lib.local_api.faults import calls, switches, table


def query(
    service: context.Service, scope: Scope, asked: calls.Call, switched: list[switches.Switch]
) -> bytes:
    """The query of a list request after all list faults that strike it."""
    words = dict(urllib.parse.parse_qsl(scope["query_string"].decode("latin-1")))
    for switch in switched:
        if switch.rule.fault.stage != "list":
            continue
        rows = _rows(service, asked, words)
        ids = [row["id"] for row in rows]
        after = _after(service, switch.rule, rows, words.get("after"))
        if after != words.get("after") and switches.strikes(switch):
            words = {name: word for name, word in words.items() if name != "after"}
            words |= {"after": after} if after in ids else {}
    return urllib.parse.urlencode(words).encode()


def _rows(service: context.Service, asked: calls.Call, words: dict[str, str]) -> list:
    """All that the list holds, in its order."""
    if asked.operation == table.LIST_BATCHES:
        return store.page_of_batches(service.db, store.Page(-1, None))
    page = store.Page(-1, None, oldest_first=words.get("order") == "asc")
    now = clock.now(service.clock)
    return store.page_of_files(service.db, now, words.get("purpose"), page)


def _after(
    service: context.Service, rule: switches.Rule, rows: list, after: str | None
) -> str | None:
    """The `after` with which a list shows the fault; the given one when there is nothing to do."""
    ids = [row["id"] for row in rows]
    if rule.fault.name == "list_lags":
        newest = clock.now(service.clock) - rule.value
        hidden = [row["id"] for row in rows if row["created_at"] > newest]
        return hidden[-1] if hidden and after not in ids[len(hidden) :] else after
    if after not in ids:
        return after
    place = ids.index(after) + (-1 if rule.fault.name == "list_repeats" else 1)
    if place < 0:
        return None
    return ids[place] if place < len(ids) else after
