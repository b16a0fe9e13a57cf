"""From an engine config to the engine's factory, without torch until an engine is made."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_factory_and_the_table_imports_neither_torch_nor_a_web_server() -> None:
    code = (
        "import sys; import forelook.engine_factory, forelook.config\n"
        "assert not {'torch', 'numpy', 'starlette', 'uvicorn', 'websockets'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
