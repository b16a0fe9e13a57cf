"""From an engine config to the engine's factory, without torch until an engine is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from forelook.config import EngineConfig
from forelook.engine_factory import engine_factory
from forelook.local.identity import UserPaths


def test_importing_the_factory_and_the_table_imports_neither_torch_nor_a_web_server() -> None:
    code = (
        "import sys; import forelook.engine_factory, forelook.config\n"
        "assert not {'torch', 'numpy', 'starlette', 'uvicorn', 'websockets'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("autoregressive", "expected"), [(False, ["lookup", "likeliest", "model"]), (True, ["model"])])
def test_functions_in_c_are_compiled_before_the_model_is_loaded_and_not_in_a_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autoregressive: bool, expected: list[str]
) -> None:
    from forelook.completion.engine import engine
    from forelook.decoding.native import library as likeliest_library
    from forelook.decoding.ngrams.native import library
    from forelook.model import default_model

    calls: list[str] = []
    monkeypatch.setattr(library, "native_lookup", lambda: calls.append("lookup"))
    monkeypatch.setattr(likeliest_library, "native_likeliest", lambda: calls.append("likeliest"))
    monkeypatch.setattr(default_model, "load_user_model", lambda *_, **__: calls.append("model"))
    monkeypatch.setattr(engine, "CompletionEngine", lambda load, *_, **__: load(lambda *_: None))
    paths = UserPaths(tmp_path, tmp_path, tmp_path, tmp_path)
    engine_factory(EngineConfig(autoregressive=autoregressive), paths)(lambda *_: None)
    assert calls == expected
