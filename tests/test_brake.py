"""The brake: canary first, stop at the account's fault, and the next command goes on."""

import itertools
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_wanted import outcomes, requests, with_luna

from lib import brake
from lib.brake import Verdict

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
STUDY = with_luna(fallback=["gpt-6-sol"])
LUNA, SOL = "gpt-6-luna", "gpt-6-sol"
ASKED = requests(*(f"k{n}" for n in range(40)), study=STUDY)
VALID, EMPTY = ("valid",), ("empty",)
BROKEN = ("failed", 500)
NO_ACCESS = ("failed", 403, "model_not_found")
NOT_BATCHABLE = ("failed", 400, "model_not_found")
NO_CREDIT = ("failed", 429, "insufficient_quota")
NO_KEY = ("failed", 401, "invalid_api_key")


def at(minutes):
    """So many minutes after noon."""
    return NOON + timedelta(minutes=minutes)


def history(*batches):
    """Outcomes and shards of batches that ended one minute after they were made: (minute, purpose,
    model, [outcomes])."""
    rows, shards = [], []
    for n, (minute, purpose, model, ends) in enumerate(batches):
        rows += [(f"k{5 * n + m}", 0, model, *end) for m, end in enumerate(ends)]
        shards.append(
            {
                "model": model,
                "purpose": purpose,
                "state": "collected",
                "status": "completed",
                "batch_id": f"b{n}",
                "n_requests": len(ends),
                "n_failed": 0,
                "n_completed": len(ends),
                "submitted_at": at(minute).isoformat(),
                "collected_at": at(minute + 1).isoformat(),
            }
        )
    names = [f"b{n}" for n, batch in enumerate(batches) for _ in batch[3]]
    return outcomes(*rows).assign(batch=pd.Series(names, dtype="str"), param=None), shards


def verdict(batches, minutes, began=None, model=LUNA, running=()):
    """What may be sent to the model so many minutes after noon, by these batches."""
    table, shards = history(*batches)
    began_at = None if began is None else at(began)
    found = brake.verdicts(ASKED, table, [*shards, *running], STUDY, at(minutes), began_at)
    assert all(bool(one.why) == (one.state not in ("open", "canary")) for one in found.values())
    return found[model]


def canary(minute, *ends, model=LUNA):
    """A canary of five lines, all of which ended so, or as said."""
    return (minute, "canary", model, list(ends) * (5 if len(ends) == 1 else 1))


@pytest.mark.parametrize("model", [LUNA, SOL])
def test_a_model_begins_with_a_canary(model):
    """Nothing is known of it: a canary first, and a fallback model is no exception."""
    assert verdict([], 0, model=model) == Verdict("canary")


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ([VALID], "open"),
        ([VALID] * 4 + [EMPTY], "open"),
        ([VALID] * 3 + [EMPTY] * 2, "stopped"),
        ([EMPTY], "stopped"),
        ([VALID] * 4, "canary"),  # four are fewer than a canary has
        ([VALID] * 4 + [BROKEN], "canary"),
        ([VALID] * 4 + [NO_ACCESS], "stopped"),
    ],
)
def test_the_content_of_a_canary_decides(ends, state):
    """Five judged answers, at most a fifth of them bad; at the account's first fault it stops."""
    assert verdict([canary(0, *ends)], 2, began=0).state == state


def test_the_next_model_goes_on():
    """What stops one model says nothing of the others."""
    batches = [canary(0, NO_ACCESS), (0, "canary", SOL, [VALID] * 5)]
    assert verdict(batches, 2, began=0).state == "stopped"
    assert verdict(batches, 2, began=0, model=SOL).state == "open"


@pytest.mark.parametrize("fault", [NO_CREDIT, NO_KEY])
def test_credit_and_key_stop_every_model(fault):
    """They are the account's: no other model is tried in vain."""
    batches = [(0, "canary", SOL, [VALID] * 5), canary(1, fault)]
    for model in (LUNA, SOL):
        assert verdict(batches, 2, began=0, model=model).state == "stopped"
    later = [*batches, canary(9, VALID)]
    assert verdict(later, 20, began=8, model=SOL).state == "open"


@pytest.mark.parametrize("fault", [NO_ACCESS, NOT_BATCHABLE, NO_CREDIT, NO_KEY])
def test_the_same_command_goes_on_once_the_cause_is_gone(fault):
    """Seen by this command: stopped. The next sends a canary, and its answers open the model."""
    first = [canary(0, fault)]
    assert verdict(first, 2, began=0).state == "stopped"
    assert verdict(first, 60, began=0).state == "stopped"  # the same command never tries again
    assert verdict(first, 2, began=1.5) == Verdict("canary")
    assert verdict([*first, canary(2, VALID)], 4, began=1.5) == Verdict("open")


def test_commands_without_a_person_do_not_loop():
    """Each canary in vain makes the pause before the next longer: 0, 1, 2, … up to 60 minutes."""
    batches, waits = [], []
    for minute in range(75):
        if verdict(batches, minute + 0.5, began=minute + 0.5).state == "canary":
            batches.append(canary(minute, NO_CREDIT))
            waits.append(minute)
    assert waits[:2] == [0, 1]  # a canary ends a minute after it was made
    gaps = [later - earlier for earlier, later in itertools.pairwise(waits[1:])]
    assert gaps == [1 + pause for pause in (1, 2, 4, 8, 16, 32)]


