"""Studies: what is read, what is refused and in which words, and that freezing loses nothing."""

import datetime
import random

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lib import runs, study, yamls
from lib.errors import ModelError, StudyError

WHOLE = """\
title: Moods
question: How do people feel?
corpus:
  notes:
    path: notes/*.txt
    group: place
fields:
  spoken:
    type: boolean
    description: Whether a feeling is spoken of.
  mood:
    description: The feeling.
    when: spoken
    default: calm
    values:
      calm: {description: At ease.}
      angry: {description: In anger.}
panel: small
panels:
  small:
    annotators:
      luna: {model: gpt-6-luna, repeats: 3}
      terra:
        model: gpt-6.1-terra
        parameters: {reasoning_effort: low, max_output_tokens: 500}
        fallback: [gpt-6-luna]
k: [25, 50]
"""
POLICY = """\
title: Anger counts
verdicts: [fine, alarming]
rules:
  - verdict: alarming
    any:
      - {at_least: 2, where: {mood: angry}}
"""
EFFORTS = "'none', 'low', 'medium', 'high', 'xhigh', and 'max'"


@pytest.fixture
def folder(tmp_path):
    """A study that is right."""
    made = tmp_path / "moods"
    (made / "policies").mkdir(parents=True)
    (made / "study.yml").write_text(WHOLE, encoding="utf-8")
    (made / "prompt.md").write_text("Read the note.", encoding="utf-8")
    (made / "policies" / "P1.yml").write_text(POLICY, encoding="utf-8")
    return made


def change(folder, old, new, file="study.yml"):
    """Replace one place of a file of the study, which must be there exactly once."""
    text = (folder / file).read_text(encoding="utf-8")
    assert text.count(old) == 1, old
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")


def refusal(folder, error=StudyError):
    """The message with which a study is refused, after its folder."""
    with pytest.raises(error) as caught:
        study.load(folder)
    return str(caught.value).removeprefix(f"{yamls.shown(folder)}/")


def test_whole_study(folder):
    """A study has what its files say, and what they leave out has the documented default."""
    read = study.load(folder)
    assert (read.name, read.prompt, read.panel) == ("moods", "Read the note.", "small")
    assert read.n_votes == 4
    assert read.fields["spoken"].allowed == ["true", "false"]
    assert read.fields["mood"].allowed == ["calm", "angry"]
    assert read.voting.quorum == 0.5
    assert read.policies["P1"].uses == ["mood", "spoken"]


@pytest.mark.parametrize("name", ["allergy", "books"])
@pytest.mark.parametrize("panel", ["current", "reproduced"])
def test_sample_studies(name, panel):
    """The studies that ship are whole, with either of their panels."""
    written = yaml.safe_load((runs.ROOT / "data" / name / "study.yml").read_text(encoding="utf-8"))
    gone = datetime.datetime.now(datetime.UTC).date() >= datetime.date(2026, 12, 11)
    if panel == "reproduced" and gone:
        pytest.skip("its models were shut down on 2026-12-11")
    read = study.load(runs.ROOT / "data" / name, panel)
    assert read.n_votes == 4
    assert set(read.panels) == set(written["panels"])


