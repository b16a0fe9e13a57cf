"""Where this process imports modules from. Imports nothing that Python has not imported by itself at its start."""

import os
import sys


def leave_out_working_folder() -> None:
    """Import no modules from the working folder, unless Forelook itself is in it.

    ``python -m`` puts that folder first, as do ``.`` and an empty entry in ``PYTHONPATH``: a project's ``token.py``
    would take the place of Python's.
    """
    try:
        here = os.path.realpath(os.getcwd())  # noqa: PTH109 - importing pathlib imports what is to be left out
    except OSError:
        return  # the folder was deleted: nothing can be imported from it
    own = os.path.realpath(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120
    if here != own:
        sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != here]
