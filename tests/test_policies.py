"""Policies: what is read, and the message for whatever could not be evaluated."""

from pathlib import Path

import pytest
import yaml

from lib import parts, policies, policy_files, study, yamls
from lib.errors import StudyError

ALLERGY = Path(__file__).parent.parent / "data" / "allergy"

RULES = """\
title: Two incidents
verdicts: [Low Risk, High Risk, Critical Risk]
only: {relevant: "true"}
rules:
  - verdict: High Risk
    any:
      - at_least: 2
        where:
          incident_severity: [moderate, severe]
"""
POINTS = """\
title: Points
verdicts: [Low Risk, High Risk, Critical Risk]
points:
  - where: {incident_severity: severe}
    points: 5
thresholds:
  High Risk: 4
  Critical Risk: {25: 12, 50: 8}
"""
RECENCY = """\
recency:
  as_of: 2026-06-30
  bands:
    - {up_to_years: 2, share: 1}
    - {share: 0.25}
"""


LATER = """\
  - verdict: Critical Risk
    any:
      - {at_least: 1, where: {account_type: firsthand}}
      - {at_least: 2, where: {account_type: firsthand, incident_severity: severe}}
"""
GROUP_POINTS = """\
group_points:
  - {column: categories, any_of: [Thai], points: 2}
"""


@pytest.fixture(scope="module")
def fields():
    """The fields of the allergy study."""
    return study.load(ALLERGY).fields


def parsed(folder, text, fields, **more):
    """The policy that this text says."""
    path = folder / "V9.yml"
    path.write_text(text)
    return policy_files.parse(path, yamls.read(path), fields, **more)


def test_a_policy_knows_its_fields(tmp_path, fields):
    """The id is the file's stem; the fields in use include the one that decides if they apply."""
    policy = parsed(tmp_path, RULES.replace('only: {relevant: "true"}\n', ""), fields)
    assert (policy.id, policy.default, policy.uses) == (
        "V9",
        "Low Risk",
        ["incident_severity", "relevant"],
    )


def test_the_entry_fields_is_the_studys(tmp_path, fields):
    """A policy may bring fields for the study; this module leaves them alone."""
    assert parsed(tmp_path, RULES + "fields: {other: {}}\n", fields).id == "V9"


def test_thresholds_by_k(tmp_path, fields):
    """A threshold is one number or one for each K."""
    policy = parsed(tmp_path, POINTS, fields, ks=[25, 50])
    assert policies.threshold(policy, "Critical Risk", 50) == 8
    assert policies.threshold(policy, "High Risk", 50) == 4
    assert policies.threshold(policy, "Critical Risk", 100) is None


@pytest.mark.parametrize("name", ["V0", "V1", "V2", "V3"])
def test_policies_survive_the_lock_file(name):
    """A policy written to YAML and read back is the same, dates and thresholds by K included."""
    policy = study.load(ALLERGY).policies[name]
    text = yaml.safe_dump(policy.model_dump(mode="json"))
    assert parts.parse(policies.Policy, yaml.safe_load(text), Path("lock"), {}) == policy


