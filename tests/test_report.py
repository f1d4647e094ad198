"""The report: pages that run nothing, load nothing, and hold nothing that must stay at home."""

import base64
import html
import json
from pathlib import Path

import nbformat
import pages
import pandas as pd
import pytest
import whole
from nbformat import v4

from lib import report, runs
from lib.runs import Run

PNG = base64.b64encode(b"\x89PNG picture").decode()
SCRIPT = "<script>alert(1)</script>"
IMAGE = '<img src="x" onerror="alert(2)">'
PAYLOAD = f"{SCRIPT}{IMAGE}"
FRAME = pd.DataFrame({PAYLOAD: [PAYLOAD]})
HARMLESS = "text that must be there"


def shown(**data):
    """A displayed output of these kinds."""
    kinds = {kind.replace("__", "/"): value for kind, value in data.items()}
    return v4.new_output("display_data", data=kinds)


def markup(text):
    """A displayed output of raw HTML."""
    return shown(text__html=text)


def styled():
    """A table by pandas' Styler, which escapes nothing: cells, headers and caption."""
    cells = f"<td>{PAYLOAD}</td>"
    return f"<table><caption>{PAYLOAD}</caption><tr><th>{PAYLOAD}</th></tr><tr>{cells}</tr></table>"


SINKS = {
    "plain text": shown(text__plain=PAYLOAD),
    "a frame's repr": shown(text__plain=repr(FRAME), text__html=FRAME._repr_html_()),
    "to_html": markup(FRAME.to_html()),
    "to_html without escapes": markup(FRAME.to_html(escape=False)),
    "Styler": markup(styled()),
    "stdout": v4.new_output("stream", name="stdout", text=PAYLOAD),
    "stderr": v4.new_output("stream", name="stderr", text=PAYLOAD),
    "ANSI in stdout": v4.new_output("stream", text=f"\x1b[31m{PAYLOAD}\x1b[0m\x1b]8;;http://x\x07"),
    "traceback": v4.new_output("error", ename=PAYLOAD, evalue=PAYLOAD, traceback=[PAYLOAD]),
    "Markdown": shown(text__markdown=PAYLOAD),
    "Markdown link": shown(text__markdown="[go](javascript:alert(1)) <http://evil.example>"),
    "Markdown image": shown(text__markdown="![x](http://evil.example/x.png)"),
    "Markdown image from the disk": shown(text__markdown="![x](/etc/passwd)"),
    "LaTeX": shown(text__latex=f"${PAYLOAD}$"),
    "JavaScript": shown(application__javascript="alert(1)"),
    "SVG": shown(**{"image__svg+xml": f"<svg onload='alert(1)'>{SCRIPT}</svg>"}),
    "Mermaid": shown(**{"text__vnd.mermaid": PAYLOAD}),
    "widget": shown(**{"application__vnd.jupyter.widget-view+json": {"model_id": PAYLOAD}}),
    "picture that is none": shown(image__png=f'"><{PAYLOAD}'),
    "alternative text": v4.new_output(
        "display_data", data={"image/png": PNG}, metadata={"image/png": {"alt": f'">{PAYLOAD}'}}
    ),
    "frames and forms": markup(
        "<iframe src=x></iframe><form action=x><input></form><object data=x>"
    ),
    "styles": markup(
        "<style>@import 'http://x'</style><p style=\"background:url(http://x)\">a</p>"
    ),
    "links": markup("<a href='javascript:alert(1)'>a</a><a href='http://evil.example'>b</a>"),
    "page": markup(
        "<base href=x><meta http-equiv=refresh content='0;url=x'><link href=x><svg></svg>"
    ),
}


def notebook(*outputs, source="", **metadata):
    """An executed notebook with one cell that shows these outputs."""
    made = v4.new_notebook(metadata=metadata)
    made.cells = [
        v4.new_markdown_cell(f"# 01 Try\n\n{source}"),
        v4.new_code_cell(f"# {source}", outputs=list(outputs), execution_count=1),
    ]
    return made


