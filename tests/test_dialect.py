"""What services say differently, in the Batch API's own form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import dialect, pacing, services
from lib.services import Facts

AZURE = services.find("azure")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("completed", "completed"),
        ("Completed", "completed"),
        ("canceled", "cancelled"),
        ("CANCELLING", "cancelling"),
        ("canceling", "cancelling"),
        ("queued", "queued"),
        (None, None),
        (3, 3),
    ],
)
def test_status_words(said, shown):
    """American spelling, capitals are the API's word; an unknown one stays and is waited for."""
    assert dialect.batch(Facts(), {"id": "b", "status": said})["status"] == shown


def test_own_words_of_a_service():
    """A row's words come first."""
    facts = Facts(statuses={"done": "completed", "running": "in_progress"})
    assert dialect.batch(facts, {"id": "b", "status": "Done"})["status"] == "completed"


@pytest.mark.parametrize(
    ("counts", "error_file_id", "shown"),
    [
        ({"total": 9, "completed": 0, "failed": 9}, "file-e", "completed"),
        ({"total": 9, "completed": 4, "failed": 0}, "file-e", "completed"),
        ({"total": 9, "completed": None, "failed": None}, "file-e", "failed"),
        ({"total": 0, "completed": 0, "failed": 0}, "", "failed"),
        (None, None, "failed"),
    ],
)
def test_a_batch_that_ran_and_is_called_failed_is_read(counts, error_file_id, shown):
    """Where every line failed, some say failed: lines ran and may be paid, so its files count."""
    found = {"id": "b", "status": "failed", "request_counts": counts}
    assert dialect.batch(Facts(), {**found, "error_file_id": error_file_id})["status"] == shown


def test_empty_file_ids_are_none():
    """Azure writes an empty text where others write null."""
    shown = dialect.batch(AZURE, {"id": "b", "output_file_id": "", "error_file_id": ""})
    assert (shown["output_file_id"], shown["error_file_id"]) == (None, None)


@pytest.mark.parametrize(
    ("errors", "codes"),
    [
        ({"object": "list", "data": [{"code": "url_mismatch"}]}, ["invalid_url"]),
        ({"data": [{"code": "Too_Many_Tasks"}]}, ["too_many_requests_in_file"]),
        ([{"code": "model_mismatch"}], ["mismatched_model"]),
        ({"code": "empty_file", "message": "The input file is empty."}, ["empty_file"]),
        ("it broke", [None]),
        ({"data": []}, None),
        ({"data": ["x"]}, None),
        (None, None),
        (3, None),
    ],
)
def test_error_lists(errors, codes):
    """A list, a bare object or a text becomes the API's list with our codes, or nothing."""
    shown = dialect.batch(AZURE, {"id": "b", "errors": errors})["errors"]
    assert shown == codes or [one["code"] for one in shown["data"]] == codes


@pytest.mark.parametrize(
    ("figure", "limit"),
    [("30K", 30_000), ("1.5M", 1_500_000), ("15B", 15_000_000_000), ("90,000", 90_000)],
)
def test_azures_word_for_a_full_queue_teaches_the_limit(figure, limit):
    """The sentence of a real refusal, from which `pacing` reads the figure as from OpenAI's."""
    said = f"The number of enqueued tokens has surpassed the configured limit of {figure} for the"
    found = {"code": "token_limit_exceeded", "message": f"{said} deployment 'gpt-4.1-batch'."}
    told = dialect.fault(AZURE, found)["message"]
    assert told.startswith(said)
    assert pacing.learned_limit(told) == limit


def test_times_are_seconds():
    """Floats and ISO texts are times too; what is none is nothing, and created_at is a number."""
    found = {"id": "b", "created_at": 5.0, "expires_at": "2026-01-01T00:00:00Z", "failed_at": "x"}
    shown = dialect.batch(Facts(), found)
    assert (shown["created_at"], shown["expires_at"], shown["failed_at"]) == (5, 1767225600, None)
    assert dialect.batch(Facts(), {"id": "b"})["created_at"] == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = ["status", "errors", "request_counts", "metadata", "created_at", "expires_at"]
MEMBERS += ["output_file_id", "error_file_id"]


@given(st.dictionaries(st.sampled_from(MEMBERS), JSON))
def test_no_answer_breaks_the_boundary(found):
    """Whatever stands in an answer, there is a batch with a list of errors, counts and times."""
    shown = dialect.batch(AZURE, {"id": "b", **found})
    assert shown["errors"] is None or shown["errors"]["data"]
    assert isinstance(shown["metadata"], dict)
    assert all(isinstance(n, int) for n in (shown["request_counts"] or {}).values())
    assert dialect.batch(AZURE, shown) == shown