@pytest.mark.parametrize(
    ("text", "change", "line", "words"),
    [
        (RULES, ("title: Two", "titel: Two"), 1, 'Did you mean "title"?'),
        (RULES, ("only:", "olny:"), 3, 'Did you mean "only"?'),
        (RULES, ("at_least: 2", "at_least: 0"), 7, "greater than or equal to 1"),
        (RULES, ("at_least: 2", 'at_least: "2"'), 7, "should be a valid integer"),
        (
            RULES,
            ("        where:\n", "        were: {}\n        where:\n"),
            8,
            'Did you mean "where"?',
        ),
        (RULES, ("verdict: High", "verdict: Hihg"), 5, "no verdict 'Hihg Risk'. Did you mean \"Hi"),
        (RULES, ("incident_severity", "severity"), 9, "no field 'severity'"),
        (RULES, ("[moderate, severe]", "sever"), 9, "value 'sever'. Did you mean \"severe\"?"),
        (RULES, ("[moderate, severe]", "[]"), 9, "no value is named for 'incident_severity'"),
        (RULES, ("[moderate, severe]", "[{a: 1}]"), 9, "never has the value {'a': 1}"),
        (RULES, ('"true"', "true"), 3, "is the truth value true, and no answer has that"),
        (RULES, ('"true"', "yes"), 3, 'Write "true" in quotes'),
        (
            RULES,
            ("only: {relevant", "only: {incident_severity: mild, relevant"),
            9,
            "never be fulf",
        ),
        (RULES, ("rules:", "default: High Risk\nrules:"), 4, "is not the mildest verdict"),
        (RULES, ("rules:", "default: LowRisk\nrules:"), 4, 'Did you mean "Low Risk"?'),
        (RULES, ("rules:", "coverage: 1.5\nrules:"), 4, "less than or equal to 1"),
        (RULES, ("rules:", "id: V7\nrules:"), 4, "unknown entry 'id'"),
        (
            RULES,
            ("rules:", "thresholds: {High Risk: 2}\nrules:"),
            4,
            "thresholds belongs to points",
        ),
        (RULES, ("Low Risk, High", "insufficient data, High"), 2, "where coverage is too low"),
        (RULES, ("Low Risk, High", "High Risk, High"), 2, "a verdict stands twice"),
        (RULES, (RULES[RULES.index("rules") :], ""), 1, "either rules or points"),
        (RULES, ("title: Two incidents\n", ""), 1, "'title' is missing"),
        (RULES, ("title: Two incidents", "title: 2026-06-30"), 1, 'write "2026-06-30" in quotes'),
        (RULES, ("[Low Risk, High", "[no, High"), 2, 'write the word "false" in quotes'),
        (RULES, ("[Low Risk, High Risk, Critical Risk]", "[Low Risk]"), 2, "is empty"),
        (RULES, ("[Low Risk, High Risk, Critical Risk]", "Low Risk"), 2, "valid list"),
        (RULES, ("at_least: 2", "at_least: 2.5"), 7, "should be a valid integer"),
        (RULES, ("at_least: 2", "at_least: yes"), 7, "should be a valid integer"),
        (RULES, ("at_least: 2", "at_least: 51"), 7, "the largest K of the study is 50"),
        (RULES, ("at_least: 2", "at_most: 2"), 7, "unknown entry 'at_most'"),
        (RULES, ("    any:", "    all:"), 6, "unknown entry 'all'"),
        (RULES, ("      - at_least: 2", "      - not: true\n        at_least: 2"), 7, "'not'"),
        (RULES, ("incident_severity: [moderate, severe]", "{}"), 8, "empty"),
        (RULES, ("[moderate, severe]", "[moderate, 911]"), 9, "never has the value 911"),
        (RULES, ("[moderate, severe]", "[Severe]"), 9, 'Did you mean "severe"?'),
        (RULES, ("[moderate, severe]", "[[severe]]"), 9, "never has the value ['severe']"),
        (RULES, ("[moderate, severe]", "false"), 9, "is the truth value false"),
        (
            RULES,
            ('only: {relevant: "true"}', 'only: {relevant: "false"}'),
            9,
            "'incident_severity' applies only where relevant is true, and here it is not",
        ),
        (
            RULES,
            ("severe]\n", "severe]\n" + LATER),
            13,
            "whenever this is fulfilled, rule 1, condition 1 already gives 'High Risk'",
        ),
        (POINTS, ("    points: 5", "    points: 0"), 5, "0 points add nothing"),
        (POINTS, ("    points: 5", "    points: five"), 5, "should be a valid number"),
        (POINTS, ("High Risk: 4", "High Risk: 0"), 7, "no threshold may be 0 or less"),
        (POINTS, ("{25: 12, 50: 8}", '{25: 12, "050": 8}'), 6, "K is a whole number"),
        (POINTS, ("{25: 12, 50: 8}", "{25.5: 12, 50: 8}"), 6, "K is a whole number"),
        (
            POINTS,
            ("{25: 12, 50: 8}", '{25: 12, "25": 8, 50: 8}'),
            8,
            "stands twice, with quotes",
        ),
        (POINTS, ("{25: 12, 50: 8}", "{}"), 6, "K is a whole number from 1, not nothing"),
        (
            POINTS,
            ("  Critical", "  Low Risk: 1\n  Critical"),
            6,
            "a threshold for each verdict but",
        ),
        (POINTS, ("thresholds:", "modifiers: {}\nthresholds:"), 6, "unknown entry 'modifiers'"),
        (POINTS + RECENCY, ("2026-06-30", "20260630"), 10, "should be a valid date"),
        (POINTS + RECENCY, ("2026-06-30", "true"), 10, "should be a valid date"),
        (POINTS + RECENCY, ("2026-06-30", "2026-06-30 12:00:00"), 10, "is datetime"),
        (POINTS + RECENCY, ("share: 1}", "share: 1.5}"), 12, "less than or equal to 1"),
        (POINTS + RECENCY, ("up_to_years: 2", "up_to_years: 2.5"), 12, "valid integer"),
        (POINTS + RECENCY, ("up_to_years", "up_to_months"), 12, "unknown entry 'up_to_months'"),
        (POINTS, ("    points: 5", "    points: .nan"), 5, "finite number"),
        (POINTS, ("  High Risk: 4\n", ""), 6, "a threshold for each verdict but Low Risk"),
        (POINTS, ("High Risk: 4", "High Risk: 9"), 8, "is not above High Risk from 9 (K = 50)"),
        (POINTS, ("High Risk: 4", "High Risk: 8"), 8, "thresholds must grow with severity"),
        (POINTS, ("{25: 12, 50: 8}", "{few: 12}"), 6, "K is a whole number from 1, not few"),
        (POINTS, ("{25: 12, 50: 8}", "{25: 12}"), 8, "none for K = 50. Add it."),
        (POINTS + RECENCY, ("  as_of: 2026-06-30\n", ""), 9, "'as_of' in recency is missing"),
        (POINTS + RECENCY, ("2026-06-30", "last summer"), 10, "should be a valid date"),
        (POINTS + RECENCY, ("years: 2", "years: -2"), 12, "greater than or equal to 1"),
        (POINTS + RECENCY, ("{share: 0.25}", "{up_to_years: 1, share: 0}"), 11, "the last band"),
        (
            POINTS + RECENCY,
            ("    - {share: 0.25}", "    - {up_to_years: 2, share: 0.5}\n    - {share: 0}"),
            13,
            "bands overlap: up to 2 years comes after up to 2 years",
        ),
    ],
)
def test_what_cannot_be_evaluated_stops_loading(tmp_path, fields, text, change, line, words):
    """Each mistake is refused with its line and what to do."""
    with pytest.raises(StudyError) as raised:
        parsed(tmp_path, text.replace(*change), fields, ks=[25, 50])
    assert words in str(raised.value)
    assert raised.value.line == line
    assert raised.value.file.endswith("V9.yml")


