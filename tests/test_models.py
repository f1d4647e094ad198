"""Facts about models: the table itself, own price files, and what stops before anything is sent."""

import datetime
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib import errors, models

TODAY = datetime.date(2026, 11, 22)


def price_file(folder: Path, text: str) -> Path:
    """An own file of model facts with this text."""
    path = folder / "prices.yml"
    path.write_text(text, encoding="utf-8")
    return path


# --- the table


def test_batch_is_half_of_standard():
    """Every known batch price is half of the standard one, as the price page says."""
    priced = [model for model in models.load().values() if model.price]
    assert len(priced) >= 19
    for model in priced:
        assert model.price.input_usd * 2 == pytest.approx(model.standard.input_usd), model.name
        assert model.price.output_usd * 2 == pytest.approx(model.standard.output_usd), model.name


def test_every_price_has_a_day_and_a_source():
    """No price stands without the day and the page that it was read from."""
    for model in models.load().values():
        if model.price:
            assert datetime.date(2026, 9, 1) <= model.priced_at <= TODAY, model.name
            assert "openai.com" in model.source, model.name


def test_replacements_can_be_used():
    """Whoever shuts down has a replacement that is priced, batchable and stays for longer."""
    table = models.load()
    leaving = [model for model in table.values() if model.shutdown_at]
    assert len(leaving) >= 14
    for model in leaving:
        assert models.check(model.replacement, {}, TODAY) == [], model.name
        assert table[model.replacement].shutdown_at is None


@pytest.mark.parametrize(
    ("name", "usd", "window", "queue"),
    [
        ("gpt-6-luna", (0.05, 0.005, 0.25), (1_050_000, 128_000), {1: 5_000_000, 3: 40_000_000}),
        ("gpt-6.1-terra", (0.5, 0.025, 2.5), (None, None), {1: 1_500_000, 4: 200_000_000}),
        ("gpt-5-mini", (0.125, 0.0125, 1), (400_000, 128_000), {1: 5_000_000, 2: 20_000_000}),
        ("gpt-5-nano", (0.025, 0.0025, 0.2), (400_000, 128_000), {1: 2_000_000, 5: 15_000_000_000}),
        ("gpt-4o-mini", (0.075, None, 0.3), (128_000, 16_384), {3: 40_000_000}),
        ("gpt-4o", (1.25, None, 5), (128_000, 16_384), {1: 90_000, 2: 1_350_000, 3: None}),
        ("gpt-4.1-mini", (0.2, None, 0.8), (None, None), {1: None}),
    ],
)
def test_facts(name, usd, window, queue):
    """Prices, windows and queue limits are those of the pages, and unknown ones are None."""
    model = models.facts(name)
    assert (model.price.input_usd, model.price.cached_usd, model.price.output_usd) == usd
    assert (model.context_tokens, model.max_output_tokens) == window
    assert {tier: model.queue_tokens.get(tier) for tier in queue} == queue


def test_snapshots_have_the_facts_of_their_base():
    """A dated name is its base model; another suffix is another model."""
    assert models.facts("gpt-5-mini-2025-08-07") is models.facts("gpt-5-mini")
    with pytest.raises(errors.ModelError, match=r'Did you mean "gpt-5-mini"\?'):
        models.facts("gpt-5-mini-turbo")


