"""Which files may be read at all: ``.gitignore``, ``.forelookignore`` and a built-in list of secret-bearing names.

Standard library only, because the language server, which scans the workspace, and the backend, which checks again,
both use it. ``.gitignore`` files follow git's rules. ``.forelookignore`` has the same syntax, but is taken at its
word: a line that git would silently never match is a :class:`~forelook.errors.PrivacyError` here, and everything in
that folder is withheld until it is mended. No ignore file can let a built-in secret name through.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from forelook.errors import PrivacyError
from forelook.privacy.ignore_rules import IgnoreRules

GITIGNORE = ".gitignore"
FORELOOKIGNORE = ".forelookignore"
MAX_FILE_BYTES = 1 << 20
MAX_LINE_BYTES = 2000

_SECRET_STEMS = (
    "*credential*",
    "*secret*",
    "*password*",
    "*passwd*",
    "*service?account*",
    "*access?key*",
    "*api?key*",
    "*vault*",
)
_DATA_SUFFIXES = ("json", "yaml", "yml", "toml", "ini", "cfg", "conf", "csv", "txt", "xml", "properties", "plist")

SECRET_GLOBS: tuple[str, ...] = (
    # environment files and what shells remember
    ".env*", "*.env", ".direnv/", ".flaskenv", ".dev.vars", ".*_history", ".histfile",
    # keys, certificates, keyrings
    "*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.pkcs12", "*.jks", "*.keystore", "*.bks", "*.der", "*.crt", "*.cer",
    "*.csr", "*.ppk", "*.gpg", "*.pgp", "*.asc", "*.age", "*.agekey", "*.kdb", "*.kdbx", "*.keychain", "*.keychain-db",
    "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "ssh_host_*_key*", ".ssh/", ".gnupg/", "known_hosts",
    "authorized_keys", "secring.*", "*.ovpn", "*.rdp", "wg[0-9].conf", "*.mobileprovision",
    # credentials of tools
    ".netrc", "_netrc", ".npmrc", ".yarnrc", ".yarnrc.yml", ".pypirc", ".pgpass", "pgpass.conf", ".my.cnf",
    ".htpasswd", ".htdigest", ".git-credentials", ".gitcookies", ".boto", ".s3cfg", ".dockercfg", ".docker/", ".aws/",
    ".azure/", ".gcloud/", "**/.config/gcloud/", ".kube/", "*kubeconfig*", ".terraformrc", "terraform.rc",
    ".vault-token",
    ".vault_pass*", ".databrickscfg", "**/.gem/credentials", "**/.m2/settings.xml", "auth.json",
    ".snowsql/", "nuget.config", ".rhosts", ".remote-sync.json", ".ftpconfig", "sftp.json", "sftp-config.json",
    ".esmtprc", ".msmtprc", ".git/", ".hg/", ".svn/",
    # by their names: data files of these stems, and whole folders meant for them
    *(f"{stem}.{suffix}" for stem in _SECRET_STEMS for suffix in _DATA_SUFFIXES),
    "*.credentials", "*.secret", "*.secrets", "*.token", "*.passwd", "*.pwd", "secrets/", ".secrets/", ".token",
    "local.settings.json", "appsettings.*.json", "google-services.json", "GoogleService-Info.plist",
    # infrastructure state
    "*.tfstate", "*.tfstate.*", "*.tfvars", "*.tfvars.json", "*.tfplan", ".terraform/", "Pulumi.*.yaml", "Pulumi.*.yml",
    # dumps and stores
    "*.sqlite", "*.sqlite3", "*.db", "*.dump", "*.sql.gz", "*.bak", "*.pcap", "*.pcapng", "*.har", "*.wallet",
    "wallet.dat",
)  # fmt: skip
"""Names that are withheld whatever any ignore file says, in gitignore syntax, without regard to case."""

SECRET_FILE_NAMES: frozenset[str] = frozenset(
    {"credentials", "secret", "secrets", "token", "tokens", "password", "passwords", "passwd", "shadow", "kubeconfig"}
)
"""Files, not folders, of exactly these names (in lower case) are withheld too."""

SKIPPED_DIRECTORIES: frozenset[str] = frozenset(
    {
        "node_modules", "bower_components", "__pycache__", ".venv", "venv", ".tox", ".nox", ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache", ".hypothesis", ".eggs", "site-packages", ".gradle", ".next", ".nuxt", ".cache", "DerivedData",
    }
)  # fmt: skip
"""Folders of dependencies and build products: nobody's secrets, but nothing to learn from either."""

GENERATED_GLOBS: tuple[str, ...] = (
    "*.min.js", "*.min.css", "*.min.mjs", "*.bundle.js", "*-bundle.js", "*.chunk.js", "*.map", "*.lock",
    "package-lock.json",
    "npm-shrinkwrap.json", "pnpm-lock.yaml", "go.sum", "*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*.pb.go", "*.pb.cc",
    "*.pb.h",
    "*.g.dart", "*.freezed.dart", "*.designer.cs", "*.generated.*", "*.snap", "*.ipynb", "*.svg", "*.csv", "*.tsv",
)  # fmt: skip
"""Files written by tools: long, repetitive, and no guide to what a person writes next."""