KNOWN_FIELD = (
    "Known: attributes, combine, default, description, maximum, minimum, ordered, prefer, "
    "threshold, type, values, when."
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title: Moods\n", "", "line 1: 'title' is missing."),
        ("title: Moods", "title:", "line 1: 'title' is empty: write something there or remove it."),
        (
            "title: Moods",
            "title: 1984",
            "line 1: 'title' is the number 1984; write \"1984\" in quotes.",
        ),
        (
            "title: Moods",
            "titel: Moods",
            "line 1: unknown entry 'titel'. Did you mean \"title\"? "
            "Known: corpus, fields, folder, groups, items, k, name, panel, panels, policies, "
            "prompt, question, sending, title, voting.",
        ),
        ("k: [25, 50]", "k: [25, 25]", "line 27: a K stands twice in [25, 25]. Remove one."),
        (
            "k: [25, 50]",
            "voting: {quorum: 1}",
            "line 27: 'quorum' in voting is 1: input should be less than 1.",
        ),
        (
            "    when: spoken",
            "    whn: spoken",
            f"line 13: unknown entry 'whn' in mood in fields. Did you mean \"when\"? {KNOWN_FIELD}",
        ),
        (
            "default: calm",
            "default: true",
            "line 14: 'default' in mood in fields is the truth value true; "
            'write the word "true" in quotes.',
        ),
        (
            "      calm: {",
            "      true: {",
            "line 16: True in values in mood in fields is the truth value true; "
            'write the word "true" in quotes.',
        ),
        (
            "      calm: {",
            "      911: {",
            'line 16: 911 in values in mood in fields is the number 911; write "911" in quotes.',
        ),
        (
            "      angry: {description: In anger.}\n",
            "",
            "line 11: field 'mood': a category needs at least two values.",
        ),
        (
            "default: calm",
            "default: clam",
            "line 11: field 'mood': default 'clam' is not one of its values "
            "['calm', 'angry']. Did you mean \"calm\"?",
        ),
        (
            "default: calm",
            "prefer: heavy",
            "line 11: field 'mood': prefer 'heavy' is none of "
            "['calm', 'angry', 'schema order', 'heaviest']. Did you mean \"heaviest\"?",
        ),
        (
            "when: spoken",
            "when: spokn",
            "line 11: field 'mood': when 'spokn' names no other field. Did you mean \"spoken\"?",
        ),
        (
            "when: spoken",
            "when: mood",
            "line 11: field 'mood': when 'mood' names no other field. Did you mean \"mood\"?",
        ),
        (
            "    type: boolean",
            "    type: text",
            "line 11: field 'mood': when 'spoken' must be a boolean field that always applies.",
        ),
        (
            "    type: boolean",
            "    type: boolean\n    values: {maybe: {description: Unclear.}}",
            'line 8: field \'spoken\': a boolean has the values "true" and "false".',
        ),
        (
            "    type: boolean",
            "    type: boolen",
            "line 9: 'type' in spoken in fields is 'boolen'. Did you mean \"boolean\"? "
            "Known: category, boolean, integer, number, text, entities.",
        ),
        (
            "    type: boolean",
            "    type: boolean\n    threshold: 0.5",
            "line 8: field 'spoken': attributes and threshold belong to type: entities.",
        ),
        (
            "    type: boolean",
            "    type: boolean\n    maximum: 5",
            "line 8: field 'spoken': minimum and maximum belong to type: integer or number.",
        ),
        (
            "    type: boolean",
            "    type: boolean\n    combine: median",
            "line 8: field 'spoken': combine belongs to type: integer or number.",
        ),
        (
            "    type: boolean",
            "    type: entities\n    attributes: {name: {description: Name.}}",
            "line 8: field 'spoken': an entity has a name already. Rename the attribute 'name'.",
        ),
        (
            "    type: boolean",
            "    type: entities\n    attributes: {age: {type: integer, values: [old], "
            "description: Age.}}",
            "line 8: field 'spoken': attribute 'age': values belong to type: text.",
        ),
        (
            "    type: boolean",
            "    type: integer\n    minimum: 5\n    maximum: 1",
            "line 8: field 'spoken': minimum 5 is above maximum 1.",
        ),
        (
            "      angry: {",
            "      Calm: {",
            "line 11: field 'mood': two of its values ['calm', 'Calm'] differ by case or space "
            "alone. Rename one.",
        ),
        (
            "panel: small",
            "panel: smal",
            "line 18: no panel 'smal'. Did you mean \"small\"? Known: small.",
        ),
        (
            "    path: notes/*.txt",
            "    path: notes/*.txt\n    format: jsonlines",
            "line 6: 'format' in notes in corpus is 'jsonlines'. Did you mean \"jsonl\"? "
            "Known: auto, british-library, txt, json, jsonl, csv, parquet.",
        ),
        (
            "    path: notes/*.txt",
            "    path: notes/*.txt\n    encoding: latin-9x",
            "line 6: no text encoding 'latin-9x'. Common ones: utf-8, utf-16, iso-8859-1.",
        ),
        (
            "    group: place\n",
            "",
            "line 3: policies reach verdicts on groups, and no source names a group column. "
            "Write group: there, or remove policies/.",
        ),
        (
            "title: Moods",
            "name: moods\ntitle: Moods",
            "line 1: 'name' is not written here: the folder names the study, the prompt stands in "
            "prompt.md, policies in policies/*.yml. Remove it.",
        ),
        (
            "{model: gpt-6-luna, repeats: 3}",
            "{model: gpt-6-luna, repeats: 0}",
            "line 22: 'repeats' in luna in annotators in small in panels is 0: "
            "input should be greater than or equal to 1.",
        ),
        (
            "{reasoning_effort: low, ",
            "{reasoning_effort: [low], ",
            "line 25: 'reasoning_effort' in parameters in terra in annotators in small in panels "
            "is ['low']: input should be a valid string.",
        ),
        (
            "max_output_tokens: 500",
            "max_completion_tokens: 500",
            "line 25: annotator 'terra': write max_output_tokens instead of "
            "max_completion_tokens: it stands for it in every model family.",
        ),
        (
            "fallback: [gpt-6-luna]",
            "fallback: [gpt-6-luna, gpt-6-luna]",
            "line 26: annotator 'terra': a model stands twice in the chain gpt-6.1-terra, "
            "gpt-6-luna, gpt-6-luna. Remove one: each is asked in turn.",
        ),
        (
            "      luna: {model: gpt-6-luna, repeats: 3}",
            "      luna: {model: gpt-6-luna, repeats: 3}\n      twin: {model: gpt-6-luna}",
            "line 23: annotators 'luna' and 'twin' have the same model and parameters, and would "
            "share every answer. Keep one, with repeats: 4.",
        ),
        (
            "question: How",
            "title: Again\nquestion: How",
            'line 2: "title" stands twice, first on line 1. Remove one of them.',
        ),
        (
            "panels:\n",
            "groups: {path: places.csv, id: place}\npanels: []\nother:\n",
            "line 20: 'panels' is []: input should be a valid dictionary.",
        ),
    ],
)
def test_refused_entries(folder, old, new, message):
    """Each fault is told with file, line, what is wrong, and the nearest right name."""
    change(folder, old, new)
    assert refusal(folder) == f"study.yml, {message}"