def page_of(made, title="01_try"):
    """The page of a notebook."""
    return report.notebook_page(report.public(made), title)


def test_there_are_24_sinks():
    """As many as were tried in a browser."""
    assert len(SINKS) == 24


@pytest.mark.parametrize("sink", SINKS)
def test_no_output_runs_or_loads_anything(sink):
    """Whatever kind of output carries it, the page has no script, handler, frame or address."""
    page = page_of(notebook(SINKS[sink], markup(f"<p>{HARMLESS}</p>")))
    faults, text, _ = pages.read(page, ["../report.html"])
    assert faults == []
    assert HARMLESS in text
    assert "<script" not in page.lower()


def test_markdown_cells_code_and_title_run_nothing():
    """Nor do the parts of a notebook that are not outputs."""
    widgets = {"application/vnd.jupyter.widget-state+json": {"state": {PAYLOAD: PAYLOAD}}}
    made = notebook(source=PAYLOAD, title=f"</title>{PAYLOAD}", widgets=widgets)
    faults, _, _ = pages.read(page_of(made, f"</title>{PAYLOAD}"), ["../report.html"])
    assert faults == []


def test_what_is_harmless_stays():
    """Tables with their headings, alignment and red rows, progress bars, pictures, headings."""
    table = '<table><caption style="font-weight:bold">C</caption><thead><tr><th>H</th></tr></thead>'
    table += '<tbody><tr><td style="color:#D55E00" colspan="2">7</td></tr></tbody></table>'
    bar = '<progress max="5" value="3"></progress>'
    for part in (table, bar, "<h2>Head</h2>", "<details><summary>S</summary>t</details>"):
        kept = report.clean(part)
        assert kept.replace(" ", "").replace(";", "") == part.replace(" ", "").replace(";", "")
    page = page_of(notebook(SINKS["alternative text"]))
    assert pages.read(page, ["../report.html"])[2] == [f'">{PAYLOAD}']


def test_a_page_has_a_policy_that_stops_all_loading():
    """Even what the allow-list let pass could neither run nor load."""
    page = page_of(notebook())
    meta = f'<meta http-equiv="Content-Security-Policy" content="{report.POLICY}">'
    assert page.index(meta) < page.index("<title>")
    assert "script-src" not in report.POLICY
    assert report.POLICY.startswith("default-src 'none'")


def test_private_cells_are_left_out_and_given_parameters_shown():
    """No document text; and the parameters with which a run was made instead of the defaults."""
    made = notebook(markup(HARMLESS))
    for tag, words in (("private", "secret"), ("injected-parameters", "study = 'books'")):
        cell = v4.new_code_cell(words, outputs=[markup("secret output")] * (tag == "private"))
        cell.metadata["tags"] = [tag]
        made.cells.append(cell)
    page = page_of(made)
    assert HARMLESS in page
    assert "secret" not in page
    assert "books" in page


@pytest.fixture(scope="module")
def written(whole_run):
    """The pages that a whole run has written, by name."""
    folder = whole_run.run.folder
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("html/*.html")}
    return {"report.html": (folder / "report.html").read_text(encoding="utf-8"), **found}


def test_pages_of_a_run_are_eight(written):
    """A page for each notebook and the one that leads to them, which has every link."""
    assert len(written) == 8
    for name in set(written) - {"report.html"}:
        assert f'href="html/{name}"' in written["report.html"]


def test_pages_of_a_run_are_safe(written):
    """No script, no handler, no address but those of the report's own pages."""
    own = [f"html/{name}" for name in written]
    for name, page in written.items():
        assert pages.read(page, ["../report.html", *own])[0] == [], name
        assert "://" not in page, name


