"""What the service says when it refuses: sentences as data, and the two shapes that carry them.

A sentence without a mark was recorded from the real service, or is quoted by many of its users.
Where the real wording is not known the sentence passes through `ours`, which marks its end, so
that nobody builds a client on a guess. Nothing here decides when a sentence is used.
"""

from lib import errors

MISSING = "Missing required parameter: '{}'."
WRONG_TYPE = "Invalid type for '{}': expected {}, but got {} instead."
WRONG_VALUE = "Invalid value: '{}'. Supported values are: {}."
UNKNOWN_PARAMETER = "Unknown parameter: '{}'."
NO_TOKEN = "Missing bearer or basic authentication in header"  # noqa: S105 - a sentence
NO_ROUTE = "Invalid URL ({} {})"
NO_BATCH = "No batch found with id '{}'."
NOT_A_BATCH_ID = "Invalid 'batch_id': '{}'. Expected an ID that begins with 'batch'."
CANNOT_CANCEL = "Cannot cancel a batch with status '{}'."
NO_FILE = "No such File object: {}"
NO_DOWNLOAD = "Not allowed to download files of purpose: {}"
NO_MODEL = "The model `{}` does not exist or you do not have access to it."
NOT_JSONL = "Invalid file format for Batch API. Must be .jsonl"
TOO_LARGE = "File is too large."
SERVER_ERROR = "The server had an error while processing your request. Sorry about that!"

NOT_JSON_LINE = "This line is not parseable as valid JSON."
WRONG_URL = "The URL provided for this request does not match the batch endpoint."
NOT_BATCHABLE = "The provided model '{}' is not supported by the Batch API."
STREAMING = "Chat Completions: Streaming is not supported in the Batch API."
NO_STREAM = "Responses: Streaming is not supported in the Batch API."
OTHER_MODEL = (
    "The model '{}' for this request does not match the rest of the batch."
    " Each batch must contain requests for a single model."
)
DUPLICATE = (
    "The custom_id '{}' for this request is a duplicate of another request."
    " The custom_id parameter must be unique for each request in a batch."
)
QUEUE_FULL = (
    "Enqueued token limit reached for {} in organization {}. Limit: {:,} enqueued tokens."
    " Please try again once some in_progress batches have been completed."
)
CANNOT_FIND_FILE = "Cannot find file {}, or organization {} does not have access to it."

EXPIRED = "This request could not be executed before the completion window expired."
TOO_LONG = (
    "This model's maximum context length is {} tokens. However, you requested {} tokens"
    " ({} in the messages, {} in the completion)."
    " Please reduce the length of the messages or completion."
)
NO_WORD_JSON = (
    "'messages' must contain the word 'json' in some form, to use 'response_format' of type"
    " 'json_object'."
)

ORGANIZATION = "org-local"


def ours(text: str) -> str:
    """A sentence whose real wording is not known, marked as this service's own.

    >>> ours("There are no requests in the file.")
    'There are no requests in the file. (text chosen by the local service)'
    """
    return f"{text} (text chosen by the local service)"


CANCELLED = ours("This request was not executed because the batch was cancelled.")


def refusal(
    status: int,
    message: str,
    param: str | None = None,
    code: str | None = None,
    kind: str = "invalid_request_error",
) -> errors.ServiceError:
    """An exception that the application turns into an HTTP answer with this status."""
    return errors.ServiceError(message, status=status, param=param, code=code, kind=kind)


def missing(name: str) -> errors.ServiceError:
    """The refusal of a body that lacks a member."""
    return refusal(400, MISSING.format(name), name, "missing_required_parameter")


def wrong_type(name: str, expected: str, value: object) -> errors.ServiceError:
    """The refusal of a member whose JSON type is another one.

    >>> str(wrong_type("metadata.tags", "a string", []))
    "Invalid type for 'metadata.tags': expected a string, but got an array instead."
    """
    message = WRONG_TYPE.format(name, expected, json_type(value))
    return refusal(400, message, name, "invalid_type")


def wrong_value(name: str, message: str) -> errors.ServiceError:
    """The refusal of a member whose value is outside the allowed ones."""
    return refusal(400, message, name, "invalid_value")


def supported(value: object, values: tuple[str, ...]) -> str:
    """The sentence that lists the allowed values.

    >>> supported("b", ("a", "c", "d"))
    "Invalid value: 'b'. Supported values are: 'a', 'c', and 'd'."
    """
    quoted = [f"'{name}'" for name in values]
    listed = ", ".join([*quoted[:-1], f"and {quoted[-1]}"]) if len(quoted) > 1 else quoted[0]
    return WRONG_VALUE.format(value, listed)


def error_object(error: errors.ServiceError) -> dict:
    """The JSON body of an error answer, also used in a line of an error file."""
    facts = {"type": error.kind, "param": error.param, "code": error.code}
    body = {"error": {"message": str(error), **facts}}
    if str(error) == NOT_JSONL:
        body["detail"] = {"message": NOT_JSONL, "code": error.code}
    return body


def line_error(code: str, message: str, param: str | None, line: int | None) -> dict:
    """An item of a failed batch's `errors.data`; `line` counts from 1."""
    return {"code": code, "message": message, "param": param, "line": line}


def json_type(value: object) -> str:
    """What the API calls the JSON type of a parsed value, with its article.

    >>> json_type(None), json_type(True), json_type(1.5), json_type({})
    ('null', 'a boolean', 'a decimal', 'an object')
    """
    names = {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a decimal",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names[type(value)]