_GENERATED_MARK = re.compile(
    rb"@generated|\b(?:auto-?generated|generated (?:by|from|with))\b.{0,80}|do not edit", re.IGNORECASE
)
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY")

_SECRETS = IgnoreRules("\n".join(SECRET_GLOBS).encode(), ignore_case=True, strict=True)
_GENERATED = IgnoreRules("\n".join(GENERATED_GLOBS).encode(), ignore_case=True, strict=True)


def is_secret_path(path: str) -> bool:
    """Whether a path's names alone forbid reading it; ``/`` or ``\\`` between its parts, relative or not."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if not parts:
        return False
    if parts[-1].lower() in SECRET_FILE_NAMES:
        return True
    names = [part.encode("utf-8", "surrogateescape") for part in parts]
    return _is_secret_folder(tuple(names[:-1])) or bool(_SECRETS.verdict(b"/".join(names), is_directory=False))


@lru_cache(maxsize=4096)
def _is_secret_folder(names: tuple[bytes, ...]) -> bool:
    """Whether a folder, or one above it, is withheld; remembered, as many files share it."""
    if not names:
        return False
    return _is_secret_folder(names[:-1]) or bool(_SECRETS.verdict(b"/".join(names), is_directory=True))


def is_generated_name(name: str) -> bool:
    """Whether a file's name says that a tool wrote it."""
    return bool(_GENERATED.verdict(os.fsencode(name), is_directory=False))


def content_reason(data: bytes) -> str | None:
    """Why a file's content is withheld or of no use; ``None`` when it is wanted."""
    if len(data) > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES} bytes"
    if b"\0" in data:
        return "binary"
    if _PRIVATE_KEY.search(data):
        return "it holds a private key"
    if _GENERATED_MARK.search(data, 0, 1000):
        return "generated by a tool"
    if max(map(len, data.split(b"\n"))) > MAX_LINE_BYTES:
        return "minified"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    return None


Parts = tuple[str, ...]
"""A path as its parts below the repository's top."""


@dataclass(slots=True)
class _Folder:
    """The ignore rules that stand in one folder."""

    git: IgnoreRules | None = None
    own: IgnoreRules | None = None
    error: PrivacyError | None = None