def test_pages_of_a_run_hold_nothing_private(written, whole_run):
    """No document text, no key, no folder of this machine."""
    text = runs.Run.table(whole_run.run, "documents")["text"]
    sentences = {part.strip() for one in text for part in one.split(".") if len(part) > 25}
    assert any(whole.SECRET in sentence.lower() for sentence in sentences)
    folders = [whole_run.run.folder.parent, runs.ROOT, Path.home(), whole_run.run.study.folder]
    for name, page in written.items():
        words = html.unescape(page)
        assert not [part for part in sentences if part in words], name
        assert whole.KEY not in words, name
        assert not [folder for folder in folders if f"{folder}/" in words], name


def test_pages_of_a_run_say_simulated(written):
    """Each page says it in a sentence of its own."""
    assert all(report.SIMULATED in page for page in written.values())


def test_the_report_shows_what_people_wrote_as_text(written):
    """Markup in the study's title stays visible and does nothing."""
    assert f"<h1>{html.escape(whole.STUDY['title'])}</h1>" in written["report.html"]
    assert whole.STUDY["question"] in written["report.html"]


def test_the_report_has_every_bottom_line_and_picture(written):
    """Six headings, no notebook that was not reached, pictures with a text for each."""
    _, text, alts = pages.read(written["report.html"], [f"html/{name}" for name in written])
    assert "not reached" not in text
    assert "6 found" in text or "found =" in text
    assert len(alts) >= 4
    assert all(alts)


def reported(folder, ends):
    """The report of a run whose notebooks ended at these times, by name."""
    run = Run("guests", folder, whole_study(folder))
    for name, end in ends.items():
        named = f"{folder}/inside, /srv/people/ann/one.jsonl and {runs.ROOT}/lib/x.py"
        named = f"{named}, {runs.ROOT}-other"
        made = notebook(source=named, papermill={"end_time": end})
        made.cells[0].source = f"# {name[:2]} Step"
        made.cells.append(v4.new_code_cell("print()", outputs=[SINKS["stdout"]]))
        made.cells[-1].metadata["tags"] = ["bottom-line"]
        folder.mkdir(exist_ok=True)
        nbformat.write(made, folder / f"{name}.ipynb")
    return report.write(run).read_text(encoding="utf-8")


def whole_study(folder):
    """The tiny study, frozen in memory, as if it lay in `folder`."""
    made = json.loads(json.dumps(whole.STUDY))
    made["corpus"]["book"] |= {"path": "/srv/people/ann/*.jsonl"}
    more = {"name": "guests", "folder": str(folder), "prompt": "-", "policies": {}}
    return runs.Study.model_validate({**made, **more})


def test_a_notebook_older_than_the_one_before_it_says_so(tmp_path):
    """When 03 was run again and 04 was not, 04 tells of an earlier state."""
    ends = {"03_a": "2026-11-22T12:00:00", "04_b": "2026-11-22T11:00:00"}
    page = reported(tmp_path / "guests", ends)
    assert page.count("Older than the notebook before it") == 1
    assert page.index("04 Step") < page.index("Older than")
    ends["04_b"] = "2026-11-22T13:00:00"
    assert "Older than" not in reported(tmp_path / "guests", ends)


def test_folders_of_this_machine_are_hidden(tmp_path):
    """Of the run, the study and an absolute corpus, wherever a cell names them."""
    page = reported(tmp_path / "guests", {"01_a": "2026-11-22T12:00:00"})
    whole_page = (tmp_path / "guests" / "html" / "01_a.html").read_text(encoding="utf-8")
    assert str(tmp_path) not in page + whole_page
    assert "data/guests/inside" in whole_page
    hide = report._hider(Run("guests", tmp_path, whole_study(tmp_path)))
    assert hide("/srv/people/ann/one.jsonl, row 7") == "(book)/one.jsonl, row 7"
    # The workspace may itself lie in a temporary folder, whose name is hidden as well.
    shown = hide(f"{runs.ROOT}/lib/x.py and {runs.ROOT}-other")
    assert shown.startswith("./lib/x.py and ")
    assert shown.endswith(f"{runs.ROOT.name}-other")
