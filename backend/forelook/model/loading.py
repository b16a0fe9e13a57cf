"""From a folder or hub id to a model that can run."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from forelook.errors import CheckpointError, ConfigError, ModelNotFoundError, TokenizerError
from forelook.model.checkpoint import INDEX_NAME, SINGLE_NAME, read_weights
from forelook.model.config import LlamaConfig, parse_config, token_ids
from forelook.model.cpu_threads import ThreadGovernor
from forelook.model.families import InfillOrder
from forelook.model.forward.cuda_graphs import CudaGraphs
from forelook.model.forward.layers import LlamaWeights, kv_cache_dtype
from forelook.model.forward.llama import LlamaSequence
from forelook.model.forward.static_step import BucketedSequence, StepSpace
from forelook.model.forward.step_ops import choose_step_ops
from forelook.model.infill import InfillFormat, infill_formats
from forelook.model.memory import available_memory, check_memory, out_of_memory_named, positions_that_fit
from forelook.model.quantization import QUANTIZED_DTYPES, quantizer
from forelook.model.token_healing import TokenHealer
from forelook.model.tokenizer import CodeTokenizer

STARTER_MODEL_PATH = Path(__file__).resolve().parents[1] / "starter_model"
STARTER_MODEL_NAME = "starter-model"

_DTYPES = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
    "float64": torch.float64,
}
# What a CPU that multiplies bfloat16 calls it; elsewhere it is emulated and slower than float32.
_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")
_LOG = logging.getLogger(__name__)
ProgressCallback = Callable[[float, str], None]


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        name: as the user gave it; ``"starter-model"`` for the one in the package.
        revision: the hub revision asked for, if any.
        fingerprint: names model, revision and tokenizer; part of every cache key.
        device: where it runs.
        dtype: what it computes in.
        weight_format: of the layers' matrices: the name of ``dtype``, or ``"int8"`` or ``"int4"``.
        config: shapes and constants.
        weights: shared by all sequences.
        tokenizer: text to ids and back.
        infill: the default infill format.
        infill_formats: all formats the model was trained on, the default first.
        healer: token healing over the vocabulary.
        stop_token_ids: what ends an infilled middle: the format's stops and the model's own.
        status_line: what a user should know about this model, empty when there is nothing.
        threads: chooses the CPU threads of each forward; ``None`` on other devices.
        max_positions: most tokens of prompt and output together: the model's, or what its device has memory for.
        space: what the sequences on a GPU share; ``None`` on other devices.
    """

    name: str
    revision: str | None
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    weight_format: str
    config: LlamaConfig
    weights: LlamaWeights
    tokenizer: CodeTokenizer
    infill: InfillFormat
    infill_formats: tuple[InfillFormat, ...]
    healer: TokenHealer
    stop_token_ids: frozenset[int]
    status_line: str
    threads: ThreadGovernor | None
    max_positions: int
    space: StepSpace | None = None

    def new_sequence(self, max_positions: int | None = None) -> LlamaSequence:
        """A sequence with its own KV cache over the shared weights."""
        positions = self.max_positions if max_positions is None else max_positions
        if self.space is not None:
            return BucketedSequence(self.space, positions)
        return LlamaSequence(self.weights, positions, self.threads)


