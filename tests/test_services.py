"""Facts about services: the file as it is, what own files may change, and what they get told."""

import datetime

import pytest
import yaml

from lib import services, yamls
from lib.errors import ServiceError, StudyError

OWN = {
    "base_url": "https://llm.example.org/v1",
    "key_variable": "OWN_API_KEY",
    "source": "its operator",
    "checked_at": datetime.date(2026, 11, 22),
}


@pytest.fixture
def own(tmp_path):
    """Writes a file of own services and reads it over the workspace's."""

    def write(rows, text=""):
        path = tmp_path / "services.local.yml"
        path.write_text(text or yaml.safe_dump({"services": rows}), encoding="utf-8")
        return services.load(path)

    return write


def test_every_service_of_the_issue_is_there_with_source_and_day():
    """Six services, each with who says so and when."""
    table = services.load()
    assert set(table) >= {"local", "openai", "azure", "groq", "doubleword", "vllm"}
    for name, facts in table.items():
        assert facts.name == name
        assert facts.source != "none"
        assert facts.checked_at >= datetime.date(2026, 11, 1)
    assert [name for name, facts in table.items() if facts.free] == ["local"]


def test_what_is_open_is_marked():
    """Disputed facts carry the mark that data/models.yml has, and each says what was taken."""
    text = services.DEFAULT_PATH.read_text(encoding="utf-8")
    assert text.count("[?]") > 10


def test_what_a_row_leaves_out_is_as_at_openai():
    """The row of OpenAI states the defaults, and adds its address."""
    openai, usual = services.find("openai"), services.Facts()
    stated = {"name", "base_url", "base_url_variable", "source", "checked_at"}
    for name in set(services.Facts.model_fields) - stated:
        assert getattr(openai, name) == getattr(usual, name), name


def test_an_own_file_changes_and_adds(own):
    """A known row is changed member by member; a new one needs where, who and when."""
    table = own({"own": OWN, "groq": {"max_bytes": 1_000, "models": {"gpt-6-luna": "luna"}}})
    assert table["own"].base_url == OWN["base_url"]
    assert table["own"].max_requests == 50_000
    groq = table["groq"]
    assert (groq.max_bytes, groq.key_variable) == (1_000, "GROQ_API_KEY")
    assert (groq.called("gpt-6-luna"), groq.called("other")) == ("luna", "other")
    assert services.find("own", table).name == "own"


@pytest.mark.parametrize(
    ("rows", "line", "words"),
    [
        ({"own": {**OWN, "grace_second": 3}}, 5, 'Did you mean "grace_seconds"?'),
        ({"own": {**OWN, "pages": "offsets"}}, 6, 'Did you mean "offset"?'),
        (
            {"own": {**OWN, "max_requests": "many"}},
            6,
            "'max_requests' in own in services is",
        ),
        ({"own": {**OWN, "statuses": {"done": "finished"}}}, None, "Known: validating, failed"),
        ({"own": {"base_url": "https://x"}}, 2, 'service "own" needs source and checked_at'),
        ({"own": {**OWN, "base_url": None}}, None, "needs base_url or base_url_variable"),
        ({"own": {**OWN, "limit_pattern": "[0-9]+"}}, 6, "one group for the number"),
        ({"own": {**OWN, "limit_pattern": "(["}}, 6, "one group for the number"),
        ({"own": {**OWN, "free": True}}, 5, "only the local service is free"),
        ({"own": 3}, 2, "'own' in services is 3"),
    ],
)
def test_a_bad_file_is_told_with_file_line_and_the_nearest_word(own, rows, line, words):
    """One sentence that says where, what, and what was meant."""
    with pytest.raises(StudyError) as fault:
        own(rows)
    assert words in str(fault.value)
    assert "services.local.yml, line" in str(fault.value)
    assert line is None or fault.value.line == line


@pytest.mark.parametrize("text", ["- a\n", "services: 3\n", "service:\n  own: {}\n", "x\n"])
def test_a_file_of_another_form_is_told(own, text):
    """A list, a wrong name at the top."""
    with pytest.raises(StudyError, match="expected a table with the one entry services"):
        own({}, text)


def test_a_base_url_belongs_to_the_row_of_its_host(monkeypatch):
    """A resource of Azure is Azure wherever it is; an unknown host behaves as OpenAI."""
    assert services.find("https://mine.openai.azure.com/openai/v1").name == "azure"
    assert services.find("https://api.groq.com/openai/v1").name == "groq"
    unknown = services.find("https://gateway.example.org/v1")
    assert unknown.name == "https://gateway.example.org/v1"
    assert unknown.statuses == unknown.codes == {}
    assert services.find("https://openai.azure.com.example.org/v1").name != "azure"


def test_an_address_may_come_from_the_environment(monkeypatch):
    """Azure's is given by its variable, with the path of the API put behind it once."""
    for given in ("https://mine.openai.azure.com/", "https://mine.openai.azure.com/openai/v1"):
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", given)
        assert services.address("azure") == "https://mine.openai.azure.com/openai/v1"
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "mine")
    with pytest.raises(ServiceError, match="It is the value of AZURE_OPENAI_ENDPOINT"):
        services.address("azure")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert services.address("openai") == "https://api.openai.com/v1"
    assert services.address("local") is None


def test_no_file_of_facts_holds_a_key():
    """There is no entry into which a key could be written."""
    assert [name for name in services.Facts.model_fields if "key" in name] == [
        "key_variable",
        "key_needed",
        "key_header",
    ]
    ignored = (yamls.WORKSPACE / ".gitignore").read_text().splitlines()
    assert "/data/services.local.yml" in ignored
