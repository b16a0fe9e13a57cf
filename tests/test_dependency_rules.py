"""The rules of dependency of ARCHITECTURE.md, read off the sources' import statements."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOTS = (REPOSITORY / "backend", REPOSITORY / "lsp")

# Room -> the rooms of Forelook it may import. A room is a package or a module; a module belongs to the longest name
# that covers it. Permission to import a room from outside includes its sub-rooms; inside a room, each is named.
LEAVES = {
    "forelook",
    "forelook.budgets",
    "forelook.compiled",
    "forelook.confidence",
    "forelook.errors",
    "forelook.finish_reason",
    "forelook.heap",
    "forelook.import_path",
    "forelook.keys",
    "forelook.languages",
    "forelook.text",
    "forelook.text_edits",
    "forelook.uris",
    "forelook.failures",
    "forelook.percentiles",
    "forelook.settings",
}
SHARED = LEAVES | {"forelook.config", "forelook.protocol", "forelook.privacy", "forelook.local"}
DECODING_VALUES = {
    f"forelook.decoding.{name}"
    for name in (
        "layout",
        "likeliest",
        "native",
        "limits",
        "request",
        "stats",
        "verification",
        "drafting.draft",
        "drafting.costs",
        "drafting.budget",
    )
}
MODEL_VALUES = {
    f"forelook.model.{name}"
    for name in (
        "families",
        "infill_templates",
        "identity",
        "infill",
        "formatted_prompts",
        "config",
        "memory",
        "quantization",
        "cpu_threads",
        "control_tokens",
        "tokenizer",
    )
}
ALLOWED: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    "forelook.budgets": {"forelook.errors"},
    "forelook.failures": {"forelook.text"},
    "forelook.settings": {"forelook.errors"},
    "forelook.config": LEAVES,
    "forelook.protocol": LEAVES,
    "forelook.privacy": LEAVES | {"forelook.local.files"},
    "forelook.local.files": LEAVES,
    "forelook.local": LEAVES | {"forelook.config", "forelook.protocol", "forelook.local.files"},
    **{name: LEAVES | DECODING_VALUES - {name} for name in DECODING_VALUES},
    "forelook.decoding.ngrams": LEAVES | DECODING_VALUES,
    "forelook.decoding.lookahead": LEAVES | DECODING_VALUES,
    "forelook.decoding.drafting": LEAVES
    | DECODING_VALUES
    | {"forelook.decoding.lookahead", "forelook.decoding.ngrams"},
    "forelook.decoding.lookahead.published": LEAVES
    | DECODING_VALUES
    | {"forelook.decoding.lookahead", "forelook.decoding.drafting"},
    "forelook.decoding": LEAVES | DECODING_VALUES | {"forelook.decoding.drafting"},
    "forelook.decoding.parallel": LEAVES
    | DECODING_VALUES
    | {
        "forelook.decoding",
        "forelook.decoding.drafting",
        "forelook.decoding.lookahead",
        "forelook.decoding.lookahead.published",
    },
    **{name: LEAVES | MODEL_VALUES - {name} for name in MODEL_VALUES},
    "forelook.model.forward": LEAVES | MODEL_VALUES | {"forelook.decoding.layout"},
    "forelook.model": LEAVES | MODEL_VALUES | {"forelook.model.forward", "forelook.decoding", "forelook.local"},
    "forelook.workspace": LEAVES | {"forelook.decoding", "forelook.model.tokenizer", "forelook.local"},
    "forelook.completion.document_store": LEAVES | {"forelook.protocol"},
    "forelook.completion.cursor": LEAVES | {"forelook.protocol"},
    "forelook.completion.prompt": LEAVES
    | {
        "forelook.protocol",
        "forelook.completion.document_store",
        "forelook.completion.cursor",
        "forelook.model.tokenizer",
        "forelook.model.infill",
        "forelook.model.infill_templates",
        "forelook.model.formatted_prompts",
    },
    "forelook.completion": LEAVES
    | {
        "forelook.config",
        "forelook.protocol",
        "forelook.completion.document_store",
        "forelook.completion.cursor",
        "forelook.completion.prompt",
        "forelook.model",
        "forelook.decoding",
    },
    "forelook.completion.engine": LEAVES
    | {
        "forelook.config",
        "forelook.protocol",
        "forelook.local",
        "forelook.completion",
        "forelook.completion.document_store",
        "forelook.completion.prompt",
        "forelook.model",
        "forelook.decoding",
        "forelook.workspace",
    },
    "forelook.ranks": SHARED | {"forelook.completion", "forelook.model", "forelook.decoding"},
    "forelook.engine_factory": SHARED
    | {
        "forelook.server",
        "forelook.ranks",
        "forelook.completion",
        "forelook.decoding",
        "forelook.model",
        "forelook.workspace",
    },
    "forelook.server.engine": SHARED,
    "forelook.server.auth": SHARED,
    "forelook.server.metrics": SHARED,
    "forelook.server.prometheus": SHARED | {"forelook.server.metrics"},
    "forelook.server.http": SHARED
    | {"forelook.server.engine", "forelook.server.auth", "forelook.server.metrics", "forelook.server.prometheus"},
    "forelook.server": SHARED
    | {
        "forelook.server.engine",
        "forelook.server.auth",
        "forelook.server.metrics",
        "forelook.server.prometheus",
        "forelook.server.http",
    },
    "forelook.cluster": SHARED | {"forelook.server", "forelook.server.engine", "forelook.engine_factory"},
    "forelook_lsp": SHARED,
}
ALLOWED["forelook.commands"] = {name for name in ALLOWED if name != "forelook_lsp"}
EVERYTHING = {"forelook.__main__"}
STANDARD_LIBRARY_ONLY = tuple(sorted(SHARED))
SOCKET_MODULES = {
    "socket",
    "websockets",
    "starlette",
    "uvicorn",
    "httpx",
    "http",
    "socketserver",
    "ssl",
    "urllib.request",
}
MAY_TOUCH_SOCKETS = {
    "forelook.server",
    "forelook.server.auth",
    "forelook.server.http",
    "forelook.local",
    "forelook.commands",
    "forelook.cluster",
}
LSP_MAY_TOUCH_SOCKETS = {
    "forelook_lsp.backend_connection",
    "forelook_lsp.transports.websocket",
    "forelook_lsp.command_line",
}
# The last only passes PATH and the user's folders to git.
READS_ENVIRONMENT = {"forelook.commands.cli", "forelook_lsp.command_line", "forelook.privacy.git"}


def modules() -> Iterator[tuple[str, Path]]:
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imports(path: Path, module: str) -> Iterator[tuple[str, int]]:
    """Every imported module, those inside functions included; names imported from a package count as modules."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative import; this project writes them in full"
            source = node.module or ""
            for alias in node.names:
                name = f"{source}.{alias.name}"
                yield (name if name in MODULES else source), node.lineno


