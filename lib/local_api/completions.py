"""The routes of /v1/models and /v1/chat/completions.

A single request passes the same checks and annotators as a line of a batch.
"""

import math

from starlette.requests import Request
from starlette.responses import Response

from lib import errors, models
from lib.local_api import answering, clock, context, params, relay, texts, workers


def as_object(model: models.Model, name: str) -> dict:
    """A model as the API shows it; when it was created is not known here."""
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "openai",
        "shutdown_date": model.shutdown_at.isoformat() if model.shutdown_at else None,
    }


async def models_list(_: Request) -> Response:
    """GET /v1/models: the models that are not shut down."""
    listed = [as_object(one, name) for name, one in models.load().items() if not _is_gone(one)]
    return params.pretty({"object": "list", "data": listed})


async def model(request: Request) -> Response:
    """GET /v1/models/{model}."""
    name = request.path_params["model"]
    return params.pretty(as_object(_known(name), name))


async def create(request: Request) -> Response:
    """POST /v1/chat/completions, answered as a whole; an upstream is asked once."""
    service = request.app.state.service
    body = await params.json_object(request, context.MAX_LINE_BYTES)
    name = body.get("model")
    if name is None:
        raise texts.missing("model")
    if not isinstance(name, str):
        raise texts.wrong_type("model", "a string", name)
    if service.upstream is None:
        _known(name)
    if body.get("stream"):
        message = texts.ours("The local service does not stream: leave out 'stream'.")
        raise texts.refusal(400, message, "stream", "unsupported_value")
    if service.upstream:
        reply = await relay.pass_on(service, body)
        answer = params.compact(reply.body, reply.status)
        if reply.retry_after is not None:
            answer.headers["retry-after"] = f"{math.ceil(reply.retry_after)}"
        return answer
    now = int(clock.now(service.clock))
    status, answer = await workers.run(service, answering.answer_single, body, now)
    return params.compact(answer, status)


async def no_embeddings(_: Request) -> Response:
    """POST /v1/embeddings: refused in clear words, since nothing here can make any."""
    message = texts.ours("The local service makes no embeddings: ask /v1/chat/completions.")
    raise texts.refusal(400, message, None, "unsupported_endpoint")


def _known(name: str) -> models.Model:
    """The facts of a model that can be used today; raises the 404 of the API."""
    try:
        model = models.facts(name)
    except errors.ModelError as error:
        raise _unknown(name) from error
    if _is_gone(model):
        raise _unknown(name)
    return model


def _is_gone(model: models.Model) -> bool:
    """Whether a model has been shut down by today."""
    return models.is_retired(model, clock.today())


def _unknown(name: str) -> errors.ServiceError:
    """The refusal of a model that the API does not have."""
    return texts.refusal(404, texts.NO_MODEL.format(name), None, "model_not_found")