def load_model(
    model: str | None,
    *,
    revision: str | None = None,
    folder: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    allow_left_to_right: bool = True,
    on_progress: ProgressCallback | None = None,
) -> LoadedModel:
    """Load a Llama-family checkpoint.

    Args:
        model: a folder, a hub id (``owner/name``), or ``None`` for the starter model in the package.
        revision: a hub branch, tag or commit.
        folder: where the files of a hub id are, if that is known; the hub is then not asked.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        dtype: ``"auto"``, ``"bfloat16"``, ``"float16"``, ``"float32"`` or ``"float64"``; ``"int8"`` or ``"int4"`` keep
            the layers' matrices in so many bits and compute in the device's own format.
        allow_left_to_right: take a model without infill sentinels too; it never sees the text after the cursor.
        on_progress: told the share of the weights loaded and a line for people. On a GPU told too, later, of each step
            that is captured when it is first run, and then an empty line when it has been.

    Raises:
        ModelError: one of its kinds, naming what is wrong and what to do.
        ConfigError: no such device or dtype.
    """
    torch_device = choose_device(device)
    quantized = dtype if dtype in QUANTIZED_DTYPES else None
    torch_dtype = choose_dtype("auto" if quantized else dtype, torch_device)
    quantize = quantizer(quantized, torch_device, torch_dtype) if quantized else None
    report = on_progress or (lambda _fraction, _line: None)
    name = STARTER_MODEL_NAME if model is None else model
    report(0.0, f"Loading {name}")
    if folder is None:
        folder = STARTER_MODEL_PATH if model is None else find_checkpoint(model, revision, report)

    raw = _read_json(folder / "config.json")
    config = parse_config(raw, str(folder / "config.json"))
    generation = _read_json(folder / "generation_config.json", required=False)
    tokenizer = CodeTokenizer.from_file(folder / "tokenizer.json")
    if tokenizer.vocab_size > config.vocab_size and not _extra_ids_are_control(tokenizer, config.vocab_size):
        raise TokenizerError(
            f"{folder / 'tokenizer.json'} has ids up to {tokenizer.vocab_size - 1} but the model only "
            f"{config.vocab_size} embeddings; use the tokenizer.json that was published with the model"
        )
    eos_ids = sorted({*config.eos_token_ids, *token_ids(generation.get("eos_token_id"))})
    formats = infill_formats(
        tokenizer,
        model_name=name,
        vocab_size=config.vocab_size,
        bos_token_id=config.bos_token_id,
        eos_token_ids=eos_ids,
    )
    infills = formats[0].order is not InfillOrder.PLAIN
    if not infills and not allow_left_to_right:
        raise TokenizerError(
            f"{name}: {folder / 'tokenizer.json'} has none of the infill sentinels this version knows, so the model "
            "could not use the text after the cursor. Choose a model trained to infill, or take it as it is with "
            "`forelook serve --left-to-right`"
        )
    kv_dtype = kv_cache_dtype(torch_dtype, torch_device)
    check_memory(config, torch_dtype, kv_dtype, torch_device, name, available_memory(torch_device), quantized)
    with out_of_memory_named(f"the weights of {name}"):
        weights = read_weights(
            folder, config, torch_dtype, torch_device, lambda fraction: report(fraction, f"Loading {name}"), quantize
        )
    line = "" if infills else f"{name} was not trained to infill: text after the cursor is not used"
    loaded = LoadedModel(
        name=name,
        revision=revision,
        fingerprint=_fingerprint(name, f"{revision or ''}{quantized or ''}", folder, tokenizer),
        device=torch_device,
        dtype=torch_dtype,
        weight_format=quantized or str(torch_dtype).removeprefix("torch."),
        config=config,
        weights=weights,
        tokenizer=tokenizer,
        infill=formats[0],
        infill_formats=formats,
        healer=TokenHealer(tokenizer),
        stop_token_ids=formats[0].stop_token_ids,
        status_line=line,
        threads=ThreadGovernor() if torch_device.type == "cpu" else None,
        max_positions=positions_that_fit(config, kv_dtype, torch_device, available_memory(torch_device)),
        space=_step_space(weights, report) if torch_device.type == "cuda" else None,
    )
    report(1.0, line or f"{name} is ready")
    return loaded


def _step_space(weights: LlamaWeights, report: ProgressCallback) -> StepSpace:
    """Where the steps of a GPU are captured, each when it is first run."""
    report(1.0, "Choosing the operators of a step")
    ops = choose_step_ops(weights.config, weights.device, weights.dtype)
    _LOG.info("attention of a step: %s, %s", ops.attention_name, ops.reason)
    return StepSpace(weights, ops, CudaGraphs(weights.device), lambda line: report(1.0, line))