def test_import_is_light():
    """The local service imports the table without pandas or the SDK."""
    heavy = "{'pandas', 'numpy', 'openai', 'duckdb'}"
    code = f"import sys, lib.models; sys.exit(len({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what stops a study


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        (
            "gpt-5.1-chat-latest",
            {},
            "gpt-5.1-chat-latest was shut down on 2026-07-23 and is not available in the Batch API."
            " Use gpt-6.1-sol instead.",
        ),
        ("o4-mini", {}, "o4-mini was shut down on 2026-10-23. Use gpt-6.1-terra instead."),
        ("gpt-4.1-nano", {}, "was shut down on 2026-10-23. Use gpt-6-luna instead."),
        (
            "gpt-5-nan",
            {},
            'no facts for model "gpt-5-nan". Did you mean "gpt-5-nano"?'
            " Add a row to data/models.yml.",
        ),
        ("gpt-5.1-mini", {}, 'no facts for model "gpt-5.1-mini".'),
        ("gpt-5.4", {}, "no batch price is known for gpt-5.4"),
        (
            "gpt-5-mini",
            {"temperature": 0.0},
            "gpt-5-mini refuses this request: Unsupported value: 'temperature' does not support 0.0"
            " with this model. Only the default (1) value is supported. Leave it out.",
        ),
        (
            "gpt-6-luna",
            {"temperature": 0},
            "Leave it out, or write reasoning_effort: none.",
        ),
        (
            "gpt-6-luna",
            {"max_tokens": 500},
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use"
            " 'max_completion_tokens' instead. Write max_output_tokens, which counts reasoning"
            " too.",
        ),
        (
            "gpt-6.2-sol",
            {"reasoning_effort": "none"},
            "Unsupported value: 'reasoning_effort' does not support 'none' with this model."
            " Supported values are: 'low', 'medium', 'high', 'xhigh', and 'max'.",
        ),
        (
            "gpt-4o-mini",
            {"reasoning_effort": "low"},
            "Unrecognized request argument supplied: reasoning_effort. Leave it out: this model"
            " does not reason.",
        ),
        (
            "gpt-4o-mini",
            {"max_output_tokens": 20_000},
            "max_tokens is too large: 20000. This model supports at most 16384 completion tokens,"
            " whereas you provided 20000. Change max_tokens or leave it out.",
        ),
        (
            "gpt-6-luna",
            {"temprature": 1},
            '"temprature" is not a parameter of an annotator. Did you mean "temperature"?',
        ),
        ("gpt-6-luna", {"stream": True}, '"stream" is not a parameter of an annotator.'),
    ],
)
def test_refused(name, parameters, message):
    """What the service would refuse stops here, with its own sentence and what to write instead."""
    with pytest.raises(errors.ModelError) as caught:
        models.check(name, parameters, TODAY)
    assert message in str(caught.value)


def test_refusals_carry_their_facts():
    """A caller reads model and replacement from the error, not from its text."""
    with pytest.raises(errors.ModelError) as caught:
        models.check("gpt-5.1-chat-latest", {}, TODAY)
    assert (caught.value.model, caught.value.replacement) == ("gpt-5.1-chat-latest", "gpt-6.1-sol")


@pytest.mark.parametrize(
    ("today", "warnings"),
    [
        (datetime.date(2026, 10, 11), []),
        (
            datetime.date(2026, 10, 12),
            ["gpt-5-mini shuts down on 2026-12-11, in 60 days; replacement: gpt-6.1-terra"],
        ),
        (TODAY, ["gpt-5-mini shuts down on 2026-12-11, in 19 days; replacement: gpt-6.1-terra"]),
        (
            datetime.date(2026, 12, 10),
            ["gpt-5-mini shuts down on 2026-12-11, in 1 day; replacement: gpt-6.1-terra"],
        ),
    ],
)
def test_near_shutdown_warns(today, warnings):
    """A model warns for its last 60 days."""
    assert models.check("gpt-5-mini", {"max_output_tokens": 2_000}, today) == warnings


def test_the_day_of_the_shutdown_is_too_late():
    """On the day itself the model is gone."""
    with pytest.raises(errors.ModelError, match="was shut down on 2026-12-11"):
        models.check("gpt-5-mini", {}, datetime.date(2026, 12, 11))
    assert models.is_retired(models.facts("gpt-5-mini"), datetime.date(2026, 12, 11))
    assert not models.is_retired(models.facts("gpt-6-luna"), datetime.date(2036, 1, 1))


