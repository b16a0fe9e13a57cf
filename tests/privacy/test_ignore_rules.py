"""Git's ignore patterns; that they agree with git is tested in test_rules.py."""

from __future__ import annotations

import time

import pytest
from forelook.errors import PrivacyError
from forelook.privacy.ignore_rules import IgnoreRules


def test_a_line_that_can_never_match_is_named_with_its_fix_only_if_strict() -> None:
    text = b"*.log\n[a\n"
    with pytest.raises(PrivacyError, match=r"\.forelookignore, line 2: an unclosed bracket; fix this line; until then"):
        IgnoreRules(text, strict=True, source=".forelookignore")
    assert len(IgnoreRules(text)) == 1


@pytest.mark.parametrize("pattern", [b"*a" * 40 + b"b", b"**/*a" * 20 + b"/b", b"a*" * 60, b"**/" * 40 + b"x"])
def test_hostile_patterns_take_no_exponential_time(pattern: bytes) -> None:
    rules = IgnoreRules(pattern)
    started = time.process_time()
    rules.verdict(b"a" * 200, is_directory=False)
    rules.verdict(b"/".join([b"aaaa"] * 60), is_directory=False)
    assert time.process_time() - started < 5  # a backtracking match would take longer than the universe is old