@pytest.mark.parametrize("part", ["corpus", "fields", "panels"])
def test_refused_emptiness(folder, part):
    """A study without sources, fields or panels asks nothing and is refused."""
    data = yaml.safe_load(WHOLE) | {part: {}}
    (folder / "study.yml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    (folder / "policies" / "P1.yml").unlink()
    assert f"{part!r} is empty: write something there or remove it." in refusal(folder)
    (folder / "study.yml").write_text("- a list\n", encoding="utf-8")
    expected = "expected a mapping with title, corpus, fields and panels."
    assert refusal(folder) == f"study.yml, line 1: {expected}"


def test_missing_study_and_prompt(folder):
    """What is missing is named, with the nearest study or what to write."""
    with pytest.raises(StudyError) as caught:
        study.load(folder.parent / "mood")
    assert str(caught.value) == (
        f"no study at {yamls.shown(folder.parent / 'mood')}: study.yml is missing. "
        'Did you mean "moods"? Studies there: moods. '
        "A study is a folder with study.yml and prompt.md."
    )
    (folder / "prompt.md").write_bytes(b"\xef\xbb\xbf \r\n")
    expected = "prompt.md, line 1: the prompt is empty: write the instructions there."
    assert refusal(folder) == expected
    (folder / "prompt.md").write_bytes(b"Read.\ncaf\xe9")
    expected = "prompt.md, line 2: not UTF-8 text. Save the file as UTF-8."
    assert refusal(folder) == expected
    (folder / "prompt.md").unlink()
    expected = "prompt.md: the prompt is missing: write the instructions there."
    assert refusal(folder) == expected


def test_line_ends_make_no_difference(folder):
    """A prompt saved on Windows is the same prompt, so that it asks the same requests."""
    (folder / "prompt.md").write_bytes(b"One.\nTwo.\n")
    before = study.load(folder)
    (folder / "prompt.md").write_bytes(b"\xef\xbb\xbfOne.\r\nTwo.\r\n")
    assert study.load(folder) == before


def test_folder_names_the_study(folder):
    """A folder whose name cannot be a study's name is refused with what a name is."""
    odd = folder.rename(folder.with_name("My Moods"))
    with pytest.raises(StudyError) as caught:
        study.load(odd)
    assert str(caught.value) == (
        f"{yamls.shown(odd)}: a study is named by its folder, and 'My Moods' cannot be a name. "
        "Rename the folder: small letters, digits, - and _, a letter first, at most 40."
    )


def test_panel_is_chosen(folder):
    """A panel that is asked for by name is used instead of the study's, or refused."""
    change(folder, "k: [25, 50]", "  large: {annotators: {sol: {model: gpt-6-sol}}}\nk: [25, 50]")
    assert study.load(folder, "large").n_votes == 1
    with pytest.raises(StudyError, match=r"no panel 'larg'. Did you mean \"large\"\?"):
        study.load(folder, "larg")


def test_fields_of_a_policy(folder):
    """Fields come from the study and its policies; two definitions of one are refused."""
    brought = "fields:\n  loud:\n    type: boolean\n    description: Loud.\n"
    change(folder, "title: Anger counts\n", brought + "title: Anger counts\n", "policies/P1.yml")
    assert list(study.load(folder).fields) == ["spoken", "mood", "loud"]
    (folder / "policies" / "P2.yml").write_text(
        POLICY + brought.replace("Loud.", "Noisy."), encoding="utf-8"
    )
    assert refusal(folder) == (
        "policies/P2.yml, line 8: field 'loud' is defined otherwise in P1.yml, line 2. "
        "Keep one of the two."
    )


def test_two_policies_bring_one_field(folder):
    """The same definition twice is one field; its values in another order are another scale."""
    brought = "fields:\n  pace:\n    description: Pace.\n    values: {slow: &, fast: &}\n"
    brought = brought.replace("&", "{description: How fast.}")
    change(folder, "title: Anger counts\n", brought + "title: Anger counts\n", "policies/P1.yml")
    other = folder / "policies" / "P2.yml"
    other.write_text(POLICY + brought, encoding="utf-8")
    assert study.load(folder).fields["pace"].allowed == ["slow", "fast"]
    turned = brought.replace("slow", "!").replace("fast", "slow").replace("!", "fast")
    other.write_text(POLICY + turned, encoding="utf-8")
    assert refusal(folder).startswith("policies/P2.yml, line 8: field 'pace' is defined otherwise")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "fields: {loud: {typ: boolean}}\n" + POLICY,
            f"line 1: unknown entry 'typ' in loud in fields. Did you mean \"type\"? {KNOWN_FIELD}",
        ),
        (
            "fields: [loud]\n" + POLICY,
            "line 1: 'fields' is ['loud']: input should be a valid dictionary.",
        ),
        (
            "fields:\n  loud: {description: Loud.}\n" + POLICY,
            "line 2: field 'loud': a category needs at least two values.",
        ),
        ("- rules\n", "line 1: expected title, verdicts, and rules or points."),
        (
            POLICY.replace("angry", "anger"),
            "line 6: 'mood' never has the value 'anger'. "
            'Did you mean "angry"? Its values: calm, angry.',
        ),
    ],
)
def test_refused_policies(folder, text, message):
    """A fault in a policy file is told with that file and its line."""
    (folder / "policies" / "P1.yml").write_text(text, encoding="utf-8")
    assert refusal(folder) == f"policies/P1.yml, {message}"