# --- parameters by family


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("gpt-6-luna", {"max_completion_tokens": 2_000, "reasoning_effort": "max"}, []),
        ("gpt-6-luna", {"temperature": 0, "reasoning_effort": "none", "top_p": 0.5}, []),
        ("gpt-6-luna", {"temperature": 1, "logprobs": False, "top_p": None}, []),
        ("gpt-6-luna", {"temperature": 0}, [("unsupported_value", "temperature")]),
        (
            "gpt-6-luna",
            {"top_p": 0.5, "logprobs": True, "top_logprobs": 3},
            [
                ("unsupported_parameter", "top_p"),
                ("unsupported_parameter", "logprobs"),
                ("unsupported_parameter", "top_logprobs"),
            ],
        ),
        ("gpt-5.1", {"temperature": 0}, []),
        (
            "gpt-5.1",
            {"temperature": 0, "reasoning_effort": "low"},
            [("unsupported_value", "temperature")],
        ),
        ("gpt-5", {"reasoning_effort": "none"}, [("unsupported_value", "reasoning_effort")]),
        ("gpt-5", {"reasoning_effort": "minimal"}, []),
        (
            "gpt-5.6-luna",
            {"reasoning_effort": "minimal"},
            [("unsupported_value", "reasoning_effort")],
        ),
        ("gpt-5.6-luna", {"reasoning_effort": "max"}, [("unsupported_value", "reasoning_effort")]),
        ("gpt-5.4-mini", {"reasoning_effort": "anything"}, []),
        ("gpt-6-luna", {"verbosity": "huge"}, [("unsupported_value", "verbosity")]),
        ("gpt-6-luna", {"max_completion_tokens": 128_000}, []),
        (
            "gpt-6-luna",
            {"max_completion_tokens": 128_001},
            [("invalid_value", "max_completion_tokens")],
        ),
        ("gpt-6.1-terra", {"max_completion_tokens": 10**9}, []),
        (
            "gpt-6-luna",
            {"max_completion_tokens": 0},
            [("integer_below_min_value", "max_completion_tokens")],
        ),
        ("gpt-6-luna", {"max_completion_tokens": "9"}, [("invalid_type", "max_completion_tokens")]),
        (
            "gpt-6-luna",
            {"max_completion_tokens": True},
            [("invalid_type", "max_completion_tokens")],
        ),
        ("gpt-4o", {"max_tokens": 500, "temperature": 0, "top_p": 0.1, "logprobs": True}, []),
        ("gpt-4o", {"max_completion_tokens": 500}, []),
        ("gpt-4o", {"reasoning_effort": "low"}, [(None, None)]),
    ],
)
def test_parameter_rules(name, body, expected):
    """The rules of each family; a rule whose fact is not known is not applied."""
    problems = models.parameter_problems(models.facts(name), body)
    assert [(problem["code"], problem["param"]) for problem in problems] == expected
    assert all(problem["message"] for problem in problems)