def unit(module: str) -> str:
    """The entry of ALLOWED that a module belongs to: the longest that covers it."""
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in ALLOWED and (length > 1 or name != "forelook" or len(parts) == 1):
            return name
    return module


def may_import(own: str, target: str) -> bool:
    """Whether modules of one room may import those of another."""
    for room in {own} | ALLOWED[own]:
        is_outside = room != "forelook" and not f"{own}.".startswith(f"{room}.")
        if target == room or (is_outside and target.startswith(f"{room}.")):
            return True
    return False


def test_the_table_names_rooms_that_exist_and_imports_that_happen() -> None:
    assert ALLOWED.keys() <= MODULES.keys()
    needed: dict[str, set[str]] = {room: set() for room in ALLOWED}
    for module, path in MODULES.items():
        if module not in EVERYTHING:
            needed[unit(module)] |= {unit(name) for name, _ in imports(path, module) if name in MODULES}
    for room in ALLOWED.keys() - {"forelook.commands"}:
        for permitted in ALLOWED[room] - SHARED - DECODING_VALUES - MODEL_VALUES:
            used = any(f"{name}.".startswith(f"{permitted}.") for name in needed[room])
            assert used, f"{room} does not import {permitted}: remove it from the table"


def test_sub_rooms_are_closed_to_the_rooms_below_them() -> None:
    cursor, prompt = "forelook.completion.cursor", "forelook.completion.prompt"
    assert may_import(prompt, cursor)
    assert not may_import(cursor, prompt)
    assert not may_import("forelook.completion", "forelook.completion.engine")
    assert may_import("forelook.completion", "forelook.decoding.parallel")
    assert not may_import("forelook.decoding", "forelook.decoding.parallel")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_imports_only_what_its_layer_may(module: str) -> None:
    if module in EVERYTHING:
        return
    own = unit(module)
    assert own in ALLOWED, f"{module} belongs to no layer: name its place in this table and in ARCHITECTURE.md"
    for name, line in imports(MODULES[module], module):
        if name.split(".")[0] in {"forelook", "forelook_lsp"}:
            assert may_import(own, unit(name)), f"{module}:{line} must not import {name}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    above = {module: {name for name, _ in imports(path, module) if name in MODULES} for module, path in MODULES.items()}
    while free := {module for module, needed in above.items() if not needed & above.keys()}:
        for module in free:
            del above[module]
    assert not above, f"these modules are part of a circle, or import one: {sorted(above)}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if unit(m) in STANDARD_LIBRARY_ONLY))
