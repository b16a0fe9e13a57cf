"""Made repositories, and what git says of every path in them beside what Forelook says.

``python -m tests.privacy.git_comparison 2000`` compares that many; the test suite compares a few.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from forelook.privacy.rules import WorkspacePrivacy

# Harmless to the lists of secrets and dependencies, so that only git's rules decide.
_NAMES = ("a", "b", "ab", "abc", "x.c", "x.h", "foo.c", "[ab]", "a*b", "!a", "#a", "a b", "a ", "é", "-", "bin")
_FOLDERS = ("a", "b", "ab", "foo", "bin", "out", "a b", "lib.c")
_PARTS = (
    "a", "b", "ab", "*", "**", "?", "*.c", "*.h", "foo", "bin", "out", "[ab]", "[!a]", "[^b]", "[a-c]b", "[[:alpha:]]",
    "[[:digit:]x].c", "x.?", "a*", "*b",
    "\\!a", "\\#a", "\\[ab\\]", "a\\*b", "a b", "é", "-", "f*o", "[", "a\\", "[a/]",
)  # fmt: skip


def git(folder: Path, *arguments: str, home: Path, stdin: bytes | None = None) -> bytes:
    """Run git as a user would, with a home of its own."""
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@a",
    }  # fmt: skip
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, input=stdin, env=environment, capture_output=True, check=False, timeout=60).stdout


def rules(random_: random.Random) -> bytes:
    """An ignore file."""
    lines = []
    for _ in range(random_.randint(1, 6)):
        pattern = "/".join(random_.choice(_PARTS) for _ in range(random_.choice((1, 1, 1, 2, 2, 3))))
        pattern = random_.choice(("", "", "", "!", "/", "!/", "**/")) + pattern + random_.choice(("", "", "/", "/**"))
        lines.append(pattern + random_.choice(("", "", "", " ", "\\ ", "\t", "\r")))
    return (b"\xef\xbb\xbf" if random_.random() < 0.05 else b"") + "\n".join(lines).encode() + b"\n"


def fill(random_: random.Random, folder: Path, num_files: int) -> None:
    """Make files and ignore files."""
    for _ in range(num_files):
        parts = [random_.choice(_FOLDERS) for _ in range(random_.choice((0, 1, 1, 2, 3)))]
        path = folder.joinpath(*parts, random_.choice(_NAMES))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.is_dir():
                path.touch()
        except (FileExistsError, NotADirectoryError):
            continue
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir() and ".git" not in path.parts)]
    for place in random_.sample(folders, min(len(folders), random_.randint(1, 3))):
        (place / ".gitignore").write_bytes(rules(random_))


def make_repository(random_: random.Random, folder: Path, home: Path) -> list[Path]:
    """Make one repository, with others in it; return the tops of all."""
    folder.mkdir()
    git(folder, "init", "-q", home=home)
    fill(random_, folder, random_.randint(5, 14))
    tops = [folder]
    if random_.random() < 0.4:
        exclude = folder / ".git" / "info" / "exclude"
        exclude.parent.mkdir(exist_ok=True)
        exclude.write_bytes(rules(random_))
    if random_.random() < 0.2:
        git(folder, "config", "core.ignoreCase", "true", home=home)
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    tracked = random_.sample(files, min(len(files), random_.randint(0, 4)))
    names = b"\0".join(os.fsencode(path.relative_to(folder)) for path in tracked)
    if names:
        git(
            folder, "--literal-pathspecs", "add", "-f", "--pathspec-from-file=-", "--pathspec-file-nul",
            home=home, stdin=names,
        )  # fmt: skip
    places = [path for path in folder.rglob("*") if path.is_dir() and ".git" not in path.parts]
    if places and random_.random() < 0.35:
        inner = random_.choice(places) / "inner"
        inner.mkdir()
        git(inner, "init", "-q", home=home)
        fill(random_, inner, 5)
        git(inner, "add", "-f", random_.choice(_NAMES[:5]), home=home)
        tops.append(inner)
    if random_.random() < 0.25:
        git(folder, "commit", "-q", "--allow-empty", "-m", "m", home=home)
        tree = folder.parent / (folder.name + "-tree")
        git(folder, "worktree", "add", "-q", str(tree), home=home)
        if tree.exists():
            fill(random_, tree, 5)
            tops.append(tree)
    if files and random_.random() < 0.3:
        link = folder / "link"
        link.symlink_to(random_.choice(files).relative_to(folder))
    if random_.random() < 0.1 and not (folder / "b" / ".gitignore").exists() and (folder / "b").is_dir():
        (folder / "b" / ".gitignore").symlink_to("../.gitignore")
    return tops


def ignored_by_git(top: Path, paths: list[Path], tracked: set[Path], home: Path) -> set[Path]:
    """Those of the paths below a repository's top that it ignores."""
    stdin = b"".join(os.fsencode(path.relative_to(top)) + b"\0" for path in paths)
    # Without the index: with it, git takes a name such as "[ab]" for a glob, and finds the tracked file "b".
    output = git(top, "check-ignore", "--no-index", "-z", "--stdin", home=home, stdin=stdin) if paths else b""
    return {top / os.fsdecode(name) for name in output.split(b"\0") if name} - tracked


