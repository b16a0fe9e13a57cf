"""Loads a model from a folder or hub id."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from forelook.errors import CheckpointError, ConfigError, ModelNotFoundError, TokenizerError
from forelook.model.adapter import Adapter, read_adapter
from forelook.model.checkpoint import INDEX_NAME, SINGLE_NAME, has_safetensors, read_weights
from forelook.model.confidence import ConfidenceTable, read_confidence
from forelook.model.config import LlamaConfig, parse_config, token_ids
from forelook.model.cpu_threads import ThreadGovernor
from forelook.model.format_choice import choose_format
from forelook.model.forward.cuda_graphs import CudaGraphs
from forelook.model.forward.layers import LlamaWeights, kv_cache_dtype
from forelook.model.forward.llama import LlamaSequence
from forelook.model.forward.native.library import must_compile
from forelook.model.forward.static_step import BucketedSequence, StepSpace
from forelook.model.forward.step_ops import choose_step_ops
from forelook.model.gguf.checkpoint import GgufCheckpoint, own_format, read_checkpoint
from forelook.model.gguf.files import HubGguf, find_gguf, gguf_on_hub, parts_of
from forelook.model.identity import ModelIdentity, identity_of_folder, identity_of_gguf
from forelook.model.infill import InfillFormat, doubts, infill_formats
from forelook.model.memory import available_memory, check_memory, out_of_memory_named, positions_that_fit
from forelook.model.model_files import ModelFiles
from forelook.model.pair_file import pairs_path
from forelook.model.quantization import QUANTIZED_DTYPES
from forelook.model.token_healing import TokenHealer
from forelook.model.tokenizer import CodeTokenizer
from forelook.settings.kinds import DEVICE

STARTER_MODEL_PATH = Path(__file__).resolve().parents[1] / "starter_model"
STARTER_MODEL_NAME = "starter-model"

_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "float64")}
# CPU features with native bfloat16 products; without them bfloat16 is emulated and slower than float32.
_CPU_BFLOAT16 = ("avx512_bf16", "amx_bf16")
logger = logging.getLogger(__name__)
ProgressCallback = Callable[[float, str], None]


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        name: as the user gave it; ``"starter-model"`` for the bundled model.
        revision: the requested hub revision, if any.
        fingerprint: identifies model, revision and tokenizer; part of every cache key.
        device: the torch device of weights and cache.
        dtype: the dtype of the computation.
        weight_format: format of the layers' matrices: the name of ``dtype``, or ``"int8"`` or ``"int4"``.
        format_reason: why it was chosen.
        config: shapes and constants.
        weights: shared by all sequences.
        tokenizer: text to ids and back.
        infill: the default infill format.
        infill_formats: all formats the model was trained with, the default first.
        healer: token healing over the vocabulary.
        stop_token_ids: ids that end an infilled middle: the format's stops and the model's ends of sequence.
        status_line: a notice for users about this model; usually empty.
        threads: chooses the CPU threads of each forward; ``None`` on other devices.
        max_positions: maximum number of tokens of prompt and output: the model's own, or as many as fit into memory.
        files: what it was loaded from.
        confidence: how likely a line must be to be shown unasked.
        pairs_path: file of what the model says after frequent pairs of tokens; ``None`` where there is none.
        space: state that the sequences on a GPU share; ``None`` on other devices.
    """

    name: str
    revision: str | None
    fingerprint: str
    device: torch.device
    dtype: torch.dtype
    weight_format: str
    format_reason: str
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
    files: ModelFiles
    confidence: ConfidenceTable = field(default_factory=ConfidenceTable)
    pairs_path: Path | None = None
    space: StepSpace | None = None

    @property
    def window(self) -> int | None:
        """Number of tokens that a token sees where the model has a sliding window."""
        return self.config.window

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
    adapter: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    allow_left_to_right: bool = True,
    on_progress: ProgressCallback | None = None,
) -> LoadedModel:
    """Load a checkpoint of one of the families.

    Args:
        model: a folder, a GGUF file, a hub id (``owner/name``), a GGUF file on the hub (``owner/name:file.gguf``), or
            ``None`` for the bundled starter model.
        revision: a hub branch, tag or commit.
        folder: folder with the files of a hub id, or a GGUF file, if known; the hub is then not contacted.
        adapter: folder of a low-rank adapter to merge into the weights.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        dtype: ``"auto"``, ``"bfloat16"``, ``"float16"``, ``"float32"`` or ``"float64"``; ``"int8"`` or ``"int4"`` store
            the layers' matrices in that many bits. See :func:`~forelook.model.format_choice.choose_format`.
        allow_left_to_right: accept a model without infill sentinels; it never sees the text after the cursor.
        on_progress: called with the share of the weights loaded and a line for users. On a GPU it is called later too:
            before each step size is captured, and with an empty line afterwards.

    Raises:
        ModelError: a subclass that names the problem and the fix.
        ConfigError: the device or dtype does not exist.
    """
    torch_device = choose_device(device)
    plain_dtype = choose_dtype("auto" if dtype in QUANTIZED_DTYPES else dtype, torch_device)
    report = on_progress or (lambda _fraction, _line: None)
    name = STARTER_MODEL_NAME if model is None else model
    report(0.0, f"Loading {name}")
    if folder is None:
        folder = STARTER_MODEL_PATH if model is None else find_checkpoint(model, revision, report)
    elif model is not None and (file := gguf_on_hub(model)) is not None:
        folder = folder / file.name

    files = ModelFiles(folder, adapter=adapter)
    change = None if adapter is None else read_adapter(adapter)
    read = _read_files(folder, name, change)
    config, tokenizer, eos_ids = read.config, read.tokenizer, read.eos_token_ids
    if tokenizer.vocab_size > config.vocab_size and not _extra_ids_are_control(tokenizer, config.vocab_size):
        raise TokenizerError(
            f"{read.tokenizer_path} has ids up to {tokenizer.vocab_size - 1}, but the model has only "
            f"{config.vocab_size} embeddings; use the tokenizer.json that was published with the model"
        )
    formats = infill_formats(
        tokenizer,
        identity=read.identity,
        vocab_size=config.vocab_size,
        bos_token_id=config.bos_token_id,
        eos_token_ids=eos_ids,
        format_name=None if change is None else change.config.infill,
    )
    if read.gguf is not None and read.gguf.sentinels is not None and (change is None or change.config.infill is None):
        formats = own_format(formats, read.gguf.sentinels, config.bos_token_id, eos_ids)
    if not formats[0].sees_suffix and not allow_left_to_right:
        where = name if name == str(read.tokenizer_path) else f"{name}: {read.tokenizer_path}"
        raise TokenizerError(
            f"{where} has none of the infill sentinels that this version supports, so "
            "the model would ignore the text after the cursor; choose a model trained to infill, or accept it with "
            "`--left-to-right`, in an editor with the setting `forelook.leftToRight`"
        )
    share = 0.0 if read.gguf is None or change is not None else read.gguf.four_bit_share
    if torch_device.type == "cpu" and must_compile():
        report(0.0, f"Compiling kernels for this processor, once; then loading {name}")
    chosen = choose_format(dtype, plain_dtype, torch_device, config, share)
    torch_dtype, quantized = chosen.dtype, chosen.quantized
    kv_dtype = kv_cache_dtype(torch_dtype, torch_device)
    check_memory(config, torch_dtype, kv_dtype, torch_device, name, available_memory(torch_device), quantized)
    # An adapter's sum is computed from what the file has, not from what the device's format leaves of it.
    read_dtype = chosen.matrices.read_dtype if change is None else torch.float32
    source = None if read.gguf is None else read.gguf.tensors(read_dtype)
    with out_of_memory_named(f"the weights of {name}"):
        weights = read_weights(
            folder,
            config,
            torch_dtype,
            torch_device,
            lambda fraction: report(fraction, f"Loading {name}"),
            chosen.matrices,
            source,
            change,
        )
    lines = doubts(read.identity, formats[0], name) if change is None or change.config.infill is None else []
    if source is not None and (cost := source.cost(weights.nbytes, chosen.name)):
        logger.info("%s: %s", name, cost)
        lines += [cost] if change is None else []  # an adapter's base is what it is
    line = "; ".join(lines)
    loaded = LoadedModel(
        name=name,
        revision=revision,
        fingerprint=_fingerprint(
            name, f"{revision or ''}{quantized or ''}{'' if change is None else change.fingerprint}", read
        ),
        device=torch_device,
        dtype=torch_dtype,
        weight_format=chosen.name,
        format_reason=chosen.reason,
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
        files=files,
        confidence=read_confidence(folder if adapter is None else adapter),
        pairs_path=pairs_path(folder if adapter is None else adapter),
        space=_step_space(weights, report) if torch_device.type == "cuda" else None,
    )
    report(1.0, line or f"{name} is ready")
    return loaded