class WorkspacePrivacy:
    """What may be read of one workspace. Ignore files are read once: make a new object when one has changed.

    A path is withheld when any of these says so: it lies outside the workspace, a built-in secret name, a folder of
    dependencies, ``.gitignore`` (of the workspace, of the repository around it, and ``.git/info/exclude``),
    ``.forelookignore``, or an ignore file above it that cannot be understood or read.
    """

    def __init__(self, root: Path, *, ignore_case: bool = sys.platform in ("win32", "darwin")) -> None:
        """Take a workspace folder.

        Args:
            root: the folder.
            ignore_case: match ignore patterns without regard to case, as git does on such file systems.
        """
        self._given_root = Path(os.path.abspath(root))  # noqa: PTH100 - Path.absolute keeps ".."
        self._root = self._given_root.resolve()
        self._ignore_case = ignore_case
        self._folders: dict[Parts, _Folder] = {}
        self._verdicts: dict[Parts, str | None] = {}
        self._top = next(
            (folder for folder in (self._root, *self._root.parents) if (folder / ".git").exists()), self._root
        )
        self._root_parts = self._root.relative_to(self._top).parts
        self._exclude: IgnoreRules | None = None
        try:
            self._exclude = self._read_rules(self._top / ".git" / "info" / "exclude", strict=False)
        except PrivacyError as error:
            self._folder(self._root_parts).error = error

    @property
    def root(self) -> Path:
        """The workspace folder, symlinks resolved."""
        return self._root

    @property
    def errors(self) -> list[PrivacyError]:
        """Ignore files met so far that cannot be understood; what lies under them is withheld."""
        return [folder.error for folder in self._folders.values() if folder.error is not None]

    def permits(self, path: Path) -> bool:
        """Whether nothing withholds the path; what its file holds is not looked at."""
        return self.reason(path) is None

    def reason(self, path: Path) -> str | None:
        """Why a path is withheld, for people; ``None`` when it is permitted.

        A symlink is judged by its own name and by what it leads to.

        Args:
            path: absolute, or relative to the workspace. It need not exist.
        """
        absolute = Path(os.path.abspath(self._root / path))  # noqa: PTH100 - without following links
        if absolute.is_relative_to(self._given_root):
            absolute = self._root / absolute.relative_to(self._given_root)
        try:
            resolved = absolute.resolve()
        except (OSError, RuntimeError):
            return "a link that leads nowhere"
        for candidate in dict.fromkeys((absolute, resolved)):
            if not candidate.is_relative_to(self._root):
                return "outside the workspace"
            withheld = self._reason(candidate.relative_to(self._top).parts, is_directory=candidate.is_dir())
            if withheld is not None:
                return withheld
        return None

    def walk(self) -> Iterator[Path]:
        """All permitted files, by name and size, in a stable order; linked folders are not entered."""
        pending: list[tuple[Path, Parts]] = [(self._root, self._root_parts)]
        while pending:
            folder, parts = pending.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                continue  # a folder that cannot be read has nothing for us
            below: list[tuple[Path, Parts]] = []
            for entry in entries:
                entry_parts = (*parts, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if self._reason(entry_parts, is_directory=True) is None:
                        below.append((folder / entry.name, entry_parts))
                elif self._wanted(entry, entry_parts):
                    yield folder / entry.name
            pending.extend(reversed(below))

    def read(self, path: Path) -> str:
        """The text of a permitted file.

        Raises:
            PrivacyError: the path is withheld, or its content is: too large, binary, not UTF-8, minified, generated,
                or a private key.
            OSError: the file cannot be read.
        """
        withheld = self.reason(path)
        if withheld is not None:
            raise PrivacyError(f"{path} is withheld: {withheld}")
        # Without O_NONBLOCK, opening a named pipe would wait for its writer.
        descriptor = os.open((self._root / path).resolve(), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PrivacyError(f"{path} is withheld: not a regular file")
            data = file.read(MAX_FILE_BYTES + 1)
        withheld = content_reason(data)
        if withheld is not None:
            raise PrivacyError(f"{path} is withheld: {withheld}")
        return data.decode("utf-8")

    def _wanted(self, entry: os.DirEntry[str], parts: Parts) -> bool:
        """Whether a directory entry that is no folder is a permitted file worth reading."""
        try:
            if not entry.is_file() or entry.stat().st_size > MAX_FILE_BYTES or is_generated_name(entry.name):
                return False
        except OSError:
            return False  # gone meanwhile
        if entry.is_symlink():
            return self.permits(Path(entry.path))
        return self._reason(parts, is_directory=False) is None

    def _reason(self, parts: Parts, *, is_directory: bool) -> str | None:
        """Why a path within the workspace is withheld; what withholds a folder withholds all below it."""
        if parts in self._verdicts:
            return self._verdicts[parts]
        if len(parts) <= len(self._root_parts):
            return self._error(parts)
        withheld = self._reason(parts[:-1], is_directory=True) or self._own_reason(parts, is_directory=is_directory)
        if is_directory:
            withheld = withheld or self._error(parts)
            self._verdicts[parts] = withheld
        return withheld

    def _own_reason(self, parts: Parts, *, is_directory: bool) -> str | None:
        below_root = parts[len(self._root_parts) :]
        if is_secret_path("/".join((*below_root, "_") if is_directory else below_root)):
            return "its name is on the list of secrets"
        if is_directory and parts[-1] in SKIPPED_DIRECTORIES:
            return "a folder of dependencies or build products"
        if self._verdict(parts, len(self._root_parts), is_directory=is_directory, own=True):
            return f"listed in {FORELOOKIGNORE}"
        verdict = self._verdict(parts, 0, is_directory=is_directory, own=False)
        if verdict is None and self._exclude is not None:
            verdict = self._exclude.verdict(_join(parts), is_directory=is_directory)
        return f"listed in {GITIGNORE}" if verdict else None

    def _verdict(self, parts: Parts, top: int, *, is_directory: bool, own: bool) -> bool | None:
        """The verdict of the ignore files from the path's own folder upwards: the first that has one decides."""
        for depth in range(len(parts) - 1, top - 1, -1):
            folder = self._folder(parts[:depth])
            rules = folder.own if own else folder.git
            if rules is not None:
                verdict = rules.verdict(_join(parts[depth:]), is_directory=is_directory)
                if verdict is not None:
                    return verdict
        return None

    def _error(self, parts: Parts) -> str | None:
        error = self._folder(parts).error
        return None if error is None else str(error)

    def _folder(self, parts: Parts) -> _Folder:
        found = self._folders.get(parts)
        if found is None:
            found = self._folders[parts] = _Folder()
            path = self._top.joinpath(*parts)
            try:
                found.git = self._read_rules(path / GITIGNORE, strict=False)
                if len(parts) >= len(self._root_parts):
                    found.own = self._read_rules(path / FORELOOKIGNORE, strict=True)
            except PrivacyError as error:
                found.error = error
        return found

    def _read_rules(self, path: Path, *, strict: bool) -> IgnoreRules | None:
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise PrivacyError(
                f"{path} cannot be read ({error.strerror}); everything under its folder is withheld until it can"
            ) from error
        return IgnoreRules(text, ignore_case=self._ignore_case, strict=strict, source=str(path))


def _join(parts: Parts) -> bytes:
    return b"/".join(map(os.fsencode, parts))
