"""The report: executed notebooks as safe pages, and a page that leads to them.

A page has no script, loads nothing, and holds no document text: cells tagged `private` are left
out. Markup in outputs passes an allow-list (nh3) and a strict Content Security Policy.
"""

import base64
import html
import re
from pathlib import Path

import nbformat
import nh3
from nbconvert import HTMLExporter
from nbconvert.preprocessors import TagRemovePreprocessor
from traitlets.config import Config

from lib import collect, runs
from lib.runs import Run

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
_TAGS = nh3.ALLOWED_TAGS | {"progress", "details", "summary", "caption", "figure", "img", "div"}
_STYLES = {"color", "font-weight", "padding", "text-align", "white-space"}
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:46em;margin:2em auto;padding:0 1em;color:#222}}
pre{{background:#f6f6f6;padding:.6em;white-space:pre-wrap}}img{{max-width:100%}}
.simulated{{color:#D55E00;font-weight:bold}}a{{color:#0072B2}}h2{{margin-top:1.6em}}</style>
</head><body>{body}</body></html>
"""


def write(run: Run) -> Path:
    """Write a page for each executed notebook and the page that leads to them; gives its path."""
    executed = sorted(run.folder.glob("[0-9][0-9]_*.ipynb"))
    for path in executed:
        page = notebook_page(nbformat.read(path, as_version=4), path.stem)
        _save(run.path("html") / f"{path.stem}.html", page)
    return _save(run.path("report.html"), _index(run, executed))


def notebook_page(notebook: nbformat.NotebookNode, title: str) -> str:
    """One executed notebook as an HTML page without scripts and without private cells."""
    _keep_safe_outputs(notebook)
    config = Config()
    config.TagRemovePreprocessor.enabled = True
    config.TagRemovePreprocessor.remove_cell_tags = ("private", "injected-parameters")
    exporter = HTMLExporter(config=config, sanitize_html=True, mathjax_url="", require_js_url="")
    exporter.register_preprocessor(TagRemovePreprocessor(config=config), enabled=True)
    exporter.register_filter("clean_html", clean)
    page, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}})
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL | re.IGNORECASE)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    return page.replace("<head>", f"<head>{meta}", 1)


def clean(markup: str) -> str:
    """Markup reduced to what a report may hold: text, tables, pictures as data, plain links.

    >>> clean('<b>7</b><script>alert(1)</script><img src="x" onerror="alert(2)">')
    '<b>7</b><img>'
    """
    attributes = {**nh3.ALLOWED_ATTRIBUTES, "progress": {"max", "value"}, "*": {"style", "class"}}
    attributes["img"] = {"src", "alt", "width", "height"}
    return nh3.clean(
        markup,
        tags=set(_TAGS),
        attributes=attributes,
        url_schemes={"http", "https", "mailto", "data"},
        attribute_filter=_only_pictures,
        filter_style_properties=_STYLES,
        link_rel="noopener noreferrer",
    )


def _only_pictures(tag: str, attribute: str, value: str) -> str | None:
    """Addresses: pictures carry their data, and nothing else does."""
    if attribute not in ("src", "href"):
        return value
    is_picture = value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,"))
    return value if is_picture == (tag == "img") and not value.startswith("javascript") else None


def _keep_safe_outputs(notebook: nbformat.NotebookNode) -> None:
    """Drop widgets, scripts and every kind of output that a page cannot show safely."""
    kept = ("text/plain", "text/html", "text/markdown", "image/png", "image/jpeg")
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "data" in output:
                output["data"] = {
                    kind: output["data"][kind] for kind in kept if kind in output["data"]
                }


def _index(run: Run, executed: list[Path]) -> str:
    study = run.study
    simulated = (
        '<p class="simulated">All answers are simulated by the built-in annotators: the results '
        "show how the workspace works, and nothing about the texts.</p>"
        if collect.is_simulated(run)
        else ""
    )
    body = [
        f"<h1>{html.escape(study.title)}</h1>",
        f"<p>{html.escape(study.question)}</p>",
        simulated,
    ]
    body.append(f"<p>{html.escape(repr(run))}</p>")
    for path in executed:
        notebook = nbformat.read(path, as_version=4)
        body.append(f'<h2><a href="html/{path.stem}.html">{html.escape(_title(notebook))}</a></h2>')
        body.append(f"<pre>{html.escape(_bottom_line(notebook))}</pre>")
        body.extend(_picture(figure) for figure in _figures(run, path))
    return _PAGE.format(policy=POLICY, title=html.escape(study.title), body="\n".join(body))


def _title(notebook: nbformat.NotebookNode) -> str:
    return notebook.cells[0].source.splitlines()[0].lstrip("# ")


def _bottom_line(notebook: nbformat.NotebookNode) -> str:
    """What the last printing cell under the bottom line says."""
    texts = [
        output.text
        for cell in notebook.cells
        if "bottom-line" in cell.metadata.get("tags", [])
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ]
    return "".join(texts).strip() or "not reached"


def _figures(run: Run, notebook: Path) -> list[Path]:
    return sorted(run.path("figures").glob(f"{notebook.stem[:2]}_*.png"))


def _picture(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    name = html.escape(path.stem[3:].replace("_", " "))
    return f'<img alt="{name}" src="data:image/png;base64,{data}">'


def _save(path: Path, text: str) -> Path:
    with runs.replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
