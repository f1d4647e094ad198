"""What is shown of a batch or a file, changed: ids, status, counts, times.

The state itself is left as it is: a fault that is switched off shows the truth again.
"""

from collections.abc import Iterable

from lib.local_api.faults import switches, table

BEFORE = {
    "in_progress": "validating",
    "finalizing": "in_progress",
    "completed": "finalizing",
    "failed": "validating",
    "expired": "in_progress",
    "cancelling": "in_progress",
    "cancelled": "cancelling",
}
ENDED_AT = ("completed_at", "failed_at", "expired_at", "cancelled_at")
FILE_IDS = ("output_file_id", "error_file_id")
THERE_AND_BACK = ("status_backwards", "counts_backwards")


def changed(faults: switches.Faults, body: dict, switched: Iterable[switches.Switch]) -> dict:
    """An answer of the API after all faults that strike it; a list has a chance for each item."""
    if body.get("object") == "list":
        items = body["data"]
        own = [_object(faults, one, [*switched, *_attached(faults, one)]) for one in items]
        return {**body, "data": own}
    return _object(faults, body, switched)


def _attached(faults: switches.Faults, item: dict) -> list[switches.Switch]:
    """What the batch of a list's item asks for itself."""
    found = faults.attached.get(item.get("id"), {}).values()
    return [one for one in found if table.LIST_BATCHES in one.rule.only]


def _object(faults: switches.Faults, body: dict, switched: Iterable[switches.Switch]) -> dict:
    """One object after all faults that strike it."""
    shown = body
    for switch in switched:
        if switch.rule.fault.stage != "view":
            continue
        name = switch.rule.fault.name
        instead = _instead(faults, name, shown, switch.rule.value)
        if instead is not None and switches.strikes(switch):
            shown = instead
            if name in THERE_AND_BACK:
                faults.shown.pop((name, body["id"]))
    return shown


def _instead(faults: switches.Faults, name: str, body: dict, value: float) -> dict | None:
    """An object as a fault shows it; None when there is nothing in it for the fault to change."""
    if name == "answer_without_id":
        return {key: member for key, member in body.items() if key != "id"}
    if name == "answer_with_empty_id":
        return {**body, "id": ""}
    if body.get("object") != "batch" or not body.get("id"):
        return None
    backwards = name in THERE_AND_BACK or name == "output_id_vanishes"
    changes = _after_a_look(faults, name, body, value) if backwards else _at_once(name, body, value)
    return {**body, **changes} if changes else None


def _at_once(name: str, body: dict, value: float) -> dict:
    """The changed members of a batch, for a fault that needs no look before."""
    has_lines = body["request_counts"]["total"]
    return {
        "unknown_status": {"status": "under_review"},
        "file_ids_empty": {key: "" for key in FILE_IDS if body[key] is None},
        "created_early": {"created_at": body["created_at"] - int(value)},
        "counts_wrong": _counted(body, int(value)) if has_lines else {},
    }[name]


def _after_a_look(faults: switches.Faults, name: str, body: dict, value: float) -> dict:
    """The changed members of a batch when what they hide was shown before, nothing otherwise."""
    status, completed = body["status"], body["request_counts"]["completed"]
    earlier = {**dict.fromkeys((*FILE_IDS, *ENDED_AT)), "status": BEFORE.get(status)}
    what, changes = {
        "status_backwards": (status if status in BEFORE else None, earlier),
        "counts_backwards": (completed, _counted(body, -min(int(value), completed))),
        "output_id_vanishes": (body["output_file_id"], {"output_file_id": None}),
    }[name]
    key = (name, body["id"])
    before, faults.shown[key] = faults.shown.get(key), what
    return changes if what and before == what else {}


def _counted(body: dict, by: int) -> dict:
    """The counts of a batch with another number of completed requests."""
    counts = body["request_counts"]
    return {"request_counts": {**counts, "completed": counts["completed"] + by}}
