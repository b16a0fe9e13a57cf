"""Checks the installation and the running backend, and suggests a fix for each fault."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forelook import __version__
from forelook.compiled import Compiled
from forelook.errors import ForelookError
from forelook.local.access import read_tokens
from forelook.local.endpoint import Endpoint, discover
from forelook.local.files import is_locked, make_private_dir
from forelook.local.identity import BackendFiles, BackendIdentity, UserPaths
from forelook.protocol.messages import EngineState

OLDEST_PYTHON = (3, 10)
PACKAGES = ("numpy", "gguf", "tokenizers", "safetensors", "starlette", "uvicorn", "websockets", "pygls", "tree-sitter")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Attributes:
        name: what was checked.
        is_fault: whether it does not work.
        detail: what was found.
        remedy: how to fix it, empty where nothing needs a fix.
    """

    name: str
    is_fault: bool
    detail: str
    remedy: str = ""


def examine(identity: BackendIdentity, paths: UserPaths, *, left_to_right: bool = False) -> list[Check]:
    """All checks; each comes after those it depends on.

    Args:
        identity: the backend to examine.
        paths: the user's folders.
        left_to_right: whether a model without infill is no fault.
    """
    checks = [_python(), *map(_package, PACKAGES)]
    checks.append(_folder("runtime folder", paths.runtime_dir))
    checks.append(_folder("state folder", paths.state_dir))
    checks.append(_folder("cache folder", paths.cache_dir))
    torch_works, device_checks = _torch(identity)
    checks += device_checks
    endpoint, backend_checks = _backend(identity, paths)
    checks += backend_checks
    if endpoint is None and torch_works:
        checks.append(_model(identity, paths, left_to_right))
    checks.append(_grammars())
    return checks


def _python() -> Check:
    found = f"Python {platform.python_version()} on {platform.platform()}, forelook {__version__}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("python", True, found, "use Python 3.10 or newer")
    return Check("python", False, found)


def _package(name: str) -> Check:
    try:
        return Check(name, False, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, True, "not installed", f"pip install {name}")


def _folder(name: str, folder: Path) -> Check:
    try:
        make_private_dir(folder)
    except ForelookError as error:
        return Check(name, True, str(error), "create it as a folder of your own, mode 700")
    return Check(name, False, f"{folder}, mode 700")


