"""Tests that hold the picture of `lib` true: who may import whom, and what nobody may do.

They read the source as a tree and run none of it. A module is named by its path inside `lib`
without the ending (`corpus/read`); a package's `__init__` by its folder (`corpus`).
"""

import ast
import graphlib
from pathlib import Path

import pytest

LIB = Path(__file__).resolve().parent.parent / "lib"

# From top to bottom. A module may import its own layer and those below it. A name ending in "/"
# stands for a folder with all that is in it.
LAYERS = {
    "top": ["__main__", "commands", "exchange", "pipeline", "kernels", "report", "selftest"],
    "view": [
        "accounts",
        "aggregate",
        "charts",
        "counts",
        "diagrams",
        "findings",
        "savings",
        "tables",
    ],
    "outside": [
        "asking",
        "audit",
        "batches",
        "check",
        "collect",
        "diary",
        "disks",
        "dispatch",
        "keys",
        "ledger",
        "notify",
        "planning",
        "push",
        "queues",
        "reconcile",
        "refusals",
        "repairs",
        "said",
        "schedule/",
        "sent",
        "service",
        "standing",
        "submit",
        "versions",
    ],
    "pure": [
        "advice",
        "agreement/",
        "alarm",
        "answers",
        "averages",
        "brake",
        "consensus",
        "corpus/",
        "corrections",
        "counting/",
        "decisive/",
        "dialect",
        "entities/",
        "estimate",
        "exports/",
        "gold/",
        "inference/",
        "lengths",
        "outlook",
        "pacing",
        "prompts",
        "ranges",
        "results",
        "review/",
        "scratch",
        "shards",
        "tally",
        "tokens",
        "totals",
        "verdicts/",
        "votes",
        "wanted",
        "weights",
    ],
    "ground": [
        "",
        "clock",
        "errors",
        "fields",
        "folder",
        "models/",
        "parts",
        "policies",
        "policy_files",
        "runs",
        "services",
        "spreadsheets",
        "study",
        "words",
        "yamls",
    ],
}
APART = "local_api/"
APART_MAY_IMPORT = ["errors", "models/", APART]
MAY_START_APART = ["__main__", "service"]  # everyone else reaches it over HTTP alone

# The modules in which an outside package is at work; types in annotations do not count. A package
# that does not stand here may be used anywhere (pandas, numpy, orjson).
AT_WORK = {
    "IPython": ["charts", "tables"],
    "apprise": ["notify"],
    "duckdb": ["exports/", "collect", "consensus", "counting/polls", "ranges", "scratch", "votes"],
    "filelock": ["dispatch", "schedule/", APART],
    "fsspec": ["corpus/find"],
    "httpx2": ["refusals", APART],
    "jsonschema": [APART],
    "keyring": ["keys"],
    "matplotlib": ["charts", "diagrams"],
    "nbconvert": ["report"],
    "nbformat": ["pipeline", "report"],
    "nh3": ["report"],
    "openai": ["refusals", "service"],
    "papermill": ["kernels", "pipeline"],
    "pyarrow": [
        "aggregate",
        "exports/",
        "collect",
        "corpus/read",
        "corpus/sheets",
        "planning",
        "repairs",
        "runs",
        "said",
        "votes",
    ],
    "pydantic": ["fields", "models/reading", "parts", "policies", "services", "study"],
    "python_multipart": [APART],
    "sentencex": ["corpus/texts"],
    "sqlite3": ["check", "corpus/loading", "ledger", "sent", "versions", APART],
    "starlette": [APART],
    "tiktoken": ["tokens"],
    "toktok": ["tokens", APART],
    "traitlets": ["kernels", "report"],
    "uvicorn": [APART],
    "yaml": ["exports/", "runs", "yamls", APART],
}

# Words after which a file is another one than before; only code that runs.replacing guards may.
WRITING = {"write_text", "write_bytes", "to_parquet", "to_csv", "to_json", "ParquetWriter"}
PRINTS = ["__main__", "commands", "exchange", "pipeline"]
FORBIDDEN_PACKAGES = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
FORBIDDEN_CALLS = {"eval", "exec", "pd.read_pickle", "pandas.read_pickle"}


