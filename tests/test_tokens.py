"""Token counts: as tiktoken gives them, and as the service reported them."""

import base64
import hashlib
import json

import pytest
import tiktoken
import toktok
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import errors, tokens

# The addresses and checksums under which tiktoken knows the vocabularies (openai_public.py).
ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
SHA256 = {
    "o200k_base": "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    "cl100k_base": "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
}


def vocabulary(encoding: str) -> bytes:
    """The vocabulary that toktok carries, written as the file that tiktoken downloads."""
    values = toktok._encoding(encoding).token_byte_values()
    return b"".join(b"%s %d\n" % (base64.b64encode(v), rank) for rank, v in enumerate(values))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The encodings of tiktoken itself, fed from files instead of the network."""
    cache = tmp_path_factory.mktemp("tiktoken")
    for encoding in SHA256:
        name = hashlib.sha1(ADDRESS.format(encoding).encode()).hexdigest()
        (cache / name).write_bytes(vocabulary(encoding))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        yield {encoding: tiktoken.get_encoding(encoding) for encoding in SHA256}


@pytest.mark.parametrize("encoding", SHA256)
def test_vocabulary_is_the_published_one(encoding):
    """The vocabulary inside toktok is byte for byte the file whose checksum tiktoken pins."""
    assert hashlib.sha256(vocabulary(encoding)).hexdigest() == SHA256[encoding]


HOSTILE = [
    "",
    " ",
    "\n\r\n\t \n",
    "<|endoftext|><|endofprompt|><|im_start|>user",
    "\x00\x01\x7f\ufeff\ufffd",
    "\u2028\u2029\x85\u00a0\u200b\u202e",
    "e\u0301\u0323 Z" + "\u0310" * 300,
    "👨‍👩‍👧‍👦🏳️‍🌈🇬🇧",
    "ﷺ" * 50,
    "नमस्ते ሰላም 你好 Привет שלום ٣٤٥",
    "a" * 5_000,
    " " * 5_000,
    "1" * 1_001,
    "\ud800 first half",
    "last half \udfff",
    "\ud83d\ude00 both halves",
    "don't DON'T d\u2019ont",
    "\U0010ffff\U000e0001",
]


@pytest.mark.parametrize("encoding", SHA256)
def test_hostile_texts_count_as_with_tiktoken(reference, encoding):
    """Special tokens, control characters, marks, emoji and broken surrogates count the same."""
    expected = [len(reference[encoding].encode_ordinary(text)) for text in HOSTILE]
    assert tokens.count(HOSTILE, encoding) == expected
    assert tokens._by_tiktoken(HOSTILE, encoding) == expected


@pytest.mark.parametrize("encoding", SHA256)
def test_any_text_counts_as_with_tiktoken(reference, encoding):
    """Whatever Unicode comes, the count is tiktoken's."""

    @settings(max_examples=150)
    @given(st.lists(st.text(st.characters(codec=None)), max_size=8))
    def same(texts):
        expected = [len(reference[encoding].encode_ordinary(text)) for text in texts]
        assert tokens.count(texts, encoding) == expected

    same()


def test_real_books_count_as_with_tiktoken(reference, shared):
    """Passages of real books count the same."""
    texts = [
        path.read_text(encoding="utf-8", errors="replace")[:20_000]
        for path in sorted((shared / "data" / "gutenberg").rglob("*.txt"))[:10]
    ]
    assert texts, "no books were found"
    expected = [len(reference["o200k_base"].encode_ordinary(text)) for text in texts]
    assert tokens.count(texts) == expected


@pytest.mark.parametrize(
    ("content", "n_tokens"),
    [("Spagetti", 10), ("Sushi", 9), ("Ramen", 9)],
)
def test_recorded_batch_usage(content, n_tokens):
    """The prompt_tokens that real gpt-3.5-turbo batches reported in January 2025.

    "Ramen" is 2 tokens: 3 for the message + 1 for "user" + 2 + 3 for the start of the reply = 9.
    """
    messages = [{"role": "user", "content": content}]
    assert tokens.count_messages(messages, "cl100k_base") == n_tokens


COOKBOOK = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon"
        " into plain English.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "New synergies will help drive top-line growth.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities"
        " for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client"
        " deliverable.",
    },
]


@pytest.mark.parametrize(("encoding", "n_tokens"), [("o200k_base", 124), ("cl100k_base", 129)])
def test_cookbook_example(encoding, n_tokens):
    """The published example: 124 tokens with gpt-4o and 129 with gpt-4, as the service answered."""
    assert tokens.count_messages(COOKBOOK, encoding) == n_tokens


def test_schema_is_counted_as_compact_json():
    """A schema adds the tokens of its compact JSON, and other formats add nothing."""
    schema = {"type": "object", "properties": {"größe": {"type": "string"}}}
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    (n_schema_tokens,) = tokens.count(
        [json.dumps(schema, separators=(",", ":"), ensure_ascii=False)]
    )
    messages = [{"role": "user", "content": "x"}]
    plain = tokens.count_messages(messages, "o200k_base")
    assert tokens.count_messages(messages, "o200k_base", response_format) == plain + n_schema_tokens
    assert tokens.count_messages(messages, "o200k_base", {"type": "json_object"}) == plain


@settings(max_examples=50)
@given(
    st.lists(st.text(), max_size=2),
    st.lists(st.text(), max_size=4),
    st.dictionaries(st.text(), st.text()),
)
def test_requests_are_prefix_plus_document(instructions, contents, schema):
    """Counting the prefix once gives exactly what counting each request as a whole gives."""
    static = [{"role": "developer", "content": text} for text in instructions]
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    _, counted = tokens.count_requests(static, contents, "o200k_base", response_format)
    assert counted == [
        tokens.count_messages(
            [*static, {"role": "user", "content": content}], "o200k_base", response_format
        )
        for content in contents
    ]


def test_prefix_is_what_requests_share():
    """3 for the message + 1 for its role + 2 for its words = 6; "Ramen" adds 3 + 1 + 2 + 3 = 9."""
    static = [{"role": "system", "content": "hello world"}]
    assert tokens.count_requests(static, ["Ramen", ""], "o200k_base") == (6, [15, 13])


def test_unknown_encoding():
    """An encoding that nobody knows is refused with those that are carried along."""
    with pytest.raises(errors.ModelError, match=r"o200k_bass.*Carried along: o200k_base"):
        tokens.count(["x"], "o200k_bass")