def _torch(identity: BackendIdentity) -> tuple[bool, list[Check]]:
    try:
        import torch

        from forelook.model.forward.step_attention import describe_attention
        from forelook.model.loading import choose_device, choose_dtype
        from forelook.model.quantization import QUANTIZED_DTYPES
    except (ImportError, OSError) as error:  # a torch built for another CUDA fails with OSError
        remedy = "pip install torch, or the build for your device from https://pytorch.org"
        return False, [Check("torch", True, f"cannot be imported: {type(error).__name__}", remedy)]
    checks = [Check("torch", False, f"{torch.__version__}, {torch.get_num_threads()} CPU threads")]
    try:
        device = choose_device(identity.device)
        dtype = choose_dtype("auto" if identity.dtype in QUANTIZED_DTYPES else identity.dtype, device)
    except ForelookError as error:
        remedy = "choose another --device or --dtype, or another torch build"
        return False, [*checks, Check("device", True, str(error), remedy)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    checks.append(Check("device", False, f"{device} ({name}), {str(dtype).removeprefix('torch.')}"))
    checks.append(Check("attention", False, describe_attention(device, dtype)))
    checks.append(_quantization())
    return True, [*checks, *_compiled_code(device.type)]


def _compiled_code(device_type: str) -> Iterator[Check]:
    from forelook.decoding.native.library import native_likeliest
    from forelook.decoding.ngrams.native.library import native_lookup
    from forelook.model.forward.native.library import native_kernels

    if device_type == "cpu":
        instead = "torch's own, which take about twice as long per step"
        yield _compiled("CPU kernels", native_kernels(), instead, "decode steps in one call, ")
    yield _compiled("pool lookups", native_lookup(), "Python's, which take several times as long")
    yield _compiled("likeliest tokens", native_likeliest(), "found by numpy, which takes several times as long")


def _compiled(name: str, found: Compiled[Any], instead: str, what: str = "") -> Check:
    return Check(name, False, f"{instead}: {found.reason}" if found.functions is None else f"{what}{found.reason}")


def _quantization() -> Check:
    on_cpu = "int8 and int4 weights on a CPU"
    try:
        return Check("quantization", False, f"{on_cpu}, on a GPU by torchao {importlib.metadata.version('torchao')}")
    except importlib.metadata.PackageNotFoundError:
        return Check("quantization", False, f"{on_cpu}; none on a GPU without torchao (extra forelook[quantize])")


def _backend(identity: BackendIdentity, paths: UserPaths) -> tuple[Endpoint | None, list[Check]]:
    try:
        from forelook.commands.client import connected
    except ModuleNotFoundError as error:
        return None, [Check("backend", True, f"cannot be checked without {error.name}", f"pip install {error.name}")]
    try:
        endpoint = discover(identity, paths)
        if endpoint is None:
            files = BackendFiles.of(identity, paths)
            if is_locked(files.lock):
                return None, [Check("backend", False, "starting up or shutting down")]
            return None, [Check("backend", False, "not running; editors and `forelook complete` start it")]
        permissions = list(_permissions(endpoint))
        started_s = time.monotonic()
        with connected(endpoint) as client:
            latency_ms = (time.monotonic() - started_s) * 1e3
            status, version = client.status, client.hello.server_version
    except ForelookError as error:
        return None, [Check("backend", True, str(error), f"run `forelook stop`; see {paths.log_path}")]
    found = f"{endpoint.description}, process {endpoint.pid}, connected in {latency_ms:.0f} ms, {status.state.value}"
    checks = [Check("backend", False, found), *permissions]
    if version != __version__:
        checks.append(
            Check("backend version", True, f"{version} is running, {__version__} is installed", "run `forelook stop`")
        )
    detail = status.message or status.state.value
    if status.model:
        detail = f"{status.model} on {status.device} as {status.dtype}"
        detail += f"; {status.message}" if status.message else ""
    if status.state is EngineState.ERROR:
        checks.append(Check("model", True, status.message, "choose another --model, then run `forelook stop`"))
    else:
        checks.append(Check("model", False, detail))
    return endpoint, checks


def _permissions(endpoint: Endpoint) -> Iterator[Check]:
    if endpoint.socket_path is not None:
        mode = stat.S_IMODE(Path(endpoint.socket_path).stat().st_mode)
        remedy = f"chmod 600 {endpoint.socket_path}" if mode & 0o077 else ""
        yield Check("socket", bool(remedy), f"{endpoint.socket_path}, mode {mode:o}", remedy)
    elif endpoint.token_path is not None:
        read_tokens(Path(endpoint.token_path))
        yield Check("token", False, f"{endpoint.token_path}, readable only by you")


def _model(identity: BackendIdentity, paths: UserPaths, left_to_right: bool) -> Check:
    from forelook.model.default_model import load_user_model

    started_s = time.monotonic()
    try:
        model = load_user_model(identity, paths)
    except ForelookError as error:
        return Check("model", True, str(error), "choose another --model, --device or --dtype")
    took_s = time.monotonic() - started_s
    if not (model.infill.sees_suffix or left_to_right):
        return Check(
            "model",
            True,
            model.status_line,
            "choose a model with fill-in-the-middle support, or accept this one with --left-to-right",
        )
    chosen = f", attention by {model.space.ops.attention_name}: {model.space.ops.reason}" if model.space else ""
    loads = f"{model.name} loads on {model.device} as {model.weight_format} in {took_s:.1f} s"
    detail = f"{loads} ({model.format_reason}){chosen}"
    return Check("model", False, f"{detail}; {model.status_line}" if model.status_line else detail)


def _grammars() -> Check:
    from forelook.languages import LANGUAGES

    wanted = {language.grammar for language in LANGUAGES.values() if language.grammar is not None}
    missing = sorted({module for module, function in wanted if not _imports(module, function)})
    if missing:
        names = " ".join(name.replace("_", "-") for name in missing)
        detail = f"{len(missing)} of {len({m for m, _ in wanted})} grammars missing; plain rules replace them"
        return Check("grammars", True, detail, f"pip install {names}")
    return Check("grammars", False, f"{len({m for m, _ in wanted})} tree-sitter grammars")


def _imports(module: str, function: str) -> bool:
    try:
        found: Callable[..., object] | None = getattr(importlib.import_module(module), function, None)
    except ImportError:
        return False
    return found is not None
