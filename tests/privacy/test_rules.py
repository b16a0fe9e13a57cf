"""What may be read: git itself as the oracle of ignore rules, and ignore files that cannot be parsed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from forelook.errors import PrivacyError
from forelook.privacy import rules
from forelook.privacy.content import MAX_FILE_BYTES, content_reason, is_generated_name
from forelook.privacy.rules import WorkspacePrivacy
from hypothesis import example, given, settings
from hypothesis import strategies as st

GIT_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "HOME": os.devnull,
}


def git(folder: Path, *arguments: str, stdin: bytes = b"", check: bool = True) -> bytes:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        input=stdin,
        env=GIT_ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert not check or done.returncode in (0, 1), done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    git(folder, "init", "-q")
    return folder


def files_below(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    )


def ignored_by_git(folder: Path, paths: list[str]) -> set[str]:
    stdin = b"".join(os.fsencode(path) + b"\0" for path in paths)
    out = git(folder, "check-ignore", "--no-index", "-z", "--stdin", stdin=stdin)
    return {os.fsdecode(path) for path in out.split(b"\0") if path}


def ignored_by_us(folder: Path, paths: list[str]) -> set[str]:
    privacy = WorkspacePrivacy(folder, ignore_case=False)
    return {path for path in paths if privacy.reason(folder / path) is not None}


# Names are harmless to the built-in list, so that only the ignore files decide.
FILES = (
    "c", "d", "ab", "abc", "x.c", "x.h", "foo.c", "[ab]", "a*b", "a?b", "!a", "#a", "a\\b", "a ", "é", "ä.c", "-",
    "a/a", "a/x.c", "a/c", "a/b/c", "a/b/x.c", "a/b/foo", "a/b/c.x", "foo/bar", "foo/x.c", "foo/a/bar", "b/a/b/a",
    "b/foo/x.h", "b/b", "a b/c",
)  # fmt: skip
CASES = (
    "*.c", "/x.c", "a/", "/a/", "a/*", "a/**", "**/a", "**/b/c", "a/**/x.c", "a/**/c", "**", "*", "/*", "!a",
    "*\n!a", "*\n!a/\n!a/b", "a/*\n!a/b", "a\n!a/b", "foo/bar", "/foo/bar", "foo/**/bar", "**/foo/**", "foo/*",
    "a?b", "?", "??", "[ab]", "[!a]", "[^a]", "[a-c]b", "[]a]", "[a-]", "[]-a]", "\\[ab\\]", "a\\*b", "\\!a", "\\#a",
    "#a", "a\\", "[a", "a[", "[[:alpha:]]", "[[:alpha:]", "[[:foo:]]", "[[:digit:]x].c", "[z-a]", "[a-c-e]",
    "[\\]a]", "a\\\\b", "a ", "a\\ ", "a b", "a b ", "\\a", "x.c\r", "a\r\nb\r\n", "\ufeffa\nb", "/", "//", "!",
    "!\n*", "a//b", "**/", "/**", "***", "a***", "a**b", "**a", "a/***/c", "*/b", "*/*", "*/*/c", "/*/b", "a*/",
    "foo*bar", "f*o", "*o*", "é", "?.c", "??.c", "*\\", "[é]", "*/", "!*/", "*\n!*/\n!*.c", "*\n!/a\n/a/*\n!/a/b",
    " a", "\ta", "a\t", "", "\n\n", "[*]", "a[*]b", "a[?]b", "[a/]b", "a[/]b", "-", "[--a]", "[+--]",
)  # fmt: skip


@pytest.mark.parametrize("rules", CASES)
@pytest.mark.parametrize("where", ["", "a", "foo"])
def test_gitignore_agrees_with_git(workspace: Path, rules: str, where: str) -> None:
    check_against_git(workspace, {where: rules})


PATTERN = st.text(st.sampled_from("ab*?/![]^-\\ c.x"), max_size=7)
IGNORE_FILE = st.lists(PATTERN, max_size=5).map("\n".join)


@given(st.dictionaries(st.sampled_from(["", "a", "a/b", "foo", "b"]), IGNORE_FILE, max_size=3))
@example({"": "*\n!a/\n", "a": "!b"})
@settings(max_examples=200, deadline=None)
def test_any_nest_of_gitignore_files_agrees_with_git(workspace: Path, rules: dict[str, str]) -> None:
    check_against_git(workspace, rules)


def check_against_git(workspace: Path, rules: dict[str, str]) -> None:
    for name in FILES:
        path = workspace / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for old in workspace.rglob(".gitignore"):
        old.unlink()
    for folder, text in rules.items():
        (workspace / folder / ".gitignore").write_bytes(text.encode())
    paths = files_below(workspace)
    assert ignored_by_us(workspace, paths) == ignored_by_git(workspace, paths)


def test_exclude_file_and_rules_of_the_repository_around_the_workspace_count(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    (tmp_path / ".gitignore").write_text("*.log\n/sub/deep/one.py\n")
    (tmp_path / ".git" / "info").mkdir(exist_ok=True)
    (tmp_path / ".git" / "info" / "exclude").write_text("*.tmp\n")
    for name in ("a.log", "a.tmp", "a.py", "deep/one.py", "deep/two.py"):
        (tmp_path / "sub" / name).touch()
    privacy = WorkspacePrivacy(tmp_path / "sub")
    assert [path.relative_to(tmp_path).as_posix() for path in privacy.files()] == ["sub/a.py", "sub/deep/two.py"]


def test_walk_and_permits_say_the_same(workspace: Path) -> None:
    check_against_git(workspace, {"": "*.c\n", "a": "!x.c\n"})
    privacy = WorkspacePrivacy(workspace, ignore_case=False)
    walked = {path.relative_to(workspace).as_posix() for path in privacy.files()}
    assert walked == {path for path in files_below(workspace) if privacy.permits(Path(path))}
    assert "a/x.c" in walked
    assert "x.c" not in walked


def test_forelookignore_excludes_and_cannot_undo_gitignore(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    for name in ("a.py", "b.py", "sub/a.py", "sub/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("b.py\n")
    (tmp_path / ".forelookignore").write_text("a.py\n!b.py\n")
    (tmp_path / "sub" / ".forelookignore").write_text("!a.py\n")
    assert {path.name for path in WorkspacePrivacy(tmp_path).files()} == {
        ".gitignore",
        ".forelookignore",
        "a.py",
        "c.py",
    }
    assert not WorkspacePrivacy(tmp_path).permits(tmp_path / "a.py")
    assert WorkspacePrivacy(tmp_path).permits(tmp_path / "sub" / "a.py")


@pytest.mark.parametrize("line", [b"[a", b"a\\", b"[[:foo:]]", b"!", b"/", b"[z-a]", b"\xff\xfe", b"a\0b"])
def test_an_error_in_forelookignore_excludes_everything_under_it(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("a.py", "sub/b.py", "sub/deep/c.py"):
        (tmp_path / name).touch()
    (tmp_path / "sub" / ".forelookignore").write_bytes(b"# fine\n*.log\n" + line + b"\n")
    privacy = WorkspacePrivacy(tmp_path)
    assert [path.name for path in privacy.files()] == ["a.py"]
    assert not privacy.permits(Path("sub/deep/c.py"))
    with pytest.raises(PrivacyError, match="excluded"):
        privacy.read(Path("sub/b.py"))
    assert len(privacy.errors) == 1
    assert "line 3" in str(privacy.errors[0])
    assert "sub" in str(privacy.errors[0])


@pytest.mark.parametrize("name", [".forelookignore", ".gitignore"])
def test_an_ignore_file_that_cannot_be_read_excludes_everything_under_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.py").touch()
    (tmp_path / name).mkdir()  # reading it fails with EISDIR, for root too
    privacy = WorkspacePrivacy(tmp_path)
    assert not privacy.permits(Path("a.py"))
    assert list(privacy.files()) == []
    assert len(privacy.errors) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_links_are_judged_by_what_they_lead_to(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "x.py").write_text("x")
    (root / "real.py").write_text("r")
    (root / ".env").write_text("A=1")
    (root / "leaves.py").symlink_to(outside / "x.py")
    (root / "leaves").symlink_to(outside)
    (root / "secret.py").symlink_to(root / ".env")
    (root / "fine.py").symlink_to(root / "real.py")
    (root / "loop").symlink_to(root)
    (root / "nowhere.py").symlink_to(root / "missing.py")
    (root / "self.py").symlink_to(root / "self.py")
    privacy = WorkspacePrivacy(root)
    assert sorted(path.name for path in privacy.files()) == ["fine.py", "real.py"]
    for name in ("leaves.py", "leaves/x.py", "secret.py", "self.py"):
        assert privacy.reason(root / name) is not None, name
    assert privacy.reason(root / "leaves.py") == "outside the workspace"
    assert privacy.reason(Path("../outside/x.py")) == "outside the workspace"
    (tmp_path / "link-to-root").symlink_to(root)
    assert WorkspacePrivacy(tmp_path / "link-to-root").permits(tmp_path / "link-to-root" / "real.py")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"x = 1\n", None),
        (b"", None),
        ("größe = 1\n".encode(), None),
        (b"a\0b", "binary"),
        (b"caf\xe9", "UTF-8"),
        (b"x" * 3000, "minified"),
        (b"x\n" * (MAX_FILE_BYTES // 2 + 1), "larger"),
        (b"# @generated by a tool\nx = 1\n", "generated"),
        (b"# Code generated by protoc. DO NOT EDIT.\n", "generated"),
        (b"KEY = '''-----BEGIN RSA PRIVATE KEY-----\nMIIE'''", "private key"),
        (b"x = 1\n" * 400 + b"# do not edit\n", None),
    ],
)
def test_content_that_is_excluded(data: bytes, reason: str | None) -> None:
    found = content_reason(data)
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_generated_names_are_skipped() -> None:
    assert is_generated_name("jquery.min.js")
    assert is_generated_name("package-lock.json")
    assert not is_generated_name("admin.js")


def test_read_gives_the_text_and_refuses_what_is_excluded(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes("x = 'é'\r\n".encode())
    (tmp_path / "b.bin").write_bytes(b"\0\1")
    os.mkfifo(tmp_path / "pipe")
    privacy = WorkspacePrivacy(tmp_path)
    assert privacy.read(tmp_path / "a.py") == "x = 'é'\r\n"
    for name in ("b.bin", "pipe", ".env"):
        with pytest.raises(PrivacyError, match=name):
            privacy.read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        privacy.read(tmp_path / "missing.py")


def test_folders_of_dependencies_are_not_walked(tmp_path: Path) -> None:
    for name in ("node_modules/x/a.js", ".venv/lib/a.py", "src/a.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert [path.name for path in WorkspacePrivacy(tmp_path).files()] == ["a.py"]
    assert not WorkspacePrivacy(tmp_path).permits(Path("node_modules/x/a.js"))


@pytest.mark.parametrize("has_proc", [True, False])
def test_a_folder_swapped_between_the_check_and_the_opening_gives_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_proc: bool
) -> None:
    root, outside = tmp_path / "w", tmp_path / "outside"
    for folder in (root / "sub", outside):
        folder.mkdir(parents=True)
    (root / "sub" / "a.py").write_text("harmless\n")
    (outside / "a.py").write_text("not yours\n")
    if not has_proc:
        monkeypatch.setattr(rules, "_name_of", lambda _descriptor, name: name)
    privacy = rules.WorkspacePrivacy(root)
    really_open = os.open

    def swap_and_open(path: os.PathLike[str], flags: int, *more: int) -> int:
        (root / "sub").rename(root / "kept")
        (root / "sub").symlink_to(outside)
        try:
            return really_open(path, flags, *more)
        finally:
            if not has_proc:  # swapped back at once: only the file's identity tells
                (root / "sub").unlink()
                (root / "kept").rename(root / "sub")

    monkeypatch.setattr(rules.os, "open", swap_and_open)
    with pytest.raises(PrivacyError):
        privacy.read(Path("sub/a.py"))
