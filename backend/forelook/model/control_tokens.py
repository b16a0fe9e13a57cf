"""Other names for the control tokens of a ``tokenizer.json``: an adapter turns unused ones into infill sentinels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forelook.errors import TokenizerError

_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def rename_control_tokens(raw: dict[str, Any], names: Mapping[str, int], where: str) -> None:
    """Give control tokens other names, all at once, so that two may exchange theirs; they become special tokens.

    Args:
        raw: the content of a ``tokenizer.json``, which is changed.
        names: id by new name.
        where: name of the tokenizer's file, for errors.

    Raises:
        TokenizerError: an id is no added token, or another token has one of the names.
    """
    try:
        added = {int(token["id"]): token for token in raw.get("added_tokens") or ()}
        vocabulary: dict[str, int] = raw["model"]["vocab"]
        in_vocabulary = {token_id: token for token, token_id in vocabulary.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TokenizerError(f"{where} is not a readable tokenizer: {error}; download it again") from error
    for name, token_id in names.items():
        if token_id not in added:
            raise TokenizerError(
                f"{where}: the adapter names token {token_id} {name}, but that is no control token; use the adapter "
                "with the base that it was trained on"
            )
    renamed = set(names.values())
    taken = {token for token, token_id in vocabulary.items() if token_id not in renamed}
    taken |= {token["content"] for token_id, token in added.items() if token_id not in renamed}
    clash = sorted(taken & names.keys())
    if clash:
        raise TokenizerError(
            f"{where}: the adapter gives the name {clash[0]} to token {names[clash[0]]}, but another token has it; use "
            "the adapter with the base that it was trained on"
        )
    former = {token_id: in_vocabulary.get(token_id) for token_id in renamed}
    unknown = vocabulary.get(raw["model"].get("unk_token"))
    for token in former.values():
        if token is not None:
            del vocabulary[token]
    for name, token_id in names.items():
        if former[token_id] is not None:
            vocabulary[name] = token_id
        added[token_id].update({**_FLAGS, "content": name, "special": True})
        if token_id == unknown:
            raw["model"]["unk_token"] = name
