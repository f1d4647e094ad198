"""Texts: the licence of Project Gutenberg is cut off, and long texts become exact passages."""

import pytest
from corpora import load, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lib import tokens
from lib.corpus import texts

BODY = "CHAPTER I\n\nIt began here.\n\nAnd it ended."
HEADER = (
    "The Project Gutenberg EBook of {t}, by {a}\n\nTitle: {t}\n       Part Two\n\nAuthor: {a}\n\n"
)
HEADER = HEADER.format(t="Emma", a="Jane Austen")
LICENCE = "\n\nUpdated editions will replace the previous one.\nSTART: FULL LICENSE\n"
SMALL = "***START**THE SMALL PRINT!**FOR PUBLIC DOMAIN ETEXTS**START***\nWhy is this here?\n"
MARKERS = [
    (
        "*** START OF THIS PROJECT GUTENBERG EBOOK EMMA ***",
        "*** END OF THIS PROJECT GUTENBERG EBOOK EMMA ***",
    ),
    (
        "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***",
        "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***",
    ),
    (
        "***START OF THE PROJECT GUTENBERG EBOOK EMMA***",
        "***END OF THE PROJECT GUTENBERG EBOOK EMMA***",
    ),
    (
        "*** START OF THE PROJECT GUTENBERG EBOOK EMMA, A NOVEL WITH A LONG\nTITLE ***",
        "End of the Project Gutenberg EBook of Emma\n\n*** END OF THIS PROJECT GUTENBERG EBOOK",
    ),
    (
        SMALL + "*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*",
        "End of Project Gutenberg's Emma",
    ),
    (
        SMALL + "*END THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*",
        "End of The Project Gutenberg Etext of Emma",
    ),
    (
        "*** START OF THE PROJECT GUTENBERG EBOOK EMMA ***\n\nProduced by A. Helper and\nthe Team",
        "*** END OF THE PROJECT GUTENBERG EBOOK EMMA ***\n*END*THE SMALL PRINT!",
    ),
    (
        "*** START OF THE COPYRIGHTED PROJECT GUTENBERG EBOOK X ***",
        "*** END OF THE COPYRIGHTED PROJECT GUTENBERG",
    ),
]


@pytest.mark.parametrize(("start", "end"), MARKERS)
def test_gutenberg_licence(start, end):
    """Each generation of markers is known; what is cut is counted to the character."""
    text = f"{HEADER}{start}\n\n\n{BODY}\n\n{end}{LICENCE}"
    cut = texts.gutenberg(text)
    assert cut.text == BODY
    assert text[cut.n_start : len(text) - cut.n_end] == BODY
    assert (cut.title, cut.author) == ("Emma Part Two", "Jane Austen")


NO_LICENCE = [
    BODY,
    f"  {BODY}\n\n",
    "I read *** START OF THE PROJECT GUTENBERG EBOOK in a book.",
    "A review of Project Gutenberg: the end of Project Gutenberg is not near.",
    "",
]


@pytest.mark.parametrize("text", NO_LICENCE)
def test_other_texts_stay_whole(text):
    """A text without marker lines is not touched."""
    assert texts.gutenberg(text) == texts.Cut(text)


def test_header_lines_without_markers():
    """Title and author are read from the first lines of a text that begins with them."""
    cut = texts.gutenberg(f"Title: Emma\nAuthor: Jane Austen\n\n{BODY}")
    assert (cut.title, cut.author, cut.n_start) == ("Emma", "Jane Austen", 0)


def test_a_collection_stays_whole():
    """Where several end markers stand, the last one counts."""
    start, end = MARKERS[1]
    text = f"{start}\n\nOne.\n\n{end}\n\nTwo.\n\n{end}{LICENCE}"
    assert texts.gutenberg(text).text == f"One.\n\n{end}\n\nTwo."


def test_record_of_the_cut(tmp_path):
    """The table says how many characters were cut before and after; nothing else is lost."""
    start, end = MARKERS[0]
    text = f"{HEADER}{start}\n\n{BODY}\n\n{end}{LICENCE}"
    write(tmp_path, "corpus/a.txt", text.replace("\n", "\r\n"))
    write(tmp_path, "corpus/b.txt", f"{HEADER}{start}\n\n{end}")
    found = load(tmp_path)
    row = found.documents.iloc[0]
    assert row["text"] == BODY
    assert row["n_cut_start"] + row["n_document_chars"] + row["n_cut_end"] == len(text)
    assert (row["title"], row["author"]) == ("Emma Part Two", "Jane Austen")
    assert found.detail("empty").endswith("characters of licence were cut off")


def check(text: str, max_tokens: int) -> list[str]:
    """The passages of a text, which must tile it, be exact and keep to the bound."""
    found = list(texts.split(text, max_tokens, tokens.count))
    at = 0
    for passage in found:
        assert not text[at : passage.start].strip()
        piece = text[passage.start : passage.end]
        assert piece
        assert piece == piece.strip()
        assert [passage.n_tokens] == tokens.count([piece])
        assert passage.n_tokens <= max_tokens
        at = passage.end
    assert not text[at:].strip()
    return [text[passage.start : passage.end] for passage in found]


PIECES = st.one_of(
    st.sampled_from(
        [
            *(
                "One. ",
                "Mr. A. B. Smith went home! ",
                "\n\n",
                "\n",
                " ",
                "“Why?” he said. ",
                "x" * 90,
            ),
            *(
                "so-\ncalled ",
                "é" * 30,
                "🧠🧠",
                "e\u0301",
                "。你好吗。",
                "\u2028",
                "\x1f",
                "<|endoftext|>",
            ),
        ]
    ),
    st.text(max_size=20),
)


@settings(max_examples=150)
@given(st.lists(PIECES, max_size=60).map("".join), st.integers(4, 60))
@example("", 50)
@example(" \n ", 50)
@example("a" * 3000, 4)
@example("🧠" * 300, 4)
def test_passages_tile_the_text(text, max_tokens):
    """Passages are exact pieces within the bound, and only white space lies between them."""
    check(text, max_tokens)


def test_passages_end_where_sentences_end():
    """Passages hold whole sentences, as many as fit: the next one would be too much.

    "The cat sat on the mat." is 7 tokens: 3 sentences are 21, a fourth would make 28 of 25.
    """
    found = check("The cat sat on the mat. " * 10, 25)
    assert [piece.count("The cat sat on the mat.") for piece in found] == [3, 3, 3, 1]


def test_abbreviations_do_not_end_sentences():
    """Sentence borders come from a library that knows abbreviations."""
    text = "Mr. Smith met Mrs. Jones at 5 p.m. in St. Ives. They left."
    assert [text[at:] for at in texts.borders(text)][1:] == ["They left."]


@pytest.mark.parametrize(
    "text", ["word " * 30_000, "x" * 100_000, "“" * 100_000, "no end\n" * 9000]
)
def test_sentences_without_end(text):
    """A sentence longer than the bound is cut at white space, a word anywhere; both in no time."""
    found = check(text, 2000)
    if " " in text:
        assert {word for piece in found for word in piece.split()} <= {"word", "no", "end"}


def test_real_novel(shared):
    """A whole novel in passages: they are nearly full, and end where sentences and quotes end."""
    (path,) = (shared / "data" / "gutenberg").glob("1/1206*/*.txt")
    text = texts.normal(path.read_text(encoding="utf-8"))
    found = check(text, 500)
    assert len(found) < 1.1 * tokens.count([text])[0] / 500
    assert sum(piece[-1] in ".?!”\u2019\"'" for piece in found) > 0.95 * len(found)
