"""The report: executed notebooks as safe pages, and a page that leads to them.

A page has no script, loads nothing and names no address; it holds no document text, because cells
tagged `private` are left out, and no folder that would name its user. Markup in outputs passes an
allow-list (nh3) and a strict Content Security Policy.
"""

import functools
import html
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import nbformat
import nh3
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from lib import collect, runs
from lib.runs import Run

POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)
SIMULATED = (
    '<p class="simulated" style="color:#D55E00;font-weight:bold">All answers are simulated by the '
    "built-in annotators: the results show how the workspace works, and nothing about the texts."
    "</p>"
)
_NOT_SHOWN = {"private"}
_TEXTS = ("text/plain", "text/html", "text/markdown")
_PICTURES = ("image/png", "image/jpeg")
_LEFT_OUT = {"text/plain": "(left out: an output that runs or loads something)"}
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")
_TAGS = (nh3.ALLOWED_TAGS - {"area", "map"}) | {"progress"}
_ATTRIBUTES = {
    "img": {"src", "alt", "width"},
    "progress": {"max", "value"},
    **{cell: {"colspan", "rowspan"} for cell in ("td", "th")},
    "*": {"style", "class"},
}
_STYLES = {"color", "font-weight", "padding", "text-align", "white-space"}
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}"><title>{title}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:46em;margin:2em auto;padding:0 1em;color:#222}}
pre{{background:#f6f6f6;padding:.6em;white-space:pre-wrap}}img{{max-width:100%}}
a{{color:#0072B2}}h2{{margin-top:1.6em}}.old{{color:#D55E00}}</style>
</head><body>{body}</body></html>
"""


def write(run: Run) -> Path:
    """Write a page for each executed notebook and the page that leads to them; gives its path."""
    hide = _hider(run)
    executed = {
        path.stem: public(nbformat.read(path, as_version=4), hide)
        for path in sorted(run.folder.glob("[0-9][0-9]_*.ipynb"))
    }
    note = SIMULATED if collect.is_simulated(run) else ""
    for name, notebook in executed.items():
        _save(run.path("html") / f"{name}.html", notebook_page(notebook, name, note))
    return _save(run.path("report.html"), _index(run, executed, note, hide))


def public(notebook: NotebookNode, hide: Callable[[str], str] = str) -> NotebookNode:
    """An executed notebook without private cells, and with such outputs alone as a page can show.

    Pictures become HTML with their alternative text. `hide` changes every text.
    """
    notebook.metadata.pop("widgets", None)
    notebook.cells = [
        cell for cell in notebook.cells if not _NOT_SHOWN & set(cell.metadata.get("tags", []))
    ]
    for cell in notebook.cells:
        cell.source = hide(cell.source)
        for output in cell.get("outputs", []):
            _make_safe(output, hide)
    return notebook


def notebook_page(notebook: NotebookNode, title: str, note: str = "") -> str:
    """A notebook made `public` as an HTML page without scripts; `note` is markup for its top."""
    page, _ = _exporter().from_notebook_node(notebook, {"metadata": {"name": title}})
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL | re.IGNORECASE)
    page = re.sub(r"<style\b.*?</style>", _uncommented, page, flags=re.DOTALL)
    meta = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    page = page.replace("<head>", f"<head>{meta}", 1)
    top = f'<p><a href="../report.html">Report</a></p>{note}'
    top = f'<div class="jp-RenderedHTMLCommon">{top}</div>'
    return page.replace("<main>", f"<main>{top}", 1)


def clean(markup: str) -> str:
    """Markup reduced to what a report may hold: text, tables, pictures as data; no addresses.

    >>> clean('<b>7</b><script>alert(1)</script><img src="x" onerror="alert(2)">')
    '<b>7</b><img>'
    """
    return nh3.clean(
        markup,
        tags=set(_TAGS),
        attributes=_ATTRIBUTES,
        url_schemes={"data"},
        attribute_filter=_only_pictures,
        filter_style_properties=_STYLES,
        link_rel=None,
    )


@functools.cache
def _exporter() -> HTMLExporter:
    """What makes a page of a notebook; to read its templates takes longer than to make a page."""
    exporter = HTMLExporter(sanitize_html=True, mathjax_url="", require_js_url="")
    exporter.register_filter("clean_html", clean)
    return exporter


def _only_pictures(_: str, attribute: str, value: str) -> str | None:
    """The one address that may stand: a picture's own data."""
    return value if attribute != "src" or _is_picture(*value.partition(",")[::2]) else None


def _is_picture(kind: str, data: str) -> bool:
    allowed = {f"data:{kind};base64" for kind in _PICTURES}
    return kind in allowed and _BASE64.fullmatch(data) is not None


def _make_safe(output: NotebookNode, hide: Callable[[str], str]) -> None:
    """Drop widgets, scripts and every kind of output that a page cannot show safely."""
    if "data" in output:
        pictures = [_picture(output, kind) for kind in _PICTURES if kind in output["data"]]
        texts = {kind: hide(output["data"][kind]) for kind in _TEXTS if kind in output["data"]}
        output["data"] = {"text/html": pictures[0]} if any(pictures) else texts or _LEFT_OUT
        output["metadata"] = {}
    for name in ("text", "evalue"):
        if name in output:
            output[name] = hide(output[name])
    if "traceback" in output:
        output["traceback"] = [hide(line) for line in output["traceback"]]


def _picture(output: NotebookNode, kind: str) -> str:
    """A picture as HTML with its alternative text, or nothing if its data is none."""
    head, data = f"data:{kind};base64", "".join(output["data"][kind].split())
    alt = html.escape(str(output["metadata"].get(kind, {}).get("alt", "")))
    return f'<img alt="{alt}" width="680" src="{head},{data}">' if _is_picture(head, data) else ""


def _uncommented(style: re.Match) -> str:
    """A style sheet without its comments, which name addresses."""
    return re.sub(r"/\*.*?\*/", "", style[0], flags=re.DOTALL)


def _hider(run: Run) -> Callable[[str], str]:
    """What takes the folders of this machine out of a text: they name its user."""
    corpus = {
        re.split(r"[*?\[]", source.path)[0].rpartition("/")[0]: f"({name})"
        for name, source in run.study.corpus.items()
        if Path(source.path).is_absolute()
    }
    places = {str(runs.outputs()): "outputs", run.study.folder: f"data/{run.study.name}"}
    places |= {str(runs.ROOT): ".", sys.prefix: "(python)", sys.base_prefix: "(python)"}
    places |= {tempfile.gettempdir(): "(temporary)", str(Path.home()): "~", **corpus}
    words = {form: word for place, word in places.items() for form in (place, html.escape(place))}
    known = sorted((place for place in words if len(place) > 1), key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, known))})(?![\w-])")
    return lambda text: pattern.sub(lambda found: words[found[0]], text)


def _index(
    run: Run, executed: Mapping[str, NotebookNode], note: str, hide: Callable[[str], str]
) -> str:
    study = run.study
    body = [f"<h1>{html.escape(study.title)}</h1>", f"<p>{html.escape(study.question)}</p>", note]
    body.append(f"<p>{html.escape(hide(repr(run)))}</p>")
    latest = ""
    for name, notebook in executed.items():
        body.append(f'<h2><a href="html/{name}.html">{html.escape(_title(notebook))}</a></h2>')
        ended = notebook.metadata.get("papermill", {}).get("end_time") or ""
        if ended < latest:
            body.append('<p class="old">Older than the notebook before it: run it again.</p>')
        latest = max(latest, ended)
        body.append(f"<pre>{html.escape(_bottom_line(notebook))}</pre>")
        body.extend(_pictures(notebook))
    return _PAGE.format(policy=POLICY, title=html.escape(study.title), body="\n".join(body))


def _title(notebook: NotebookNode) -> str:
    """The notebook's own heading; a failed one has a marker before it."""
    firsts = (cell.source.split("\n")[0] for cell in notebook.cells)
    return next((first[2:] for first in firsts if first.startswith("# ")), "Notebook")


def _bottom_line(notebook: NotebookNode) -> str:
    """What the last printing cell under the bottom line says."""
    texts = [
        output.text
        for cell in notebook.cells
        if "bottom-line" in cell.metadata.get("tags", [])
        for output in cell.get("outputs", [])
        if output.output_type == "stream"
    ]
    return "".join(texts).strip() or "not reached"


def _pictures(notebook: NotebookNode) -> list[str]:
    """The pictures that the notebook shows, in its order."""
    shown = (output for cell in notebook.cells for output in cell.get("outputs", []))
    markup = (output.get("data", {}).get("text/html", "") for output in shown)
    return [clean(one) for one in markup if one.startswith("<img ")]


def _save(path: Path, text: str) -> Path:
    with runs.replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path
