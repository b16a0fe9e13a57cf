"""What a checkpoint says that it is, which decides its infill format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHAT = re.compile(r"\b(instruct|chat)\b|\db-it\b")


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What a checkpoint says that it is. All names are in lower case and have hyphens for spaces and underscores.

    Attributes:
        model_type: its family.
        names: of the model itself, the one that the user gave first.
        bases: of what it was made from.
        has_chat_template: whether its files tell how to format a conversation.
    """

    model_type: str
    names: tuple[str, ...]
    bases: tuple[str, ...] = ()
    has_chat_template: bool = False

    @property
    def is_named_chat(self) -> bool:
        """Whether a name says that it was tuned for conversations."""
        return any(_CHAT.search(name) for name in self.names)


def identity_of_folder(
    model: str, config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], *, has_template_file: bool = False
) -> ModelIdentity:
    """The identity of a folder of safetensors.

    Args:
        model: as the user named it.
        config: its ``config.json``.
        tokenizer_config: its ``tokenizer_config.json``; empty if it has none.
        has_template_file: whether it has a ``chat_template.jinja``, where newer checkpoints keep the template.
    """
    return ModelIdentity(
        model_type=str(config.get("model_type")),
        names=_names(model),
        bases=_names(config.get("_name_or_path"), tokenizer_config.get("name_or_path")),
        has_chat_template=has_template_file or "chat_template" in tokenizer_config,
    )


def identity_of_gguf(model: str, model_type: str, metadata: Mapping[str, Any]) -> ModelIdentity:
    """The identity of a GGUF file, from its ``general.*`` metadata.

    Args:
        model: as the user named it.
        model_type: the family that computes its architecture.
        metadata: of the file.
    """
    count = metadata.get("general.base_model.count")
    bases = (
        metadata.get(f"general.base_model.{index}.{field}")
        for index in range(min(count, 8) if isinstance(count, int) else 0)
        for field in ("name", "repo_url")
    )
    return ModelIdentity(
        model_type=model_type,
        names=_names(model, *(metadata.get(f"general.{field}") for field in ("name", "basename", "source.repo_url"))),
        bases=_names(*bases),
        has_chat_template="tokenizer.chat_template" in metadata,
    )


def _names(*values: object) -> tuple[str, ...]:
    """The names among some values; of a path its last part."""
    found = (_last_part(value) for value in values if isinstance(value, str))
    return tuple(dict.fromkeys(re.sub(r"[\s_]+", "-", name.lower()) for name in found if name))


def _last_part(name: str) -> str:
    is_hub_id = name.count("/") == 1 and name[0] not in "/.~" and not Path(name).exists()
    return name if is_hub_id else Path(name).name
