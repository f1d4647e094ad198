"""Runs that are killed at random while a fault of the service strikes, until they are done."""

import dataclasses
import random
import shutil

import judge
import killing
import naive
import reading
from killing import KILLED, SHAPES

# Faults of the service that may strike while commands are killed, with options; seconds are those
# of the service. Each strikes a few times: the same command must end well without any help.
ONCE, FEW = {"count": 1}, {"count": 2}
SOME = {"probability": 0.4, "count": 4}
FAULTS = {
    **dict.fromkeys(["connection_dropped", "error_500_before", "html_502", "html_503"], SOME),
    **dict.fromkeys(["html_504", "rate_limited", "rate_limited_silently", "conflict"], SOME),
    **dict.fromkeys(["error_500_after", "answer_cut", "answer_shortened"], SOME),
    **dict.fromkeys(["answer_in_html", "answer_without_id", "answer_with_empty_id"], SOME),
    **dict.fromkeys(["unknown_status", "file_ids_empty", "created_early"], SOME),
    **dict.fromkeys(["status_backwards", "counts_backwards", "counts_wrong"], SOME),
    **dict.fromkeys(["upload_answer_lost", "create_answer_lost", "not_ours"], FEW),
    **dict.fromkeys(["content_cut", "content_short", "content_gone", "content_502"], FEW),
    **dict.fromkeys(["queue_full", "file_not_found", "expires_early", "cancels_itself"], FEW),
    **dict.fromkeys(["lines_doubled", "lines_in_both", "lines_foreign"], FEW),
    **dict.fromkeys(["lines_status_0", "lines_429", "lines_500", "lines_null_content"], FEW),
    "lines_contradict": {"probability": 0.3, "count": 6},
    **dict.fromkeys(["lines_missing", "lines_no_credit"], ONCE),
    "service_down": {"count": 2, "seconds": 0.2},
    "request_hangs": {"count": 1, "seconds": 0.3},
    "rate_limited_until_date": FEW,
    "hidden_after_create": {"seconds": 60},
    "list_lags": {"seconds": 90},
    "list_repeats": True,
    "queue_limit": {"tokens": 600},
    "fails_validation": {"count": 1, "lines": 1},
    **dict.fromkeys(["stuck_validating", "stuck_in_progress", "stuck_finalizing"], ONCE),
}
# What spoils answers stops a run whose study does not bear it: that is no end to be recovered from.
SPOILING = {"lines_null_content", "lines_contradict", "fails_validation"}
LENIENT = [name for name, shape in SHAPES.items() if shape.get("max_failure_share") == 1.0]
FAULTY_SHARE = 0.7
MAX_USD = 1.0  # of simulated money: half of the runs believe that it is real
MAX_KILLS, MAX_CALM = 12, 8
CALM = {"kill_after": 60.0}  # what hangs so long is not coming back
# At most such a part of the time that a run takes when nobody kills it; more for each command.
LONGEST_LIFE = 0.25


@dataclasses.dataclass(frozen=True)
class Disturbed:
    """What became of a run that was killed at random."""

    seed: str
    shape: str
    fault: str
    ends: list[dict]
    violations: list[judge.Violation]
    n_requests: int
    n_valid: int

    @property
    def n_kills(self) -> int:
        """How often its command was killed."""
        return sum(end["code"] == KILLED for end in self.ends)

    def __str__(self) -> str:
        """All that is needed to do it again."""
        codes = [end["code"] for end in self.ends]
        return f"seed {self.seed}, {self.shape}, {self.fault or 'no fault'}, {codes}"


def disturb(at, seed):
    """A run of a shape and with a fault that the seed decides, killed at random until it is done.

    The command is the same all the while. After some kills it is left alone; when it does not
    finish then, the cause is taken away: the fault is switched off.
    """
    chance = random.Random(seed)
    shape = chance.choice(list(SHAPES))
    fault = chance.choice(list(FAULTS)) if chance.random() < FAULTY_SHARE else ""
    shape = chance.choice(LENIENT) if fault in SPOILING else shape
    max_usd = chance.choice([0.0, MAX_USD])
    results = killing.undisturbed(at, shape)
    run = at.copy(shape)
    before = judge.look(at.endpoint)
    if fault:
        judge.switch(at.endpoint, chance.randrange(1 << 30), **{fault: FAULTS[fault]})
    with reading.Reader(run.folder) as reader:
        longest = LONGEST_LIFE * killing.calm(at, shape).seconds
        ends = _kill_until_done(at, at.command(run, max_usd=max_usd), chance, longest)
    judge.switch(at.endpoint)
    more = {"results": results, "readings": reader.readings, "max_usd": MAX_USD}
    found = killing.judged_again(at, run, before, ends, **more)
    outcomes = judge.read_outcomes(run)
    n_valid = outcomes.loc[outcomes["outcome"].eq("valid"), "key"].nunique()
    n_requests = run.table("requests")["key"].nunique()
    shutil.rmtree(run.folder.parent)
    return Disturbed(seed, shape, fault, ends, found, n_requests, n_valid)


def _kill_until_done(at, command, chance, longest):
    """The ends of one command, given again and again until it is done; the first of them lives for
    at most the `longest` seconds.
    """
    ends = []
    while len(ends) < MAX_KILLS + MAX_CALM:
        if len(ends) > MAX_KILLS:
            judge.switch(at.endpoint)
        life = chance.uniform(0.0, longest * (1 + len(ends) / 8))
        more = {"kill_after": life} if len(ends) < MAX_KILLS else CALM
        more |= {"hours": 0.2 if len(ends) <= MAX_KILLS else 2.0}
        ends += at.ask({**command, **more})
        if ends[-1]["code"] == 0:
            break
    return ends


def disturb_often(places, seed, n_kills, work=disturb):
    """Runs, disturbed until there were at least so many kills in all."""
    found = []
    while (n_left := n_kills - sum(one.n_kills for one in found)) > 0:
        n_runs = max(len(places), n_left // MAX_KILLS)
        seeds = [f"{seed} {len(found) + n}" for n in range(n_runs)]
        found += killing.spread(places, seeds, work)
    return found


def disturb_naive(at, seed):
    """The same for the naive client: kills, faults, and the same command until it is done."""
    chance = random.Random(seed)
    fault = chance.choice(list(FAULTS)) if chance.random() < FAULTY_SHARE else ""
    longest = LONGEST_LIFE * killing.calm(at, "small shards", "naive").seconds
    run = at.copy("small shards")
    before = judge.look(at.endpoint)
    if fault:
        judge.switch(at.endpoint, chance.randrange(1 << 30), **{fault: FAULTS[fault]})
    ends = _kill_until_done(at, at.command(run, "naive"), chance, longest)
    judge.switch(at.endpoint)
    found = judged_naively(at, run, before)
    n_requests, n_rows = run.table("requests")["key"].nunique(), len(set(naive.results(run)))
    shutil.rmtree(run.folder.parent)
    return Disturbed(seed, "naive", fault, ends, found, n_requests, n_rows)


def judged_naively(at, run, before):
    """The violations that can be found without a ledger: paid twice, lost, doubled, orphans."""
    seen, rows = judge.since(before, at.endpoint), naive.results(run)
    known = {one[kind] for one in naive.read(run).values() for kind in ("file", "batch")}
    gone = set(judge.answers(seen)) - set(rows)
    lost = [judge.Violation("I2", f"paid and lost: {gone}", "lost", len(gone))] if gone else []
    twice, doubled = judge.paid_twice(seen), judge.doubled(rows)
    return [*twice, *lost, *doubled, *judge.orphans(seen, known)]
