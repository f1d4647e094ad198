"""Token counts of texts and of whole requests, without the network.

It counts texts exactly as tiktoken's `encode_ordinary` does: a special token such as
`<|endoftext|>` inside a text is ordinary text. The vocabularies come with toktok; their checksums
are the published ones. It refuses rules of thumb such as bytes per token.

What the service adds to the texts is not published in full. Messages are counted as in OpenAI's
cookbook (examples/How_to_count_tokens_with_tiktoken.ipynb, read November 2026): exact for gpt-3.5
to gpt-4o, and the documented approximation for later models (a published check on gpt-5 had 110
here and 109 in the answer). A schema is counted as its compact JSON, which is our own measure.
"""

import json
from collections.abc import Mapping, Sequence

from lib import errors

CARRIED = ("o200k_base", "cl100k_base", "o200k_harmony")
MESSAGE_TOKENS = 3
NAME_TOKENS = 1
REPLY_TOKENS = 3


def count(texts: Sequence[str], encoding: str = "o200k_base", threads: int = 2) -> list[int]:
    """The number of tokens of each text, in their order.

    Half of a surrogate pair counts as the replacement character, as with tiktoken. An encoding that
    is not carried along is left to tiktoken, which downloads its vocabulary once.

    >>> count(["", "hello world", "<|endoftext|>"])
    [0, 2, 7]
    """
    texts = list(texts)
    if encoding not in CARRIED:
        return _by_tiktoken(texts, encoding)
    import toktok

    try:
        return toktok.batch_count(texts, encoding, threads=threads)
    except UnicodeEncodeError:
        return toktok.batch_count([_mended(text) for text in texts], encoding, threads=threads)


def count_messages(
    messages: Sequence[Mapping[str, str]], encoding: str, response_format: Mapping | None = None
) -> int:
    """The input tokens of one request: its messages, its schema and the start of the reply.

    >>> count_messages([{"role": "user", "content": "Ramen"}], "cl100k_base")
    9
    """
    return _rest(messages, encoding, response_format) + REPLY_TOKENS


def count_requests(
    static: Sequence[Mapping[str, str]],
    contents: Sequence[str],
    encoding: str,
    response_format: Mapping | None = None,
    threads: int = 2,
) -> tuple[int, list[int]]:
    """The tokens of the prefix that all requests share, and the input tokens of each request.

    `static` are the messages before the user message that holds a document, `contents` what that
    message holds in each request. Nothing is tokenised across the border of a message, so the
    prefix is counted once and the sums are those of `count_messages`.
    """
    n_prefix_tokens = _rest(static, encoding, response_format)
    n_frame_tokens = _rest([{"role": "user", "content": ""}], encoding, None) + REPLY_TOKENS
    n_rest_tokens = n_prefix_tokens + n_frame_tokens
    return n_prefix_tokens, [n_rest_tokens + n for n in count(contents, encoding, threads)]


def _rest(
    messages: Sequence[Mapping[str, str]], encoding: str, response_format: Mapping | None
) -> int:
    texts = [text for message in messages for text in message.values()]
    names = [message for message in messages if "name" in message]
    schema = (response_format or {}).get("json_schema", {}).get("schema")
    if schema is not None:
        texts.append(json.dumps(schema, ensure_ascii=False, separators=(",", ":")))
    overhead = MESSAGE_TOKENS * len(messages) + NAME_TOKENS * len(names)
    return overhead + sum(count(texts, encoding, threads=1))


def _mended(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _by_tiktoken(texts: list[str], encoding: str) -> list[int]:
    import tiktoken

    try:
        encoder = tiktoken.get_encoding(encoding)
    except ValueError as error:
        what = f'the encoding "{encoding}" is not known. Carried along: {", ".join(CARRIED)}.'
        raise errors.ModelError(what, encoding=encoding) from error
    except OSError as error:
        what = f'the vocabulary of "{encoding}" is not carried along and cannot be downloaded.'
        fix = f"Connect once, or use a model with one of {', '.join(CARRIED)}."
        raise errors.ModelError(f"{what} {fix}", encoding=encoding) from error
    return [len(encoder.encode_ordinary(text)) for text in texts]