@pytest.mark.parametrize(
    ("table", "change", "line", "words"),
    [
        (None, ("", ""), 9, "group_points need a table about the groups"),
        ("id,kind\n", ("", ""), 10, "groups.csv has no column 'categories'. Known: id, kind."),
        ("id,category\n", ("", ""), 10, 'Did you mean "category"?'),
        ("id,categories\n", ("[Thai]", "[]"), 10, "is empty"),
        ("id,categories\n", ("[Thai]", "[Thai, ' ']"), 10, "is no whole word"),
        ("id,categories\n", ("[Thai]", "[yes]"), 10, 'write the word "true" in quotes'),
        ("id,categories\n", ("points: 2", "points: 0"), 10, "0 points add nothing"),
        ("id,categories\n", ("column: categories, ", ""), 10, "'column' in 0 in group_points is m"),
    ],
)
def test_lines_about_groups_need_their_table(tmp_path, fields, table, change, line, words):
    """A column that the groups do not have is refused before anything is paid for."""
    path = tmp_path / "groups.csv"
    if table is not None:
        path.write_text("\ufeff\n" + table)
    with pytest.raises(StudyError) as raised:
        parsed(
            tmp_path,
            POINTS + GROUP_POINTS.replace(*change),
            fields,
            groups=None if table is None else path,
        )
    assert words in str(raised.value)
    assert (raised.value.line, Path(raised.value.file).name) == (line, "V9.yml")


def test_a_rule_may_follow_one_that_hides_it_in_part(tmp_path, fields):
    """Fewer items, or of another kind, are another condition; one verdict may be given twice."""
    later = LATER.replace("at_least: 2", "at_least: 1")
    assert len(parsed(tmp_path, RULES + later, fields).rules) == 2
    same = LATER.replace("Critical Risk", "High Risk")
    assert len(parsed(tmp_path, RULES + same, fields).rules) == 2


def test_recency_needs_dates(tmp_path, fields):
    """A study whose items have no date cannot judge by age."""
    with pytest.raises(StudyError, match="recency needs dates"):
        parsed(tmp_path, POINTS + RECENCY, fields, dated=False)


def test_a_harsh_default_can_be_meant(tmp_path, fields):
    """A default that is not the mildest is accepted with its reason."""
    text = RULES + "default: High Risk\ndefault_reason: caution first\n"
    assert parsed(tmp_path, text, fields).default == "High Risk"


def test_no_mapping(tmp_path, fields):
    """A list or an empty file is no policy."""
    with pytest.raises(StudyError, match="expected title, verdicts"):
        parsed(tmp_path, "- a\n", fields)
