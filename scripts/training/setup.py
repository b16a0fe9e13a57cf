"""A trainer from command-line options and a prepared corpus."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from bench.arguments import settings_of
from forelook.model.adapter import base_sample
from forelook.model.adapter_config import read_adapter_config
from forelook.model.loading import STARTER_MODEL_PATH, choose_dtype
from forelook.model.token_healing import TokenHealer
from forelook.model.tokenizer import CodeTokenizer

from training.accuracy import held_out_questions
from training.adapter import adapter_config, load_adapter, save_adapter
from training.bases import Base, config_fields, read_base
from training.checkpoint import replacing, save_network, trained_fields
from training.cleaning import LANGUAGE_SHARES
from training.corpus import Shelf
from training.held_out import held_out_texts
from training.loop import LoopSettings, Trainer
from training.network import Network, load_network
from training.optimizer import FRESH, LOW_RANK, PRETRAINED, MuonAdam, Rates
from training.prefetch import Prefetcher
from training.ranks import Ranks
from training.samples import CURSOR_WEIGHTS, SampleMaker, SampleMix
from training.schedule import Schedule
from training.sentinels import Vocabulary, vocabulary_of


def shelves(folder: Path, split: str) -> Mapping[str, Shelf]:
    """All languages of one split of a prepared corpus."""
    names = sorted(path.name.split(".")[0] for path in folder.glob(f"*.{split}.json"))
    return {name: Shelf(folder, name, split) for name in names}


def make_trainer(options: argparse.Namespace, corpus: Path, folder: Path, ranks: Ranks | None = None) -> Trainer:
    """A trainer as the options describe it.

    Raises:
        ModelError: a subclass; the base or the adapter to start from is not one that can be trained.
        ValueError: options contradict each other.
    """
    torch.manual_seed(options.seed)
    if options.tokenizer is not None and not options.from_scratch:
        raise ValueError("--tokenizer is for fresh weights; add --from-scratch or omit it")
    rank = options.rank if options.init_adapter is None else read_adapter_config(options.init_adapter).rank
    if options.init_adapter is not None and options.rank not in (0, rank):
        raise ValueError(f"--rank {options.rank} differs from the adapter's {rank}; omit --rank")
    base = base_of(options)
    vocabulary = vocabulary_of(base)
    mix = mix_of(options)
    healer = TokenHealer(vocabulary.tokenizer)
    maker: SampleMaker | Prefetcher = SampleMaker(shelves(corpus, "train"), vocabulary, healer, mix, seed=options.seed)
    if options.workers:
        maker = Prefetcher(maker, options.workers)
    network = _network(options, base, vocabulary)
    rates = _rates(options, rank)
    device = torch.device(options.device)
    dtype = choose_dtype(options.dtype, device)
    if rank:
        export = _low_rank(options, network.to(device, dtype), base, vocabulary, rank)
        optimizer = MuonAdam(network.trained(), rates=rates)
    else:
        export = _whole(network, base, vocabulary)
        optimizer = MuonAdam(network.to(device).trained(), rates=rates)  # before rounding: the masters are float32
        network.to(dtype)
    finish_at_s = None if options.finish_at is None else next_time(options.finish_at)
    held_out = shelves(corpus, "held_out")
    last = f" of the last {options.last_layers} layers" if options.last_layers else ""
    what = f"low-rank differences{last}, rank {rank}," if rank else "all weights"
    return Trainer(
        network=network,
        optimizer=optimizer,
        schedule=Schedule(options.minutes * 60, warmup_steps=options.warmup_steps, decay_share=options.decay_share),
        maker=maker,
        vocabulary=vocabulary,
        export=export,
        describes=f"{what} of {base.path.name}, {base.config.num_layers} layers of {base.config.hidden_size}",
        settings=settings_of(LoopSettings, options, finish_at_s=finish_at_s),
        folder=folder,
        held_out=held_out_texts(held_out, bytes_per_language=options.held_out_bytes),
        questions=held_out_questions(held_out, vocabulary, healer, mix, options.questions),
        ranks=ranks or Ranks(),
    )


def base_of(options: argparse.Namespace) -> Base:
    """What a run starts from: given weights, the starter model, or a shape for fresh weights."""
    if not options.from_scratch:
        return read_base(options.init or STARTER_MODEL_PATH)
    like = read_base(STARTER_MODEL_PATH)
    path = options.tokenizer or STARTER_MODEL_PATH / "tokenizer.json"
    text = path.read_text("utf-8")
    head_size = options.hidden_size // options.num_attention_heads
    config = replace(
        like.config,
        vocab_size=CodeTokenizer(text, str(path)).vocab_size,
        hidden_size=options.hidden_size,
        intermediate_size=options.intermediate_size,
        num_layers=options.num_hidden_layers,
        num_heads=options.num_attention_heads,
        num_kv_heads=options.num_attention_heads,
        head_size=head_size,
        attention_scale=head_size**-0.5,
        max_positions=options.max_tokens,
        windowed_layers=(False,) * options.num_hidden_layers,
    )
    fields_ = config_fields(config) | {"pad_token_id": like.fields.get("pad_token_id")}
    return Base(path, config, json.loads(text), fields_)


def mix_of(options: argparse.Namespace) -> SampleMix:
    """The samples that the options ask for.

    Raises:
        ValueError: a kind of cursor does not exist.
    """
    cursors = dict(CURSOR_WEIGHTS)
    for item in options.cursors:
        kind, _, weight = item.partition("=")
        if kind not in cursors or not weight:
            raise ValueError(f"--cursors {item}: expected KIND=WEIGHT of {', '.join(CURSOR_WEIGHTS)}")
        cursors[kind] = float(weight)
    return settings_of(SampleMix, options, languages=language_shares(options.python_share), cursors=cursors)


def low_rank_network(base: Base, vocabulary: Vocabulary, adapter: Path, *, max_positions: int) -> Network:
    """A base with an adapter, for measuring; on the CPU, in float32."""
    network = _with_initial_rows(load_network(base, max_positions=max_positions), vocabulary)
    rank = read_adapter_config(adapter).rank
    network.attach(rank=rank, alpha=rank, row_ids=vocabulary.row_ids, seed=0)
    load_adapter(network, adapter, vocabulary.row_ids)
    return network


def _network(options: argparse.Namespace, base: Base, vocabulary: Vocabulary) -> Network:
    if options.from_scratch:
        network = Network(base.config)
        network.initialize(torch.Generator().manual_seed(options.seed))
        return network
    return _with_initial_rows(load_network(base, max_positions=options.max_tokens), vocabulary)


@torch.no_grad()
def _with_initial_rows(network: Network, vocabulary: Vocabulary) -> Network:
    """Begin renamed tokens with the rows of the tokens that had their names."""
    new, old = list(vocabulary.initial_rows), list(vocabulary.initial_rows.values())
    for table in (network.embed_tokens, network.lm_head):
        if table is not None and new:
            table[new] = table[old].clone()
    return network


def _low_rank(
    options: argparse.Namespace, network: Network, base: Base, vocabulary: Vocabulary, rank: int
) -> Callable[[Path], None]:
    """Attach low-rank parts; returns how to export them."""
    alpha = float(options.alpha or rank)
    network.attach(rank=rank, alpha=alpha, row_ids=vocabulary.row_ids, seed=options.seed)
    if options.init_adapter is not None:
        load_adapter(network, options.init_adapter, vocabulary.row_ids)
    if options.last_layers:
        network.freeze_below(options.last_layers, [vocabulary.eos_id, vocabulary.end_id])
    config = _config_of(network, base, vocabulary, rank, alpha)
    return replacing("adapter", lambda folder: save_adapter(network, folder, config))


def export_adapter(network: Network, base: Base, vocabulary: Vocabulary, folder: Path) -> None:
    """Write the adapter of a network that :func:`low_rank_network` made."""
    rank = next(network.each_layer()).part("q_proj").down.shape[0]
    save_adapter(network, folder, _config_of(network, base, vocabulary, rank, float(rank)))


def _config_of(network: Network, base: Base, vocabulary: Vocabulary, rank: int, alpha: float) -> dict[str, Any]:
    with base.opened() as read:
        sample = base_sample(read)
    return adapter_config(network, base, vocabulary, sample, rank=rank, alpha=alpha)


def _whole(network: Network, base: Base, vocabulary: Vocabulary) -> Callable[[Path], None]:
    config = trained_fields(base.fields, vocabulary)
    return replacing("model", lambda folder: save_network(network, folder, vocabulary.tokenizer_json, config))


def _rates(options: argparse.Namespace, rank: int) -> Rates:
    """Learning rates: those of the options, and for what these leave open those of the kind of run."""
    is_fresh = options.from_scratch or options.init is None
    rates = LOW_RANK if rank else FRESH if is_fresh else PRETRAINED
    given = {"muon": options.muon_lr, "adam": options.adam_lr, "factors": options.factor_lr, "rows": options.row_lr}
    return replace(rates, **{name: value for name, value in given.items() if value is not None})


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