@given(
    st.dictionaries(
        st.sampled_from(["max_tokens", "max_completion_tokens", "temperature", "verbosity", "x"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.integers()),
    ),
    st.sampled_from(sorted(models.load())),
)
def test_no_body_breaks_the_rules(body, name):
    """Whatever values a body holds, the answer is a list of problems and never a crash."""
    for problem in models.parameter_problems(models.facts(name), body):
        assert set(problem) == {"code", "param", "message"}


def test_context_window():
    """Input and cap together must fit the window; an unknown window refuses nothing."""
    model = models.facts("gpt-4o-mini")
    assert models.context_problem(model, 111_616, 16_384) is None
    problem = models.context_problem(model, 111_617, 16_384)
    assert problem["code"] == "context_length_exceeded"
    assert problem["message"].startswith(
        "This model's maximum context length is 128000 tokens. However, you requested 128001 tokens"
    )
    assert models.context_problem(models.facts("gpt-6.1-terra"), 10**9, 1) is None


# --- money


@pytest.mark.parametrize(
    ("name", "n_input", "n_output", "n_cached", "usd"),
    [
        # 2,000 x 0.025 + 500 x 0.20 = 50 + 100 = 150 micro-dollars
        ("gpt-5-nano", 2_000, 500, 0, 0.000150),
        # 500 x 0.025 + 1,500 x 0.0025 + 500 x 0.20 = 12.5 + 3.75 + 100
        ("gpt-5-nano", 2_000, 500, 1_500, 0.00011625),
        # no cached rate before gpt-5: 2,000 x 0.075 + 500 x 0.30 = 150 + 150
        ("gpt-4o-mini", 2_000, 500, 1_500, 0.000300),
        # at the border: 272,000 x 0.05 + 1,000 x 0.25 = 13,600 + 250
        ("gpt-6-luna", 272_000, 1_000, 0, 0.013850),
        # above it: 272,001 x 0.05 x 2 + 1,000 x 0.25 x 1.5 = 27,200.1 + 375
        ("gpt-6-luna", 272_001, 1_000, 0, 0.0275751),
        # gpt-5 states no factors: 300,000 x 0.625 + 0
        ("gpt-5", 300_000, 0, 0, 0.1875),
        ("gpt-6-luna", 0, 0, 0, 0.0),
    ],
)
def test_spend(name, n_input, n_output, n_cached, usd):
    """What a request costs, worked by hand in micro-dollars."""
    assert models.spend_usd(models.facts(name), n_input, n_output, n_cached) == usd


def test_worst_case_takes_the_dearest_input():
    """gpt-6-luna may charge cache writes: 2,000 x 0.0625 + 500 x 0.25 = 125 + 125 micro-dollars."""
    assert models.worst_case_usd(models.facts("gpt-6-luna"), 2_000, 500) == 0.000250
    assert models.worst_case_usd(models.facts("gpt-5-nano"), 2_000, 500) == 0.000150


@given(
    st.sampled_from([name for name, model in models.load().items() if model.price]),
    st.integers(0, 1_000_000),
    st.integers(0, 128_000),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_worst_case_is_a_bound(name, n_input, cap, cached_share, output_share):
    """No answer within its cap costs more than the worst case, whatever the cache does."""
    model = models.facts(name)
    n_cached, n_output = int(n_input * cached_share), int(cap * output_share)
    spend = models.spend_usd(model, n_input, n_output, n_cached)
    assert 0 <= spend <= models.worst_case_usd(model, n_input, cap)


# --- own files


OWN = """\
priced_at: 2026-11-20
source: our contract
queues:
  desk: {1: 100_000}
models:
  gpt-6-luna:
    batch: {input_usd: 0.04, output_usd: 0.20}
  our-model:
    family: gpt-4o
    size: nano
    queue: desk
    standard: {input_usd: 0, output_usd: 0}
    batch: {input_usd: 0, output_usd: 0}
"""


def test_own_file_changes_and_adds(tmp_path):
    """An own file changes the members that it names and adds models; the table itself stays."""
    table = models.load(price_file(tmp_path, OWN))
    luna, own = table["gpt-6-luna"], table["our-model"]
    assert (luna.price.input_usd, luna.price.cached_usd) == (0.04, None)
    assert (luna.standard.input_usd, luna.context_tokens) == (0.10, 1_050_000)
    assert (luna.priced_at, luna.source) == (datetime.date(2026, 11, 20), "our contract")
    assert (own.encoding, own.queue_tokens, own.reasoning) == ("o200k_base", {1: 100_000}, False)
    assert models.check("our-model", {"temperature": 0}, TODAY, table) == []
    assert models.facts("gpt-6-luna").price.input_usd == 0.05


def test_later_files_win(tmp_path):
    """Of two own files the later one counts."""
    first = price_file(tmp_path, OWN)
    second = tmp_path / "more.yml"
    second.write_text(
        "models:\n  our-model: {size: large, batchable: false, replacement: gpt-6-luna}\n"
    )
    own = models.load(first, second)["our-model"]
    assert (own.size, own.batchable, own.price.input_usd) == ("large", False, 0)


PRICES = "standard: {input_usd: 2, output_usd: 8}, batch: {input_usd: 1, output_usd: 4}"
DATED = "priced_at: 2026-11-20\nsource: us\n"
BATCH = f"{DATED}models:\n  gpt-5:\n    batch: "


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[]", 1, "model facts need a table with the member models"),
        ("modles: {}", 1, "unknown entry 'modles'. Did you mean \"models\"?"),
        ("models: [a]", 1, "'models' is ['a']: input should be a valid dictionary."),
        ("models:\n  a: 3", 2, "'a' in models is 3: input should be a valid dictionary"),
        ("models:\n  4: {}", 2, '4 in models is the number 4; write "4" in quotes'),
        ("models:\n  a: {size: mini}", 2, "'family' in a in models is missing"),
        ("models:\n  a: {family: gpt-5}", 2, "'size' in a in models is missing"),
        (
            "models:\n  a: {family: gpt5, size: mini}",
            2,
            'there is no family "gpt5". Did you mean "gpt-5"?',
        ),
        (
            "models:\n  a: {family: gpt-5, size: tiny}",
            2,
            "'size' in a in models is 'tiny'. Known: nano, mini, large.",
        ),
        ("models:\n  a: {family: gpt-5, size: mini, queue: big}", 2, 'there is no queue "big"'),
        ("models:\n  gpt-5: {replacement: gpt-7}", 2, 'there is no model "gpt-7"'),
        (
            "models:\n  gpt-5: {shutdown_at: soon}",
            2,
            "'shutdown_at' in gpt-5 in models is 'soon': input should be a valid date",
        ),
        ("models:\n  gpt-5: {shutdown_at: 2026-02-30}", 2, '"2026-02-30" is not valid'),
        (
            "models:\n  gpt-5:\n    batchable: perhaps",
            3,
            "'batchable' in gpt-5 in models is 'perhaps': input should be a valid boolean",
        ),
        (
            "models:\n  gpt-5:\n    context_tokens: 1e6",
            3,
            "'context_tokens' in gpt-5 in models is '1e6': input should be a valid integer",
        ),
        ("models:\n  gpt-5:\n    context_tokens: -5", 3, "is -5: input should be greater than 0"),
        (f"models:\n  gpt-5: {{{PRICES}}}", 2, 'the price of "gpt-5" needs priced_at'),
        (
            f"priced_at: 2026-11-20\nmodels:\n  gpt-5: {{{PRICES}}}",
            3,
            'the price of "gpt-5" needs source',
        ),
        (
            f"{BATCH}{{input_usd: -1, output_usd: 4}}",
            5,
            "'input_usd' in batch in gpt-5 in models is -1: input should be greater",
        ),
        (
            f"{DATED}models:\n  gpt-5:\n    batch:\n      input_usd: 1\n      output_usd: 0,20",
            7,
            "'output_usd' in batch in gpt-5 in models is '0,20': input should be a valid number",
        ),
        (f"{BATCH}{{input_usd: .nan, output_usd: 4}}", 5, "input should be a finite number"),
        (f"{BATCH}{{input_usd: true, output_usd: 4}}", 5, "input should be a valid number"),
        (f"{BATCH}{{input_usd: 1}}", 5, "'output_usd' in batch in gpt-5 in models is missing"),
        (f"{BATCH}{{input: 1}}", 5, 'in batch in gpt-5 in models. Did you mean "input_usd"?'),
        (f"{BATCH}1.5", 5, "'batch' in gpt-5 in models is 1.5: input should be a valid dictionary"),
        (f"{BATCH}{{input_usd: 9, output_usd: 9}}", 4, "is above its standard price"),
        (
            f"{DATED}models:\n"
            "  a: {family: gpt-5, size: mini, batch: {input_usd: 1, output_usd: 1}}",
            4,
            'model "a" needs both prices, batch and standard',
        ),
        (
            "queues:\n  mini: {1: lots}",
            2,
            "1 in mini in queues is 'lots': input should be a valid integer",
        ),
        (
            "families:\n  f: {encoding: x, cap_parameter: max}",
            2,
            "'cap_parameter' in f in families is 'max'. Known: max_completion_tokens, max_tokens.",
        ),
        (
            "families:\n  f: {encoding: x}\nmodels:\n  a: {family: f, size: mini}",
            2,
            "'cap_parameter' in f in families is missing",
        ),
        (
            "families:\n  gpt-5: {default_effort: huge}",
            2,
            'default_effort "huge" is not among efforts',
        ),
        (
            "models:\n  gpt-5: {size: mini}\n  gpt-5: {size: nano}",
            3,
            '"gpt-5" stands twice, first on line 2',
        ),
    ],
)
def test_bad_files(tmp_path, text, line, message):
    """A file that cannot be meant so is refused with file, line and what is wrong."""
    path = price_file(tmp_path, text)
    with pytest.raises(errors.StudyError) as caught:
        models.load(path)
    assert message in str(caught.value)
    assert (caught.value.line, Path(caught.value.file).name) == (line, "prices.yml")
