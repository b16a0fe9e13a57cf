"""``forelook models`` lists local models and recommends one; ``forelook pull`` downloads a model."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict

from forelook.commands.command_context import CommandContext, complain


def models(options: argparse.Namespace, context: CommandContext) -> int:
    """List installed and recommended models."""
    import torch

    from forelook.model.catalogue import Machine, installed_models, recommend
    from forelook.model.forward.layers import kv_cache_dtype
    from forelook.model.gguf.stores import Stores, installed_gguf
    from forelook.model.hub import hub_from, recorded
    from forelook.model.loading import STARTER_MODEL_PATH, choose_device, choose_dtype
    from forelook.model.memory import available_memory

    device: torch.device = choose_device(options.device)
    dtype = choose_dtype("auto", device)
    machine = Machine(device.type, available_memory(device), dtype.itemsize, kv_cache_dtype(dtype, device).itemsize)
    hub = hub_from(context.environ, context.paths.models_path)
    pinned = {name: pulled.commit for name, pulled in recorded(hub.records_path).items()}
    installed = list(installed_models(STARTER_MODEL_PATH, hub.cache_dir, options.folder, pinned))
    installed += installed_gguf(hub.cache_dir, Stores.of(context.environ), options.folder, pinned)
    fits = [fit for fit in recommend(machine) if options.all or (fit.fits and not fit.is_slow)]
    if options.json:
        print(
            json.dumps(
                {
                    "machine": {**asdict(machine), "dtype": str(dtype).removeprefix("torch.")},
                    "installed": [{**asdict(model), "folder": str(model.folder)} for model in installed],
                    "recommended": [
                        {**asdict(fit), "model": {**asdict(fit.model), "download_bytes": fit.model.download_bytes}}
                        for fit in fits
                    ],
                }
            )
        )
        return 0
    print("Installed")
    for found in installed:
        at = f"@{found.revision[:12]}" if found.revision else ""
        state = found.fault or ("pulled and verified" if found.is_pinned else "ready")
        print(f"  {found.model}{at}  {_size(found.num_parameters, found.size_bytes)}, "
              f"{_context(found.context)}, {found.license or 'license unknown'}; {found.source}: {state}")  # fmt: skip
    free = "unknown" if machine.memory_bytes is None else f"{machine.memory_bytes / 1e9:.1f} GB"
    print(f"\nRecommended for {device} in {str(dtype).removeprefix('torch.')}, {free} of memory free")
    for fit in fits:
        note = "recommended" if fit.is_best else "fits"
        if not fit.fits:
            note = f"too large: needs {fit.needed_bytes / 1e9:.1f} GB"
        elif fit.is_slow:
            note = "fits, but slower than typing on a CPU"
        known = fit.model
        print(f"  {known.model}  {_size(known.num_parameters, known.download_bytes)}, "
              f"{_context(known.context)}, {known.license}: {note}")  # fmt: skip
    if not fits:
        print("  none from the hub; use the starter model on this machine")
    print("\nDownload one with `forelook pull MODEL`; run it with `forelook serve --model MODEL`.")
    return 0


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


@contextlib.contextmanager
def _progress_shown(quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Shows a progress bar per file on a terminal, else a line per finished file."""
    if quiet:
        yield lambda _name, _done, _size: None
        return
    if not sys.stderr.isatty():

        def show_finished(name: str, done: int, size: int) -> None:
            if done >= size and name not in shown:
                shown.add(name)
                complain(f"{name}: {size / 1e6:.1f} MB")

        shown: set[str] = set()
        yield show_finished
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