def choose_device(device: str) -> torch.device:
    """The torch device for a setting."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = torch.device("meta")
    if chosen.type not in ("cpu", "cuda"):
        raise ConfigError("device", device, "'auto', 'cpu', 'cuda' or 'cuda:N'")
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise ConfigError("device", device, f"'cpu', or one of the {count} CUDA devices this torch can see")
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype for a setting; ``"auto"`` is bfloat16 where the device computes in it, else float32."""
    if dtype != "auto":
        if dtype not in _DTYPES:
            raise ConfigError("dtype", dtype, f"'auto' or one of {', '.join((*_DTYPES, *QUANTIZED_DTYPES))}")
        return _DTYPES[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if any(capabilities.get(name) for name in _CPU_BFLOAT16) else torch.float32


def find_checkpoint(
    model: str, revision: str | None, report: ProgressCallback, *, download: Callable[..., str] | None = None
) -> Path:
    """The folder of a model, downloaded from the hub when it is none.

    Args:
        model: a folder or a hub id.
        revision: a hub branch, tag or commit.
        report: told that the hub is asked.
        download: ``huggingface_hub.snapshot_download`` by default.

    Raises:
        ModelNotFoundError: neither a folder nor a hub id that can be had.
        CheckpointError: a single file.
    """
    folder = Path(model).expanduser()
    if model and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(f"{folder} holds no config.json; give the folder of a Hugging Face checkpoint")
        return folder
    if folder.is_file():
        raise CheckpointError(
            f"{folder} is a single file; give the folder of a Hugging Face checkpoint (config.json, tokenizer.json and "
            "safetensors). GGUF, GPTQ, AWQ, EXL2 and pickled checkpoints are not read"
        )
    if not model or model.startswith(("/", ".", "~")) or model.endswith("/") or model.count("/") > 1:
        raise ModelNotFoundError(f"model {model!r}: no such folder, and not a hub id such as owner/name")
    return _download(model, revision, report, download)


def _download(model: str, revision: str | None, report: ProgressCallback, download: Callable[..., str] | None) -> Path:
    # Imported here: the hub's client takes a quarter of a second that a local model need not pay.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = model if revision is None else f"{model} at revision {revision}"
    report(0.0, f"Fetching from the hub what the local cache lacks of {where}; a first download can take long")
    fetch = snapshot_download if download is None else download
    try:
        path = fetch(
            model, revision=revision, allow_patterns=["*.json", "*.safetensors"], ignore_patterns=["consolidated*"]
        )
    except HFValidationError as error:
        raise ModelNotFoundError(f"{model!r} is neither a folder nor a hub id such as owner/name") from error
    except LocalEntryNotFoundError as error:
        raise ModelNotFoundError(
            f"{where} is not in the local cache and the hub cannot be reached; connect once to download it, or give "
            "the folder of a checkpoint"
        ) from error
    except HfHubHTTPError as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelNotFoundError(
            f"{where} cannot be downloaded: {reason}. Check the name, and for a gated model log in with `hf auth login`"
        ) from error
    return Path(path)


def _extra_ids_are_control(tokenizer: CodeTokenizer, vocab_size: int) -> bool:
    return not any(tokenizer.token_bytes(token_id) for token_id in range(vocab_size, tokenizer.vocab_size))


def _read_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise CheckpointError(f"{path} is missing")
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object")
    return value


def _fingerprint(name: str, revision: str | None, folder: Path, tokenizer: CodeTokenizer) -> str:
    """Names what was loaded without reading the weights twice: their files' names and sizes stand for them."""
    digest = hashlib.sha256()
    for part in (name, revision or "", tokenizer.fingerprint):
        digest.update(part.encode() + b"\0")
    for path in sorted([folder / "config.json", folder / INDEX_NAME, folder / SINGLE_NAME]):
        if path.is_file():
            content = path.read_bytes() if path.suffix == ".json" else str(path.stat().st_size).encode()
            digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()[:24]