def paths_of(top: Path, others: list[Path]) -> list[Path]:
    """All paths of one repository but those of others inside it."""
    inside = [other for other in others if other != top and other.is_relative_to(top)]
    return [
        path
        for path in sorted(top.rglob("*"))
        if (path.is_file() or path.is_symlink())
        and ".git" not in path.relative_to(top).parts
        and not any(path.is_relative_to(other) for other in inside)
    ]


def differences(seed: int, folder: Path, home: Path) -> tuple[list[str], int]:
    """Where Forelook and git disagree in one made repository, and how many paths were compared."""
    random_ = random.Random(seed)
    (home / ".config" / "git").mkdir(parents=True, exist_ok=True)
    user_rules = home / ".config" / "git" / "ignore"
    user_rules.write_bytes(rules(random_) if random_.random() < 0.3 else b"")
    (home / ".gitconfig").write_bytes(b"")
    if random_.random() < 0.2:
        (home / "own-ignore").write_bytes(rules(random_))
        git(home, "config", "--global", "core.excludesFile", "~/own-ignore", home=home)
    tops = make_repository(random_, folder, home)
    found: list[str] = []
    num_compared = 0
    for top in tops:
        paths = paths_of(top, tops)
        root = tops[0] if top.is_relative_to(tops[0]) else top
        tracked = {top / os.fsdecode(name) for name in git(top, "ls-files", "-z", home=home).split(b"\0") if name}
        ignored = ignored_by_git(top, paths, tracked, home)
        privacy = WorkspacePrivacy(root)
        listed = set(privacy.files(top)) if tracked else set()
        for path in paths:
            num_compared += 1
            names = {path, path.resolve()} if path.is_symlink() else {path}
            expected = bool(names & ignored)
            if (privacy.reason(path) is not None) != expected:
                found.append(f"seed {seed}: {path.relative_to(folder.parent)}: git {expected}, Forelook {not expected}")
            # What git tracks is listed, except names that the listing leaves out and links to what is ignored.
            if tracked and (path in listed) != (path in tracked and not expected):
                found.append(f"seed {seed}: {path.relative_to(folder.parent)}: listed {path in listed}")
    return found, num_compared


def compare(num_repositories: int, first_seed: int = 0) -> tuple[list[str], int]:
    """Compare made repositories; the home of git and of Forelook is a made one."""
    found: list[str] = []
    num_compared = 0
    former = {name: os.environ.get(name) for name in ("HOME", "XDG_CONFIG_HOME", "GIT_CONFIG_NOSYSTEM")}
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            (folder / "home").mkdir()
            os.environ["HOME"] = str(folder / "home")
            os.environ.pop("XDG_CONFIG_HOME", None)
            for seed in range(first_seed, first_seed + num_repositories):
                place = folder / str(seed)
                place.mkdir()
                more, num = differences(seed, place / "r", folder / "home")
                found += more
                num_compared += num
                subprocess.run(["rm", "-rf", str(place)], check=False)
    finally:
        for variable, value in former.items():
            os.environ.pop(variable, None) if value is None else os.environ.__setitem__(variable, value)
    return found, num_compared


def main() -> None:
    """Compare as many repositories as the first argument says, from the seed that the second says."""
    number, first = (int(sys.argv[1]) if len(sys.argv) > 1 else 2000), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    started_s = time.monotonic()
    found, num_compared = compare(number, first)
    for line in found[:40]:
        print(line)
    duration_s = time.monotonic() - started_s
    print(f"{number} repositories, {num_compared} paths, {len(found)} differences, {duration_s:.0f} s")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