def test_shared_module_needs_only_the_standard_library(module: str) -> None:
    for name, line in imports(MODULES[module], module):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names or top == "forelook", f"{module}:{line} imports {name}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.startswith("forelook_lsp")))
def test_language_server_never_imports_the_model(module: str) -> None:
    for name, line in imports(MODULES[module], module):
        top = name.split(".")[0]
        assert top not in {"torch", "numpy", "tokenizers", "transformers", "safetensors"}, f"{module}:{line}: {name}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m.startswith("forelook.")))
def test_backend_knows_no_editor_protocol(module: str) -> None:
    for name, line in imports(MODULES[module], module):
        assert name.split(".")[0] not in {"pygls", "lsprotocol"}, f"{module}:{line} imports {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_only_the_borders_touch_sockets(module: str) -> None:
    if module in LSP_MAY_TOUCH_SOCKETS or unit(module) in MAY_TOUCH_SOCKETS or module in MAY_TOUCH_SOCKETS:
        return
    for name, line in imports(MODULES[module], module):
        assert not {name.split(".")[0], name} & SOCKET_MODULES, f"{module}:{line} imports {name}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if m not in READS_ENVIRONMENT))
def test_only_the_entry_points_read_arguments_and_environment(module: str) -> None:
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            spelled = f"{node.value.id}.{node.attr}"
            assert spelled not in {"os.environ", "os.getenv", "sys.argv"}, f"{module}:{node.lineno} reads {spelled}"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            assert not {a.name for a in node.names} & {"environ", "getenv"}, f"{module}:{node.lineno}"


def test_importing_the_package_does_not_import_torch() -> None:
    import subprocess

    code = "import sys, forelook, forelook.errors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_tests_and_scripts_cannot_do_without_is_declared() -> None:
    """Imports inside a function are a matter of that function, which says what is missing."""
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    declared = {"lsprotocol"}  # pygls brings the version of it that it needs
    declared |= {normal_name(re.split(r"[^\w.-]", requirement)[0]) for requirement in wanted}
    paths = sorted(path for folder in ("scripts", "tests") for path in (REPOSITORY / folder).rglob("*.py"))
    here = {name for path in paths for name in (path.stem, path.parent.name)}
    known = {*sys.stdlib_module_names, *here, "forelook", "forelook_lsp"}
    distributions = packages_distributions()
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for top in {name.split(".")[0] for name in names} - known:
                found = {normal_name(each) for each in distributions.get(top, [top])}
                assert found & declared, f"{path.relative_to(REPOSITORY)}:{node.lineno}: declare {top} in an extra"


def normal_name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()
