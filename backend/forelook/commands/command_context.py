"""What every command shares: exit statuses, what it is told of its process, and which backend its options mean."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from forelook.config import ModelConfig
from forelook.local.identity import BackendIdentity, UserPaths

EXIT_FAULT = 1
EXIT_USAGE = 2
EXIT_DOCUMENT = 3
EXIT_MODEL = 4
EXIT_BACKEND = 5
EXIT_INTERRUPTED = 130
LOADING_TIMEOUT_S = 600.0
SHELL_DEADLINE_MS = 10_000
ANSWER_TIMEOUT_S = 30.0
EXIT_CODES = f"""exit status:
  0  done
  {EXIT_FAULT}  doctor found a fault, or an error without a number of its own
  {EXIT_USAGE}  an argument or setting is wrong
  {EXIT_DOCUMENT}  the file or the cursor: missing, not UTF-8, too large, withheld, outside
  {EXIT_MODEL}  the model: unknown, not of the Llama family, damaged, too large
  {EXIT_BACKEND}  the backend: not running, not reachable, refuses
  {EXIT_INTERRUPTED}  interrupted"""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a command is told about its process."""

    environ: Mapping[str, str]
    paths: UserPaths


def complain(line: str) -> None:
    """A line for the user that is no result."""
    print(line, file=sys.stderr)


def identity_of(options: argparse.Namespace) -> BackendIdentity:
    """The backend that the model options mean."""
    model = ModelConfig(options.model, options.revision, options.device, options.dtype)
    return BackendIdentity(model.model, model.revision, model.device, model.dtype).normalized()
