"""``python -m forelook``, and with it ``torchrun -m forelook``: the ``forelook`` command."""

from __future__ import annotations

import sys

from forelook.commands.cli import main

sys.exit(main())