def name_of(path):
    """The name of a module in the tables above."""
    name = path.relative_to(LIB).with_suffix("").as_posix()
    return "" if name == "__init__" else name.removesuffix("/__init__")


MODULES = {name_of(path): path for path in sorted(LIB.rglob("*.py"))}
TREES = {n: ast.parse(p.read_text(encoding="utf-8")) for n, p in MODULES.items()}


def stands_in(name, names):
    """Whether a list of modules names this one, itself or by its folder."""
    return any(f"{name}/".startswith(x) if x.endswith("/") else name == x for x in names)


def layer_of(name):
    """The layer of a module; None if no table names it."""
    return next((layer for layer, names in LAYERS.items() if stands_in(name, names)), None)


def imports(tree):
    """What a module imports, as dotted names: `from lib import votes` gives `lib.votes`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def lib_imports(tree):
    """The modules of lib that a module imports, by their names in the tables above."""
    for dotted in imports(tree):
        parts = dotted.split(".")[1:] if dotted.startswith("lib.") else []
        while parts and "/".join(parts) not in MODULES:
            parts.pop()
        if parts:
            yield "/".join(parts)


def at_work(tree):
    """Packages whose imported names are used outside of annotations."""
    bound = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                package = getattr(node, "module", None) or alias.name
                bound[alias.asname or alias.name.split(".")[0]] = package.split(".")[0]
    types = {
        id(inner)
        for node in ast.walk(tree)
        for note in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if note is not None
        for inner in ast.walk(note)
    }
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in types]
    return {bound[name] for name in names if name in bound}


def calls(tree):
    """Each call with the last part of the called name: `a.b.open(...)` gives `open`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield getattr(node.func, "attr", getattr(node.func, "id", "")), node


def functions(tree):
    """Each function and method."""
    return [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]


WORKING = {name: at_work(tree) for name, tree in TREES.items()}


