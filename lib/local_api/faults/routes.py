"""The routes of /votebook: the switches of faults, and the book of what was run and paid.

They are outside of the API, need the same token, and are never struck by a fault themselves.
"""

from starlette.requests import Request
from starlette.responses import Response

from lib.local_api import book, context, params, texts
from lib.local_api.faults import keeping, switches, table

MAX_BODY_BYTES = 1_048_576


async def show(request: Request) -> Response:
    """GET /votebook/faults: what is on and how often it struck, and all there is."""
    return params.pretty(_described(request.app.state.service))


async def replace(request: Request) -> Response:
    """PUT /votebook/faults: switch on these faults and no others, counted anew."""
    service = request.app.state.service
    keeping.switch_on(service, switches.parsed(await params.json_object(request, MAX_BODY_BYTES)))
    return params.pretty(_described(service))


async def change(request: Request) -> Response:
    """PATCH /votebook/faults: switch these on or, with null, off; leave the others as they are."""
    service = request.app.state.service
    asked = await params.json_object(request, MAX_BODY_BYTES)
    rules = switches.parsed(asked)
    kept = {k: v for k, v in service.faults.on.items() if k not in (asked.get("faults") or {})}
    service.faults.on = kept | {name: switches.Switch(rule) for name, rule in rules.items()}
    keeping.keep(service)
    return params.pretty(_described(service))


async def clear(request: Request) -> Response:
    """DELETE /votebook/faults: switch all off."""
    service = request.app.state.service
    keeping.switch_on(service, {})
    return params.pretty(_described(service))


async def show_book(request: Request) -> Response:
    """GET /votebook/book: per custom_id how often it was run, over all batches.

    With `?more_than=1`, only what was run more often than once.
    """
    service = request.app.state.service
    more_than = request.query_params.get("more_than", "-1")
    if not more_than.removeprefix("-").isdecimal() or len(more_than) > 9:
        message = texts.WRONG_TYPE.format("more_than", "an integer", "a string")
        raise texts.refusal(400, texts.ours(message), "more_than", "invalid_type")
    return params.compact(book.read(service.db, int(more_than)))


def _described(service: context.Service) -> dict:
    """What is switched on, and the table of faults."""
    on = {
        name: {
            **switches.described(switch.rule),
            "n_chances": switch.n_chances,
            "n_struck": switch.n_struck,
        }
        for name, switch in service.faults.on.items()
    }
    return {
        "object": "votebook.faults",
        "on": on,
        "table": [_row(fault) for fault in table.FAULTS.values()],
        "not_applicable": table.NOT_APPLICABLE,
    }


def _row(fault: table.Fault) -> dict:
    """A fault as the table shows it."""
    option = dict([fault.option]) if fault.option else {}
    return {**fault._asdict(), "only": list(fault.only), "option": option}
