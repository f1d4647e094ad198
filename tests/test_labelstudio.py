"""Label Studio: the interface, blind tasks, and exports that are none."""

import json
from xml.etree import ElementTree

import making
import pandas as pd
import pytest

from lib.errors import StudyError
from lib.gold import labelstudio

FIELDS = making.study(
    {
        "relevant": making.field("boolean"),
        "mood": making.field(when="relevant"),
        "age": making.field("integer", minimum=0, maximum=120),
        "people": making.field("entities"),
        "note": making.field("text"),
    }
).fields
ITEMS = pd.DataFrame({"item": ["r1"], "sha256": ["0"], "text": ["A <b> & \U0001f600 Kay"]})
TASK = {"data": {"item": "r1", "text": "-"}}


def test_the_interface_has_a_control_for_each_field():
    """Choices with the declared values, a bounded number, spans and a text, about one text."""
    view = ElementTree.fromstring(labelstudio.config(FIELDS))
    assert view.find("Text").attrib == {"name": "_text", "value": "$text"}
    assert [one.get("value") for one in view.find(".//Choices[@name='mood']")] == [
        *("calm", "angry", "mixed")
    ]
    number = view.find(".//Number[@name='age']").attrib
    assert (number["min"], number["max"], number["step"]) == ("0", "120", "1")
    assert view.find(".//Labels[@name='people']/Label").get("value") == "people"
    assert view.find(".//TextArea[@name='note']") is not None
    assert {one.get("toName") for one in view.iter() if one.get("toName")} == {"_text"}


def test_a_field_with_a_condition_is_shown_when_it_holds():
    """Only the mood waits, for relevant = true."""
    view = ElementTree.fromstring(labelstudio.config(FIELDS))
    [waiting] = view.findall(".//View[@visibleWhen]")
    assert waiting.attrib == {
        "visibleWhen": "choice-selected",
        "whenTagName": "relevant",
        "whenChoiceValue": "true",
    }
    assert waiting.find("Choices").get("name") == "mood"


def test_tasks_are_blind_unless_predictions_are_given():
    """Item, digest and text alone; then with what a panel says."""
    assert labelstudio.tasks(ITEMS) == [{"data": ITEMS.to_dict("records")[0]}]
    mood = labelstudio.result(labelstudio.Mark("mood", "calm"), FIELDS["mood"])
    [task] = labelstudio.tasks(ITEMS, {"r1": [mood]})
    assert task["predictions"] == [{"result": [mood]}]


def test_places_are_counted_as_browsers_do(tmp_path):
    """A smiley is two units there and one character here; Kay stands at 10 here, 11 there."""
    text = ITEMS["text"][0]
    mark = labelstudio.Mark("people", "Kay", text.index("Kay"), len(text))
    result = labelstudio.result(mark, FIELDS["people"], text)
    assert (result["value"]["start"], result["value"]["end"]) == (11, 14)
    path = tmp_path / "export.json"
    task = {"data": {"item": "r1", "text": text}, "annotations": [{"result": [result]}]}
    path.write_text(json.dumps([task]), encoding="utf-8")
    [annotation] = labelstudio.read(path)
    assert annotation.marks == (mark,)
    del result["value"]["text"]
    path.write_text(json.dumps([task]), encoding="utf-8")
    assert labelstudio.read(path)[0].marks == (mark,)


def test_skipped_tasks_have_no_annotation(tmp_path):
    """A person who skips an item says nothing of it; people are named by mail address or number."""
    annotations = [
        {"was_cancelled": True, "result": []},
        {"completed_by": {"id": 7, "email": "ann@example.org"}, "result": []},
        {"completed_by": 8, "result": [{"type": "relation", "value": {}}]},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps([{**TASK, "annotations": annotations}]), encoding="utf-8")
    assert [one.who for one in labelstudio.read(path)] == ["ann@example.org", "8"]


def test_no_tasks_are_no_annotations(tmp_path):
    """An empty list is an export too."""
    path = tmp_path / "export.json"
    path.write_text(" [ ] ", encoding="utf-8")
    assert labelstudio.read(path) == []


def task(**more):
    """A line with a task."""
    return json.dumps({**TASK, "annotations": [], **more})


def result(**value):
    """A task with one annotation of one label."""
    return task(annotations=[{"result": [{"from_name": "people", **value}]}])


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "no list of tasks"),
        ('{"data": {}}', 1, "no list of tasks"),
        (f"[\n{task()},\n{task()}", 3, "cut off here"),
        (f"[\n{task()},\n", 3, "not valid JSON"),
        (f"[\n{task()},\n]", 3, "not valid JSON"),
        (f"[\n{task()}\n{task()}]", 3, "cut off here"),
        (f"[\n{task()},\n{{'data': 1}}]", 3, "not valid JSON"),
        ("[\n" + "[" * 100_000, 2, "nested too deeply"),
        (f'[\n{task()},\n{{"item": "r1", "mood": "calm"}}]', 3, "not JSON-MIN"),
        ('[\n{"data": {"item": "r1"}}]', 2, "has no annotations"),
        (f"[\n{task(annotations=[7])}]", 2, "expected an object of Label Studio, found 7"),
        (f"[\n{task(annotations=[{}])}]", 2, "without a result"),
        (f"[\n{result(type='brush', value={})}]", 2, "a label of the type 'brush'"),
        (f"[\n{result(type='labels', value={})}]", 2, "the label 'people' of r1 cannot be read"),
        (f"[\n{result(type='choices')}]", 2, "expected an object of Label Studio, found None"),
    ],
)
def test_what_is_no_export(tmp_path, text, line, words):
    """Each is named with the line on which it stands."""
    path = tmp_path / "export.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StudyError) as raised:
        labelstudio.read(path)
    assert words in str(raised.value)
    assert raised.value.line == line