def test_policies_have_the_facts_of_the_study(folder):
    """Thresholds must serve every K of the study, and recency needs dates."""
    points = (
        "title: Points\nverdicts: [fine, bad]\npoints: [{where: {mood: angry}, points: 1}]\n"
        "thresholds: {bad: {25: 3}}\n"
    )
    (folder / "policies" / "P1.yml").write_text(points, encoding="utf-8")
    assert refusal(folder) == (
        "policies/P1.yml, line 4: 'bad' has thresholds for K = 25, and none for K = 50. Add it."
    )
    dated = points.replace("{25: 3}", "3") + "recency: {as_of: 2026-06-30, bands: [{share: 1}]}\n"
    (folder / "policies" / "P1.yml").write_text(dated, encoding="utf-8")
    assert refusal(folder) == (
        "policies/P1.yml, line 5: recency needs dates, and no source of the study names a date "
        "column."
    )


def test_no_policy_is_missed(folder):
    """A policy under another ending is not passed over in silence."""
    (folder / "policies" / "P2.yaml").write_text(POLICY, encoding="utf-8")
    assert refusal(folder) == (
        "policies/P2.yaml: policies end in .yml, so this one would be missed. Rename it to P2.yml."
    )


RETIRED = (
    "gpt-5.1-chat-latest was shut down on 2026-07-23 and is not available in the Batch API. "
    "Use gpt-6.1-sol instead."
)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "model: gpt-6.1-terra",
            "model: gpt-5.1-chat-latest",
            f"line 24: annotator 'terra': {RETIRED}",
        ),
        (
            "fallback: [gpt-6-luna]",
            "fallback:\n          - gpt-6-luna\n          - gpt-5.1-chat-latest",
            f"line 28: annotator 'terra': {RETIRED}",
        ),
        (
            "model: gpt-6.1-terra",
            "model: gpt-6.1-tera",
            "line 24: annotator 'terra': no facts for "
            'model "gpt-6.1-tera". Did you mean "gpt-6.1-terra"? Add a row to data/models.yml.',
        ),
        (
            "reasoning_effort: low",
            "temperature: 0",
            "line 25: annotator 'terra': gpt-6.1-terra "
            "refuses this request: Unsupported value: 'temperature' does not support 0 with this "
            "model. Only the default (1) value is supported. Leave it out, or write "
            "reasoning_effort: none.",
        ),
        (
            "reasoning_effort: low",
            "reasoning_effort: minimal",
            "line 25: annotator 'terra': "
            "gpt-6.1-terra refuses this request: Unsupported value: 'reasoning_effort' does not "
            f"support 'minimal' with this model. Supported values are: {EFFORTS}. Change "
            "reasoning_effort or leave it out.",
        ),
        (
            "max_output_tokens: 500",
            "max_output_tokens: 200_000",
            "line 25: annotator 'terra': "
            "gpt-6-luna refuses this request: max_completion_tokens is too large: 200000. This "
            "model supports at most 128000 completion tokens, whereas you provided 200000. Change "
            "max_completion_tokens or leave it out.",
        ),
    ],
)
def test_refused_models(folder, old, new, message):
    """A model that cannot answer is refused before anything is sent, as model and as fallback."""
    change(folder, old, new)
    assert refusal(folder, ModelError) == f"study.yml, {message}"


