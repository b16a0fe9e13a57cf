"""A trainer from command-line options and a prepared corpus."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

import torch
from forelook.model.identity import ModelIdentity
from forelook.model.infill import infill_formats
from forelook.model.loading import STARTER_MODEL_PATH
from forelook.model.token_healing import TokenHealer
from forelook.model.tokenizer import CodeTokenizer

from training.cleaning import LANGUAGE_SHARES
from training.corpus import Shelf
from training.held_out import held_out_texts
from training.loop import LoopSettings, Trainer
from training.network import Network, Shape, load_network
from training.optimizer import MuonAdam
from training.ranks import Ranks
from training.samples import SampleMaker, SampleMix
from training.schedule import Schedule


def shelves(folder: Path, split: str) -> Mapping[str, Shelf]:
    """All languages of one split of a prepared corpus."""
    names = sorted(path.name.split(".")[0] for path in folder.glob(f"*.{split}.json"))
    return {name: Shelf(folder, name, split) for name in names}


T = TypeVar("T")


def settings_of(kind: type[T], options: argparse.Namespace, **others: object) -> T:
    """Return a dataclass of the options that its fields are named after, and of ``others``."""
    names = (field.name for field in fields(kind))  # type: ignore[arg-type]
    return kind(**{name: getattr(options, name) for name in names if hasattr(options, name)} | others)


def make_trainer(options: argparse.Namespace, corpus: Path, folder: Path, ranks: Ranks | None = None) -> Trainer:
    """A trainer as the options describe it."""
    torch.manual_seed(options.seed)
    if options.tokenizer is not None and not options.from_scratch:
        raise ValueError("--tokenizer is for fresh weights; add --from-scratch or omit it")
    tokenizer_path = options.tokenizer or (options.init or STARTER_MODEL_PATH) / "tokenizer.json"
    tokenizer = CodeTokenizer.from_file(tokenizer_path)
    if options.from_scratch:
        sizes = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": options.max_tokens}
        network = Network(settings_of(Shape, options, **sizes))
        network.initialize(torch.Generator().manual_seed(options.seed))
    else:
        network = load_network(options.init or STARTER_MODEL_PATH, max_positions=options.max_tokens)
    network.to(torch.device(options.device))
    optimizer = MuonAdam(list(network.named_parameters()), muon_lr=options.muon_lr, adam_lr=options.adam_lr)
    network.to(torch.bfloat16 if options.dtype == "bfloat16" else torch.float32)
    infill = infill_formats(
        tokenizer,
        identity=ModelIdentity("llama", ("starter-model",)),
        vocab_size=network.shape.vocab_size,
        bos_token_id=0,
        eos_token_ids=(1,),
    )[0]
    mix = settings_of(SampleMix, options, languages=language_shares(options.python_share))
    finish_at_s = None if options.finish_at is None else next_time(options.finish_at)
    return Trainer(
        network=network,
        optimizer=optimizer,
        schedule=Schedule(options.minutes * 60, warmup_steps=options.warmup_steps, decay_share=options.decay_share),
        maker=SampleMaker(shelves(corpus, "train"), tokenizer, TokenHealer(tokenizer), infill, mix, seed=options.seed),
        tokenizer=tokenizer,
        tokenizer_json=tokenizer_path.read_text("utf-8"),
        settings=settings_of(LoopSettings, options, finish_at_s=finish_at_s),
        folder=folder,
        held_out=held_out_texts(shelves(corpus, "held_out"), bytes_per_language=options.held_out_bytes),
        ranks=ranks or Ranks(),
    )


def language_shares(python: float) -> Mapping[str, float]:
    """The default mix with another share of Python; the other languages keep their proportions."""
    scale = (1.0 - python) / (1.0 - LANGUAGE_SHARES["python"])
    return {name: python if name == "python" else share * scale for name, share in LANGUAGE_SHARES.items()}


def next_time(clock: str) -> float:
    """The next moment at which a clock says ``HH:MM``, as ``time.time()`` counts."""
    hour, minute = map(int, clock.split(":"))
    now = datetime.now().astimezone()
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (then if then > now else then + timedelta(days=1)).timestamp()
