"""Installed libraries that open files import: where their sources are, and their texts.

Python's standard library, as the language server itself uses it, Go's standard library and its module cache. Nothing is
run to find them. What is inside a folder of the window is left out: there the folder's rules say what may be read, and
they exclude environments and installed packages. All of it blocks: it runs in threads, never on the event loop.
"""

from __future__ import annotations

import re
import shutil
import sysconfig
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from forelook.languages import LibraryLayout, language_for, language_id_of
from forelook.local.files import read_regular_file
from forelook.privacy.content import content_reason, is_generated_name
from forelook.privacy.secrets import is_secret_path
from forelook.protocol.messages import WorkspaceFile

from forelook_lsp.workspace_files import CHUNK_BYTES, CHUNK_FILES, OpenFile

# All chosen, not measured; the whole is about a million tokens.
MAX_TOTAL_BYTES = 4 * 2**20
MAX_LIBRARY_FILE_BYTES = 256 * 2**10
MAX_FILES_OF_IMPORT = 60

_PYTHON_IMPORT = re.compile(r"^[ \t]*(?:from[ \t]+([\w.]+)[ \t]+import\b|import[ \t]+([\w., \t]+))", re.MULTILINE)
_GO_IMPORT = re.compile(r'^[ \t]*(?:import[ \t]+)?(?:[\w.]+[ \t]+)?"([\w./~-]+)"[ \t]*$', re.MULTILINE)
_GO_REQUIRE = re.compile(r"^[ \t]*(?:require[ \t]+)?([\w.~/-]+\.[\w.~/-]+)[ \t]+(v[\w.+-]+)", re.MULTILINE)
_IMPORT_CHARS = 200_000


@dataclass(frozen=True, slots=True)
class Library:
    """A folder with the sources of libraries.

    Attributes:
        folder: the folder.
        name: of the folder in all workspaces, with the version: workspaces of one version share its files.
    """

    folder: Path
    name: str


class Dependencies:
    """The libraries of one window's folders, each file of them once.

    Args:
        roots: the window's folders.
        is_inside: whether a path is in a folder of the window.
    """

    def __init__(self, roots: Sequence[Path], is_inside: Callable[[Path], bool]) -> None:
        self._roots = roots
        self._is_inside = is_inside
        self._seen: set[str] = set()
        self._bytes_left = MAX_TOTAL_BYTES

    def new_parts(self, open_files: Sequence[OpenFile], stop: threading.Event) -> Iterator[list[WorkspaceFile]]:
        """Yield the texts of library files that these files import and earlier ones did not, in small parts."""
        part: list[WorkspaceFile] = []
        for key, path in self._files(open_files):
            if stop.is_set() or self._bytes_left <= 0:
                break
            if key in self._seen:
                continue
            self._seen.add(key)
            text = self._read(key, path)
            if text is None:
                continue
            self._bytes_left -= len(text)
            part.append(WorkspaceFile(key, text))
            if len(part) == CHUNK_FILES or sum(len(file.text) for file in part) > CHUNK_BYTES:
                yield part
                part = []
        if part and not stop.is_set():
            yield part

    def _files(self, open_files: Sequence[OpenFile]) -> Iterator[tuple[str, Path]]:
        """Name and path of every file of an imported library; some do not exist."""
        for file in open_files:
            text, language = file.text[:_IMPORT_CHARS], language_for(language_id_of(file.path.suffix))
            if language.libraries is LibraryLayout.MODULES:
                found = (_module_files(python_library(), name, language.suffix) for name in python_imports(text))
            elif language.libraries is LibraryLayout.PACKAGES:
                packages = [self._go_package(name) for name in dict.fromkeys(_GO_IMPORT.findall(text))]
                found = (_folder_files(library, language.suffix) for library in packages if library is not None)
            else:
                continue
            for library, paths in found:
                for path in paths:
                    yield f"{library.name}/{path.relative_to(library.folder).as_posix()}", path

    def _go_package(self, name: str) -> Library | None:
        if ".." in name.split("/") or name.startswith(("/", ".", "~")):
            return None  # no library's name, and it could lead anywhere
        standard = go_root()
        if standard is not None and (standard / "src" / name).is_dir():
            version = standard.name if standard.name != "go" else "go"
            return Library(standard / "src" / name, f"{version}/src/{name}")
        for root in self._roots:
            for module, version in _requirements(root / "go.mod"):
                if name == module or name.startswith(f"{module}/"):
                    below = name.removeprefix(module).lstrip("/")
                    folder = _module_cache() / f"{_escaped(module)}@{_escaped(version)}" / below
                    return Library(folder, f"{module}@{version}/{below}".rstrip("/"))
        return None

    def _read(self, key: str, path: Path) -> str | None:
        if is_secret_path(key) or is_generated_name(path.name) or self._is_inside(path):
            return None
        try:
            data = read_regular_file(path, MAX_LIBRARY_FILE_BYTES, follows_links=False)
        except OSError:
            return None  # most names of modules are no file in most libraries
        return data.decode() if content_reason(data) is None else None


def python_imports(text: str) -> list[str]:
    """The modules that a Python file imports from elsewhere, in order."""
    names: dict[str, None] = {}
    for match in _PYTHON_IMPORT.finditer(text):
        listed = [match[1]] if match[1] else [part.split()[0] for part in match[2].split(",") if part.split()]
        names.update(dict.fromkeys(name for name in listed if name and not name.startswith(".")))
    return list(names)


def python_library() -> Library:
    """The standard library that runs this."""
    folder = Path(sysconfig.get_path("stdlib"))
    return Library(folder, folder.name)


def go_root() -> Path | None:
    """Where Go is installed; ``None`` without it."""
    program = shutil.which("go")
    if program is None:
        return None
    root = Path(program).resolve().parent.parent
    return root if (root / "src").is_dir() else None


def _module_files(library: Library, name: str, suffix: str) -> tuple[Library, list[Path]]:
    """The module itself, its package's other modules, and the package at the top: a dotted name's parts are folders."""
    top, *rest = name.split(".")
    folder = library.folder / top
    named = library.folder.joinpath(top, *rest)
    paths = [folder.with_suffix(suffix), folder / f"__init__{suffix}", named.with_suffix(suffix)]
    return library, [*dict.fromkeys([*paths, *_sorted(named, suffix)])]


def _folder_files(library: Library, suffix: str) -> tuple[Library, list[Path]]:
    return library, [path for path in _sorted(library.folder, suffix) if not path.stem.endswith("_test")]


def _sorted(folder: Path, suffix: str) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == suffix)[:MAX_FILES_OF_IMPORT]
    except OSError:
        return []


def _requirements(path: Path) -> list[tuple[str, str]]:
    """Modules and versions of a ``go.mod``, the longest names first."""
    try:
        text = read_regular_file(path, 1 << 18).decode("utf-8", "replace")
    except OSError:
        return []
    return sorted(_GO_REQUIRE.findall(text), key=lambda pair: -len(pair[0]))


def _module_cache() -> Path:
    return Path.home() / "go" / "pkg" / "mod"


def _escaped(name: str) -> str:
    """A module's name as the cache spells it: a capital letter is an exclamation mark and the small one."""
    return re.sub(r"[A-Z]", lambda match: f"!{match[0].lower()}", name)