def is_writing(name, call):
    """Whether a call writes a file by its name, or opens one in a mode that writes."""
    if name in WRITING:
        return True
    given = [*call.args, *(key.value for key in call.keywords if key.arg == "mode")]
    modes = [a.value for a in given if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return name in {"open", "fdopen"} and any(
        set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes
    )


def is_greedy(handler):
    """Whether an except clause takes any error and neither raises it again nor logs it."""
    caught = ast.unparse(handler.type) if handler.type else "BaseException"
    answers = any(isinstance(line, ast.Raise) for line in ast.walk(handler))
    logs = any(called == "exception" for called, _ in calls(handler))
    return caught in {"Exception", "BaseException"} and not answers and not logs


def test_every_module_has_a_layer():
    """A new module is put into the picture before it is used."""
    unknown = [n for n in MODULES if layer_of(n) is None and not stands_in(n, [APART])]
    assert unknown == [], "name these modules in LAYERS"


def test_imports_point_downward_only():
    """No module imports one of a layer above its own."""
    order = list(LAYERS)
    upward = [
        f"{name} ({layer_of(name)}) imports {other} ({layer_of(other)})"
        for name, tree in TREES.items()
        for other in set(lib_imports(tree))
        if layer_of(name) and layer_of(other)
        if order.index(layer_of(other)) < order.index(layer_of(name))
    ]
    assert upward == []


def test_no_module_imports_itself_through_others():
    """Within a layer, too, imports have a direction; a package and its parts count as one."""

    graph = {}
    for name, tree in TREES.items():
        whole = name.split("/")[0]
        others = {other.split("/")[0] for other in lib_imports(tree)}
        graph.setdefault(whole, set()).update(others - {whole})
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_the_local_api_stands_apart():
    """It knows models and errors alone, and others know no more of it than how to start it."""
    too_much = [
        f"{name} imports {other}"
        for name, tree in TREES.items()
        for other in set(lib_imports(tree))
        if (stands_in(name, [APART]) and not stands_in(other, APART_MAY_IMPORT))
        or (stands_in(other, [APART]) and not stands_in(name, [APART, *MAY_START_APART]))
    ]
    assert too_much == []


@pytest.mark.parametrize("package", AT_WORK)
def test_an_outside_package_is_at_work_in_few_modules(package):
    """Each outside package is used where the table says and nowhere else."""
    using = [name for name, packages in WORKING.items() if package in packages]
    assert [name for name in using if not stands_in(name, AT_WORK[package])] == []


def test_no_data_is_loaded_that_could_run_code():
    """No pickle and its kin, no eval, and YAML by its safe loader only."""
    found = []
    for name, tree in TREES.items():
        used = {dotted.split(".")[0] for dotted in imports(tree)} & FORBIDDEN_PACKAGES
        found += [f"{name} imports {package}" for package in used]
        for called, call in calls(tree):
            unsafe_yaml = ast.unparse(call.func) in {"yaml.load", "yaml.unsafe_load"}
            if unsafe_yaml and "Safe" not in ast.unparse(call):
                found.append(f"{name}:{call.lineno} loads YAML without the safe loader")
            if called == "to_pickle" or ast.unparse(call.func) in FORBIDDEN_CALLS:
                found.append(f"{name}:{call.lineno} calls {called}")
            if any(k.arg == "allow_pickle" for k in call.keywords):
                found.append(f"{name}:{call.lineno} allows pickle")
    assert found == []


def test_files_are_written_whole_or_not_at_all():
    """A function that writes a file uses `runs.replacing`, or a folder that does not stay."""
    bare = []
    for name, tree in TREES.items():
        if stands_in(name, ["runs", APART]):
            continue
        guarded = {
            id(inner)
            for function in functions(tree)
            if any(called in {"replacing", "TemporaryDirectory"} for called, _ in calls(function))
            for inner in ast.walk(function)
        }
        bare += [
            f"{name}:{call.lineno} {ast.unparse(call.func)}"
            for called, call in calls(tree)
            if is_writing(called, call) and id(call) not in guarded
        ]
    assert bare == []


def test_text_errors_are_never_ignored():
    """A character that cannot be decoded is reported, not dropped."""
    dropped = [
        f"{name}:{call.lineno}"
        for name, tree in TREES.items()
        for _, call in calls(tree)
        for key in call.keywords
        if key.arg == "errors" and ast.unparse(key.value) == "'ignore'"
    ]
    assert dropped == []


def test_no_exception_is_swallowed():
    """No handler does just nothing; one that catches everything raises it again or logs it."""
    swallowed = [
        f"{name}:{handler.lineno}"
        for name, tree in TREES.items()
        for handler in ast.walk(tree)
        if isinstance(handler, ast.ExceptHandler)
        if isinstance(handler.body[-1], ast.Pass) or is_greedy(handler)
    ]
    assert swallowed == []


def test_only_the_command_prints():
    """Modules return values and raise errors; what people see is said at the top."""
    printing = [
        f"{name}:{call.lineno}"
        for name, tree in TREES.items()
        if not stands_in(name, PRINTS)
        for called, call in calls(tree)
        if called == "print" and isinstance(call.func, ast.Name)
    ]
    assert printing == []


def test_functions_and_modules_stay_short():
    """No function over 60 lines, no module over 300."""
    long = [
        f"{name}:{function.lineno} {function.name}: {function.end_lineno - function.lineno + 1}"
        for name, tree in TREES.items()
        for function in functions(tree)
        if function.end_lineno - function.lineno + 1 > 60
    ]
    sizes = {n: len(p.read_text(encoding="utf-8").splitlines()) for n, p in MODULES.items()}
    assert long + [f"{name}: {lines}" for name, lines in sizes.items() if lines > 300] == []


def test_every_module_says_what_it_is_for():
    """Each module, and each public function, opens with a sentence."""
    silent = [name for name, tree in TREES.items() if name and not ast.get_docstring(tree)]
    silent += [
        f"{name}:{function.lineno} {function.name}"
        for name, tree in TREES.items()
        for function in tree.body
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        if not function.name.startswith("_") and not ast.get_docstring(function)
    ]
    assert silent == []