def _step_space(weights: LlamaWeights, report: ProgressCallback) -> StepSpace:
    """The shared state of a GPU's sequences, in which each step size is captured on its first run."""
    report(1.0, "Choosing the operators of a decode step")
    ops = choose_step_ops(weights.config, weights.device, weights.dtype)
    logger.info("attention of a decode step: %s, %s", ops.attention_name, ops.reason)
    return StepSpace(weights, ops, CudaGraphs(weights.device), lambda line: report(1.0, line))


def choose_device(device: str) -> torch.device:
    """The torch device for a setting.

    Raises:
        ConfigError: the device does not exist here.
    """
    if not DEVICE.accepts(device):
        raise ConfigError("device", device, DEVICE.allowed)
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and (not torch.cuda.is_available() or (chosen.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise ConfigError("device", device, f"'cpu', or one of the {count} CUDA devices this torch can see")
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype for a setting; ``"auto"`` is bfloat16 if the device supports it natively, else float32.

    On a GPU without bfloat16, ``"auto"`` is float16.

    Raises:
        ConfigError: the dtype does not exist.
    """
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
    """The folder or the first GGUF file of a model; a hub id is downloaded first.

    Args:
        model: as for :func:`load_model`.
        revision: a hub branch, tag or commit.
        report: called before the hub is contacted.
        download: ``huggingface_hub.snapshot_download`` by default.

    Raises:
        ModelNotFoundError: neither a folder nor an available hub id.
        CheckpointError: a single file.
    """
    folder = Path(model).expanduser()
    gguf = find_gguf(folder) if model and not has_safetensors(folder) else None
    if gguf is not None:
        return parts_of(gguf)[0]
    if model and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFoundError(
                f"{folder} has no config.json and no GGUF file; give the folder of a Hugging Face checkpoint or a "
                "GGUF file"
            )
        return folder
    if folder.is_file():
        raise CheckpointError(
            f"{folder} is a single file and no GGUF file; give a GGUF file or the folder of a Hugging Face checkpoint "
            "(config.json, tokenizer.json and safetensors). GPTQ, AWQ, EXL2 and pickled checkpoints are not supported"
        )
    if (file := gguf_on_hub(model)) is not None:
        return _download(file.repository, revision, report, download, file) / file.name
    if not model or model.startswith(("/", ".", "~")) or model.endswith("/") or model.count("/") > 1:
        link = ", but a link that leads nowhere" if folder.is_symlink() else ""
        raise ModelNotFoundError(
            f"model {model!r} is neither a folder nor a hub id such as owner/name{link}; name a folder with a model, a "
            "GGUF file or a hub id"
        )
    return _download(model, revision, report, download)


def _download(
    model: str,
    revision: str | None,
    report: ProgressCallback,
    download: Callable[..., str] | None,
    file: HubGguf | None = None,
) -> Path:
    # Imported lazily: the import takes a quarter of a second, which local models do not need.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    where = model if revision is None else f"{model} at revision {revision}"
    report(0.0, f"Downloading {where} from the hub, unless it is cached; the first download can take long")
    fetch = snapshot_download if download is None else download
    wanted = ["*.json", "*.safetensors"] if file is None else list(file.part_names)
    try:
        path = fetch(model, revision=revision, allow_patterns=wanted, ignore_patterns=["consolidated*"])
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
            f"{where} cannot be downloaded: {reason}; check the name, and for a gated model log in with `hf auth login`"
        ) from error
    return Path(path)


def _extra_ids_are_control(tokenizer: CodeTokenizer, vocab_size: int) -> bool:
    return not any(tokenizer.token_bytes(token_id) for token_id in range(vocab_size, tokenizer.vocab_size))


def _read_json(path: Path, *, required: bool = True) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise CheckpointError(f"{path} is missing; download it again")
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); download it again") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object; download it again")
    return value


@dataclass(frozen=True, slots=True)
class _ReadFiles:
    """A model's files, read except for the weights.

    Attributes:
        config: shapes and constants.
        tokenizer: text to ids and back.
        tokenizer_path: where the tokenizer was read from.
        eos_token_ids: ends of sequence.
        identity: what the files say that the model is.
        gguf: the rest of a GGUF model; ``None`` for a folder of safetensors.
        content: identifies configuration and weights.
    """

    config: LlamaConfig
    tokenizer: CodeTokenizer
    tokenizer_path: Path
    eos_token_ids: tuple[int, ...]
    identity: ModelIdentity
    gguf: GgufCheckpoint | None
    content: bytes


def _read_files(path: Path, name: str, adapter: Adapter | None) -> _ReadFiles:
    """Read what is at the path of a model: a folder of safetensors or a GGUF file."""
    names: Mapping[str, int] = {} if adapter is None else adapter.config.tokens
    if path.is_file():
        gguf = read_checkpoint(path, names)
        config = _adapted(gguf.config, adapter)
        ends = tuple(sorted(set(config.eos_token_ids)))
        identity = identity_of_gguf(name, config.model_type, gguf.files[0].metadata)
        return _ReadFiles(config, gguf.tokenizer, path, ends, identity, gguf, gguf.content_key.encode())
    raw = _read_json(path / "config.json")
    config = _adapted(parse_config(raw, str(path / "config.json")), adapter)
    ends = tuple(sorted(set(config.eos_token_ids)))
    if adapter is None or adapter.config.eos_token_ids is None:
        generation = _read_json(path / "generation_config.json", required=False)
        ends = tuple(sorted({*ends, *token_ids(generation.get("eos_token_id"))}))
    tokenizer_path = path / "tokenizer.json"
    tokenizer = CodeTokenizer.from_file(tokenizer_path, names)
    identity = identity_of_folder(
        name,
        raw,
        _read_json(path / "tokenizer_config.json", required=False),
        has_template_file=(path / "chat_template.jinja").is_file(),
    )
    return _ReadFiles(config, tokenizer, tokenizer_path, ends, identity, None, _content(path))


def _adapted(config: LlamaConfig, adapter: Adapter | None) -> LlamaConfig:
    """The configuration with the ends of sequence that an adapter was trained with."""
    if adapter is None:
        return config
    adapter.check_shapes(config)
    begin, ends = adapter.config.bos_token_id, adapter.config.eos_token_ids
    return replace(
        config,
        bos_token_id=config.bos_token_id if begin is None else begin,
        eos_token_ids=config.eos_token_ids if ends is None else ends,
    )


def _content(folder: Path) -> bytes:
    """The configuration, and the names and sizes of the weight files."""
    found = b""
    for path in sorted([folder / "config.json", folder / INDEX_NAME, folder / SINGLE_NAME]):
        if path.is_file():
            content = path.read_bytes() if path.suffix == ".json" else str(path.stat().st_size).encode()
            found += path.name.encode() + b"\0" + content
    return found


def _fingerprint(name: str, revision: str, read: _ReadFiles) -> str:
    digest = hashlib.sha256()
    for part in (name, revision, read.tokenizer.fingerprint):
        digest.update(part.encode() + b"\0")
    digest.update(read.content)
    return digest.hexdigest()[:24]
