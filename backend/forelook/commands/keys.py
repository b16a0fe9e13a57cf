"""``forelook keys``: the keys of a team's users, in a file that servers read."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from forelook.commands.command_context import CommandContext, complain
from forelook.commands.output import show_answers, show_table
from forelook.local.usage_ledger import UsageLedger, usage_path_of
from forelook.local.user_keys import Role, UserKey, issue_key, limit_key, read_keys, revoke_key

_COLUMNS = ("name", "role", "state", "issued", "requests_per_minute", "tokens_per_day", "today", "lately")


def keys(options: argparse.Namespace, context: CommandContext) -> int:
    """Issue, list, limit or revoke."""
    path = options.keys or context.paths.user_keys_path
    if options.action == "issue":
        role = Role.METRICS if options.metrics else Role.USER
        quotas = {"requests_per_minute": options.requests_per_minute, "tokens_per_day": options.tokens_per_day}
        print(issue_key(path, options.name, role=role, **quotas))
        complain(f"forelook: this is the only time that the key of {options.name} is shown; {path} keeps its hash")
    elif options.action == "limit":
        limit_key(path, options.name, options.requests_per_minute, options.tokens_per_day)
        complain(f"forelook: the quotas of {options.name} were replaced; running servers follow within seconds")
    elif options.action == "revoke":
        revoke_key(path, options.name)
        complain(f"forelook: the key of {options.name} is revoked; running servers close its connections in seconds")
    else:
        _list(path, as_json=options.json)
    return 0


def _list(path: Path, *, as_json: bool) -> None:
    ledger = UsageLedger(usage_path_of(path))
    rows = [_described(key, ledger) for key in read_keys(path)]
    if as_json:
        show_answers(rows, as_json=True)
    else:
        shown = [{**row, **{name: _counts(row[name]) for name in ("today", "lately")}} for row in rows]
        show_table(_COLUMNS, shown)


def _described(key: UserKey, ledger: UsageLedger) -> dict[str, object]:
    return {
        "name": key.name,
        "role": key.role.value,
        "state": "valid" if key.revoked_s is None else f"revoked {_day(key.revoked_s)}",
        "issued": _day(key.issued_s),
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_day": key.tokens_per_day,
        "today": asdict(ledger.today_of(key.principal)),
        "lately": asdict(ledger.lately_of(key.principal)),
    }


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d")


def _counts(usage: object) -> str:
    assert isinstance(usage, dict)
    return f"{usage['requests']} requests, {usage['tokens']} tokens, {usage['refused']} refused"
