"""The published specification of Files, Batch, Models and Chat, repaired where it is wrong.

Each repair has its reason: a recorded answer of the real service contradicts the document, or the
document contradicts itself. Nothing else is changed. Needs no package, so that tools in an
environment of their own can read it too.
"""

import copy
import json
from pathlib import Path
from typing import NamedTuple

FILE = Path("openai") / "openapi-batch.json"
CONTENT = "/files/{file_id}/content"


class Repair(NamedTuple):
    """Members of a schema that may be null, and why."""

    schema: str
    members: tuple[str, ...]
    reason: str


MAY_BE_NULL = (
    Repair(
        "Batch",
        (
            "in_progress_at",
            "finalizing_at",
            "completed_at",
            "failed_at",
            "expired_at",
            "cancelling_at",
            "cancelled_at",
        ),
        "recorded as null until the batch reaches that state, in every batch object",
    ),
    Repair(
        "Batch",
        ("output_file_id", "error_file_id"),
        "recorded as null until the batch has ended, and for good when the file would be empty",
    ),
    Repair("Batch", ("errors",), "recorded as null unless the batch has failed"),
    Repair("Batch", ("model",), "recorded as null in the answer to create (December 2025)"),
    Repair("OpenAIFile", ("status_details",), "recorded as null for every processed file"),
    Repair(
        "OpenAIFile",
        ("expires_at",),
        "recorded as null in answers to an upload (March and April 2025); only batch files expire",
    ),
    Repair(
        "ListBatchesResponse",
        ("first_id", "last_id"),
        "an empty list has no first and no last; the document gives no value for it",
    ),
    Repair(
        "ListFilesResponse",
        ("first_id", "last_id"),
        "required, and yet an empty list has no first and no last",
    ),
)
OTHER = {
    "4XX of every path": "no refusal is declared, and 400, 401, 404 and 409 were recorded",
    CONTENT: "declared as JSON, recorded as application/octet-stream",
}


def read(shared: Path) -> dict:
    """The specification as it was published."""
    return json.loads((shared / FILE).read_text(encoding="utf-8"))


def repaired(published: dict) -> dict:
    """The specification after all repairs."""
    made = copy.deepcopy(published)
    schemas = made["components"]["schemas"]
    for repair in MAY_BE_NULL:
        members = schemas[repair.schema]["properties"]
        for name in repair.members:
            members[name] = {"anyOf": [members[name], {"type": "null"}]}
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}
    for path in made["paths"].values():
        for operation in path.values():
            operation["responses"]["4XX"] = {"description": "refused", "content": refusal}
    bytes_of_file = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    made["paths"][CONTENT]["get"]["responses"]["200"]["content"] = bytes_of_file
    return made


def without_streams(specification: dict) -> dict:
    """The specification without what a service that does not stream leaves out."""
    made = copy.deepcopy(specification)
    created = made["paths"]["/chat/completions"]["post"]["responses"]["200"]["content"]
    del created["text/event-stream"]
    return made