def test_refused_model_has_its_facts(folder):
    """The error carries the replacement, the file and the line."""
    change(folder, "model: gpt-6.1-terra", "model: gpt-5.1-chat-latest")
    with pytest.raises(ModelError) as caught:
        study.load(folder)
    found = (caught.value.replacement, caught.value.line, caught.value.model)
    assert found == ("gpt-6.1-sol", 24, "gpt-5.1-chat-latest")


def test_shutdown_is_announced_and_then_refused(folder):
    """A model that will be shut down warns, once for all annotators, and then is refused."""
    change(folder, "model: gpt-6.1-terra", "model: gpt-6-luna")
    change(folder, "fallback: [gpt-6-luna]", "fallback: [gpt-5-mini]")
    change(folder, "luna: {model: gpt-6-luna,", "luna: {model: gpt-5-mini,")
    read = study.Study.model_validate(
        yaml.safe_load((folder / "study.yml").read_text(encoding="utf-8"))
        | {"name": "moods", "folder": str(folder), "prompt": "-"}
    )
    assert study.check_models(read, datetime.date(2026, 11, 22)) == [
        "gpt-5-mini shuts down on 2026-12-11, in 19 days; replacement: gpt-6.1-terra"
    ]
    assert study.check_models(read, datetime.date(2026, 9, 1)) == []
    with pytest.raises(ModelError) as caught:
        study.check_models(read, datetime.date(2026, 12, 11))
    assert str(caught.value) == (
        f"{yamls.shown(folder / 'study.yml')}: annotator 'luna': gpt-5-mini was shut down on "
        "2026-12-11. Use gpt-6.1-terra instead."
    )


