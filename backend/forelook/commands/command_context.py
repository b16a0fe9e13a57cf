"""What all commands share: exit statuses, the process environment, and the backend that their options name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields

from forelook.local.endpoint import Endpoint
from forelook.local.identity import BackendIdentity, UserPaths

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_DOCUMENT = 3
EXIT_MODEL = 4
EXIT_BACKEND = 5
EXIT_INTERRUPTED = 130
LOADING_TIMEOUT_S = 600.0  # chosen, not measured: the largest models on the slowest disks
SHELL_DEADLINE_MS = 10_000  # chosen, not measured: a shell can wait longer than an editor
ANSWER_TIMEOUT_S = 30.0  # chosen, not measured
EXIT_CODES = f"""exit status:
  0  done
  {EXIT_FAULT}  doctor found a fault, or any other error
  {EXIT_USAGE}  invalid argument or setting
  {EXIT_DOCUMENT}  file or cursor: missing, not UTF-8, too large, excluded, out of range
  {EXIT_MODEL}  model: unknown, of another family, damaged, too large
  {EXIT_BACKEND}  backend: not running, unreachable, connection refused
  {EXIT_INTERRUPTED}  interrupted"""


@dataclass(frozen=True, slots=True)
class CommandContext:
    """The process environment and the folders of its user."""

    environ: Mapping[str, str]
    paths: UserPaths


def complain(line: str) -> None:
    """Print a message to stderr; stdout is for results."""
    print(line, file=sys.stderr)


def given_endpoint(options: argparse.Namespace) -> Endpoint | None:
    """The backend given with ``--endpoint`` and ``--token-file``.

    Raises:
        EndpointError: the address is invalid.
    """
    if options.endpoint is None:
        return None
    return Endpoint.from_url(options.endpoint, str(options.token_file) if options.token_file else None)


def identity_of(options: argparse.Namespace) -> BackendIdentity:
    """The backend that the model flags mean."""
    names = {item.name for item in fields(BackendIdentity)}
    return BackendIdentity(**{name: value for name, value in vars(options).items() if name in names}).normalized()


def left_to_right_of(options: argparse.Namespace) -> bool:
    """Whether ``--left-to-right`` was given; a setting's flag that was not is absent from the namespace."""
    return getattr(options, "left_to_right", False)
