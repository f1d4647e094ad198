"""The table is complete: 108 faults, each caused by a row, by a test, or by a test elsewhere."""

import ast
import re
from pathlib import Path

import pytest
import table
import test_table_documents
import test_table_output
import test_table_service

from lib.local_api.faults import table as switches

TESTS = Path(__file__).resolve().parents[1]
ROWS = [*test_table_service.TABLE, *test_table_documents.TABLE, *test_table_output.TABLE]
# Faults whose test needs what another module of tests has.
ELSEWHERE = {
    "H01": [("faults/test_disk_full.py", "test_a_full_disk_is_said_and_recovered_from")],
    "H07": [
        ("faults/test_signals.py", "test_notebooks_whose_kernel_and_runner_are_killed_end_well")
    ],
    "H14": [
        ("test_schedule.py", "test_the_line_goes_on_until_the_run_is_done_and_removes_itself"),
        ("test_schedule.py", "test_a_deleted_run_takes_its_entry_along"),
        ("test_schedule.py", "test_a_run_of_another_id_is_not_touched"),
    ],
    "H15": [("test_ledger.py", "test_a_ledger_of_version_1_is_brought_to_the_form_of_today")],
}


def names_in(path):
    """The names of the tests in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if getattr(node, "name", "").startswith("test_")]


def named(path):
    """The numbers of faults that stand in the names of tests: `test_a02_a03_...`."""
    found = (re.findall(r"(?<=_)[admh]\d\d(?=_)", f"{name}_") for name in names_in(path))
    return {number.upper() for numbers in found for number in numbers}


def test_all_108_are_caused():
    """36 of the service, 28 of documents, 28 of output, 16 of the host, each of them somewhere."""
    modules = sorted(Path(__file__).parent.glob("test_table_*.py"))
    caused = {row.number for row in ROWS} | set(ELSEWHERE).union(*map(named, modules))
    counts = {"A": 36, "D": 28, "M": 28, "H": 16}
    assert set(table.FAULTS) == {
        f"{c}{n + 1:02}" for c, most in counts.items() for n in range(most)
    }
    assert len(table.FAULTS) == 108
    assert caused == set(table.FAULTS)


@pytest.mark.parametrize("number", ELSEWHERE)
def test_what_the_table_points_at_is_there(number):
    """A test in another module that is renamed or deleted is missed here."""
    for file, name in ELSEWHERE[number]:
        assert name in names_in(TESTS / file)


def test_switches_cause_the_fault_of_their_row():
    """Of the switches of a row, one is the local service's for that very fault, or for none."""
    for row in test_table_service.TABLE:
        items = {switches.FAULTS[name].item for name in row.faults}
        assert items & {row.number, None}, row