def test_other_panels_may_have_retired_models(folder):
    """Models are checked for the panel in use, so that a study outlives its old panels."""
    old = "  old: {annotators: {past: {model: gpt-5.1-chat-latest}}}\nk: [25, 50]"
    change(folder, "k: [25, 50]", old)
    assert study.load(folder).panel == "small"
    with pytest.raises(ModelError, match="annotator 'past'"):
        study.load(folder, "old")


def frozen(read, tmp_path):
    """The study as it comes back from a lock file."""
    path = tmp_path / "study.lock.yml"
    text = yaml.safe_dump(study.freeze(read), allow_unicode=True, sort_keys=False, width=100)
    path.write_bytes(text.encode())
    return study.thaw(path)


@pytest.mark.parametrize("name", ["allergy", "books"])
def test_freezing_loses_nothing(name, tmp_path):
    """Thawing what was frozen gives an equal study, policies and the order of values included."""
    read = study.load(runs.ROOT / "data" / name)
    again = frozen(read, tmp_path)
    assert again == read
    assert again.model_dump_json() == read.model_dump_json()
    assert study.freeze(again) == study.freeze(read)


@settings(max_examples=40)
@given(text=st.text(st.characters(codec="utf-8", exclude_characters="\x85")).filter(str.strip))
def test_freezing_keeps_any_prompt(tmp_path_factory, text):
    """Control characters, line separators and emoji in a prompt survive the lock file.

    Except U+0085: YAML takes it for a line end, and so does whoever reads prompt.md.
    """
    folder = tmp_path_factory.mktemp("any")
    read = study.load(runs.ROOT / "data" / "books").model_copy(update={"prompt": text})
    assert frozen(read, folder).prompt == text


def test_thawing_refuses_other_files(tmp_path):
    """A file that is no frozen study is named, with what to do."""
    path = tmp_path / "study.lock.yml"
    path.write_text("half: 1\n", encoding="utf-8")
    with pytest.raises(StudyError) as caught:
        study.thaw(path)
    expected = "line 1: this is no frozen study. Run 01_load_documents again."
    assert str(caught.value) == f"{yamls.shown(path)}, {expected}"


def test_digest_is_stable():
    """Equal content has one digest on every machine and in every order; this one is published."""
    value = {"b": [1, 2.5, None], "a": {"é": True}}
    assert study.digest(value) == study.digest({"a": {"é": True}, "b": [1, 2.5, None]})
    expected = "2dd2c98899b73318"
    assert study.digest(value).startswith(expected)
    assert study.digest(value) != study.digest({**value, "b": [2.5, 1, None]})


def test_hashes_name_what_changed(folder):
    """A change of the prompt changes its hash in the lock and no other."""
    before = study.freeze(study.load(folder))["sha256"]
    (folder / "prompt.md").write_text("Read it twice.", encoding="utf-8")
    after = study.freeze(study.load(folder))["sha256"]
    assert [part for part in before if before[part] != after[part]] == ["prompt"]


def test_shuffled_entries_are_the_same_study(folder):
    """The order in which a person writes the entries of study.yml does not matter."""
    before = study.load(folder)
    entries = list(yaml.safe_load(WHOLE).items())
    random.Random(1).shuffle(entries)
    text = yaml.safe_dump(dict(entries), sort_keys=False)
    (folder / "study.yml").write_text(text, encoding="utf-8")
    assert study.load(folder) == before