def test_a_main_batch_that_loses_its_credit_stops_and_goes_on():
    """Thirty valid lines and one without credit: stopped; a canary that passes opens it again,
    although a straggler of before ends later, blocked as well, which asks for one more canary.
    """
    main = (10, "main", LUNA, [VALID] * 4 + [NO_CREDIT])
    good = canary(0, VALID)
    assert verdict([good, main], 20, began=5).state == "stopped"
    assert verdict([good, main], 20, began=15) == Verdict("canary")
    passed = [good, main, canary(20, VALID)]
    assert verdict(passed, 30, began=15) == Verdict("open")
    assert verdict([*passed, (25, "main", LUNA, [NO_CREDIT])], 30, began=28).state == "canary"


def test_canaries_that_the_service_fails_are_tried_with_growing_pauses():
    """The first is repeated at once, the second after a minute; after three of three a person is
    asked, and their next command tries again after the pause.
    """
    batches = [canary(0, BROKEN)]
    assert verdict(batches, 1, began=0) == Verdict("canary")
    batches.append(canary(1, ("expired",)))
    held = verdict(batches, 2.5, began=0)
    assert (held.state, held.until) == ("paused", at(3))
    assert "It is tried again at 12:03 UTC." in held.why
    assert verdict(batches, 3, began=0) == Verdict("canary")
    batches.append(canary(3, ("missing",)))
    assert verdict(batches, 9, began=0).state == "stopped"
    assert verdict(batches, 5, began=4.5).state == "stopped"
    assert verdict(batches, 6, began=4.5) == Verdict("canary")
    assert verdict([*batches, canary(7, VALID)], 9, began=4.5) == Verdict("open")


def test_main_batches_that_the_service_fails_are_no_canaries():
    """An outage that lets whole batches expire stops nobody: their lines are asked again."""
    batches = [canary(0, VALID), *[(1, "main", LUNA, [("expired",)] * 5)] * 4]
    assert verdict(batches, 3, began=0) == Verdict("open")


def running(n_failed, n_completed, status="in_progress", model=LUNA):
    """A batch that runs, by the service's counts."""
    counts = {"n_failed": n_failed, "n_completed": n_completed, "n_requests": 1000}
    named = {"model": model, "state": "submitted", "status": status, "batch_id": "b"}
    return {**named, **counts, "purpose": "main"}


@pytest.mark.parametrize(
    ("shard", "state"),
    [
        (running(0, 0), "open"),
        (running(None, None, status="validating"), "open"),
        (running(4, 0), "open"),  # fewer than a canary has
        (running(5, 0), "braked"),
        (running(20, 80), "open"),  # a fifth is the bound itself
        (running(21, 79), "braked"),
        (running(21, 79, status="finalizing"), "braked"),
        (running(21, 79, status="completed"), "open"),  # the lines will tell
        (running(900, 100, model=SOL), "open"),
    ],
)
def test_a_running_batch_that_fails_holds_its_model_back(shard, state):
    """More than a fifth of the lines that the service counts as ended have failed."""
    found = verdict([canary(0, VALID)], 2, running=[shard])
    assert found.state == state
    if state == "braked":
        assert "failed so far in batch b, more than 20%" in found.why


def test_what_is_said_of_a_refused_model():
    """The sentence names model, fault, remedy, and that the same command goes on."""
    table, shards = history(canary(0, NO_ACCESS))
    table["message"] = "Project proj_1 does not have access to model gpt-6-luna-batch"
    said = brake.verdicts(ASKED, table, shards, STUDY, at(2), at(0))[LUNA].why
    assert said == (
        "stopped: gpt-6-luna is refused to this account (gpt-6-luna: 5 x failed model_not_found "
        "Project proj_1 does not have access to model gpt-6-luna-batch). The project has no access "
        "to this model in the Batch API: allow it in the project's settings, or take another model "
        "in study.yml. Nothing more is sent to it; the same command tries it again with a canary."
    )


ENDS = [VALID, EMPTY, BROKEN, NO_ACCESS, NO_CREDIT, ("expired",), ("invalid",), ("failed", 400)]


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 300),
            st.sampled_from(["canary", "main"]),
            st.sampled_from([LUNA, SOL]),
            st.lists(st.sampled_from(ENDS), min_size=1, max_size=5),
        ),
        max_size=8,
    ),
    st.integers(0, 400),
)
def test_no_model_is_open_after_the_accounts_fault(batches, minute):
    """Whatever has happened, a model is open only when answers came to what was sent after its
    last refusal, and a new command is never stopped for longer than an hour by what may pass.
    """
    table, shards = history(*batches)
    for model, found in brake.verdicts(ASKED, table, shards, STUDY, at(minute), at(minute)).items():
        mine = [batch for batch in batches if batch[2] == model]
        blocked = [start + 1 for start, _, _, ends in mine if {NO_ACCESS, NO_CREDIT} & {*ends}]
        answered = [
            start
            for start, _, _, ends in mine
            if {VALID, EMPTY, ("invalid",), ("failed", 400)} & {*ends}
            and not {NO_ACCESS, NO_CREDIT} & {*ends}
        ]
        if found.state == "open" and blocked:
            assert max(answered) > max(blocked)
        if found.until:
            assert at(minute) < found.until <= at(minute + 60)
        assert found.state != "open" or answered
