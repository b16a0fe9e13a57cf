"""The infill (fill-in-the-middle) formats, as one table. A new format is one :class:`InfillTemplate`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from forelook.model.families import FAMILIES


class InfillOrder(Enum):
    """Order of the parts in an infill prompt."""

    PREFIX_FIRST = "psm"
    SUFFIX_FIRST = "spm"
    PLAIN = "plain"  # left to right: the model does not see the suffix


PARTS = ("{context}", "{prefix}", "{suffix}")
Part = int | str
"""A token's id; or a control token by name, or text to fill in."""


@dataclass(frozen=True, slots=True)
class FileNaming:
    """How a format tells the files of a prompt apart.

    A part with braces is text, in which ``{path}``, ``{repository}``, ``{language}``, ``{comment}`` and
    ``{comment_end}`` are filled in; any other is a sentinel. Where the parts before a file do not contain its path, its
    text is preceded by a comment with its name. Bound to a tokenizer, sentinels are ids.

    Attributes:
        repository: before the first other file.
        file: before the text of each other file.
        file_end: after it.
        own_file: after the last other file.
        lead: text directly before the prefix.
        leads_alone: whether the lead is there without other files, too.
    """

    repository: tuple[Part, ...] = ()
    file: tuple[Part, ...] = ()
    file_end: tuple[Part, ...] = ()
    own_file: tuple[Part, ...] = ()
    lead: str = ""
    leads_alone: bool = False

    @property
    def sentinels(self) -> tuple[str, ...]:
        """The names of control tokens among the parts."""
        return tuple(dict.fromkeys(part for part in self._parts if isinstance(part, str) and is_sentinel(part)))

    @property
    def sentinel_ids(self) -> frozenset[int]:
        """The ids among the parts."""
        return frozenset(part for part in self._parts if isinstance(part, int))

    @property
    def name_files(self) -> bool:
        """Whether the path of another file precedes its text."""
        return any(isinstance(part, str) and "{path}" in part for part in self.file)

    @property
    def _parts(self) -> tuple[Part, ...]:
        return (*self.repository, *self.file, *self.file_end, *self.own_file)


def is_sentinel(part: str) -> bool:
    """Whether a part of a file's naming is a control token, and not text."""
    return "{" not in part and not part.isspace()


NO_NAMING = FileNaming()


@dataclass(frozen=True, slots=True)
class InfillTemplate:
    """One infill format. A prompt is BOS, then the template's parts in order.

    Attributes:
        name: of the format, usually that of the models that introduced it.
        model_types: the families whose checkpoints are trained with it; at least one.
        order: which of prefix and suffix comes first.
        parts: sentinel tokens by name, and ``{context}``, ``{prefix}`` and ``{suffix}``.
        stops: control tokens that end the middle, besides the model's own end of sequence. Of these only the first is
            required; a tokenizer may lack the others.
        begins_with_bos: whether a beginning-of-sequence token precedes the parts.
        files: how files are told apart; where a tokenizer lacks one of its sentinels, by comments with their names.
        other_control_tokens: further tokens of the format that text must never encode to.
        name_pattern: a regular expression of model names that imply this format, in lower case and with hyphens;
            without its sentinels in the tokenizer, such a model is an error.
        sentinels_suffice: whether only models trained with this format have its sentinels. Otherwise a name must say
            so, or the status says that nothing does.
        splits_digits: whether the format's tokenizers encode numbers digit by digit; ``None`` if that tells nothing.
    """

    name: str
    model_types: tuple[str, ...]
    order: InfillOrder
    parts: tuple[str, ...]
    stops: tuple[str, ...]
    begins_with_bos: bool = True
    files: FileNaming = NO_NAMING
    other_control_tokens: tuple[str, ...] = ()
    name_pattern: str | None = None
    sentinels_suffice: bool = True
    splits_digits: bool | None = None

    @property
    def sentinels(self) -> tuple[str, ...]:
        """The control tokens among the parts."""
        return tuple(part for part in self.parts if part not in PARTS)


_CODE_LLAMA = r"code-?llama-?(7|13)b(?!.*python)"
_PSM = ("{context}", "<|fim_prefix|>", "{prefix}", "<|fim_suffix|>", "{suffix}", "<|fim_middle|>")
_STARCODER = ("{context}", "<fim_prefix>", "{prefix}", "<fim_suffix>", "{suffix}", "<fim_middle>")

# The first template whose sentinels a tokenizer has is the model's default; those of its family come before others.
# Templates of one name are adjacent.
INFILL_TEMPLATES: tuple[InfillTemplate, ...] = (
    InfillTemplate(
        "starter",
        ("llama",),
        InfillOrder.SUFFIX_FIRST,
        ("<PRE>", "<SUF>", "{suffix}", "<MID>", "{context}", "{prefix}"),
        ("<EOT>",),
        name_pattern=r"starter-model",
    ),
    # Rozière et al., "Code Llama" (2023), section 2.3
    InfillTemplate(
        "codellama",
        ("llama",),
        InfillOrder.SUFFIX_FIRST,
        ("▁<PRE>", "▁<SUF>", "{suffix}", "▁<MID>", "{context}", "{prefix}"),
        ("▁<EOT>",),
        name_pattern=_CODE_LLAMA,
    ),
    InfillTemplate(
        "codellama",
        ("llama",),
        InfillOrder.PREFIX_FIRST,
        ("▁<PRE>", "{context}", "{prefix}", "▁<SUF>", "{suffix}", "▁<MID>"),
        ("▁<EOT>",),
        name_pattern=_CODE_LLAMA,
    ),
    # Hui et al., "Qwen2.5-Coder Technical Report" (2024), figure 4. All Qwen vocabularies have the tokens.
    InfillTemplate(
        "qwen2.5-coder",
        ("qwen2", "qwen3"),
        InfillOrder.PREFIX_FIRST,
        _PSM,
        ("<|endoftext|>", "<|fim_pad|>", "<|file_sep|>", "<|repo_name|>"),
        begins_with_bos=False,
        files=FileNaming(
            repository=("<|repo_name|>", "{repository}\n"),
            file=("<|file_sep|>", "{path}\n"),
            file_end=("\n",),
            own_file=("<|file_sep|>", "{path}\n"),
        ),
        name_pattern=r"qwen-?2\.?5-coder",
        sentinels_suffice=False,
    ),
    InfillTemplate(
        "codegemma",
        ("gemma",),
        InfillOrder.PREFIX_FIRST,
        _PSM,
        ("<|file_separator|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
        files=FileNaming(file_end=("<|file_separator|>",)),
        name_pattern=r"code-?gemma",
    ),
    InfillTemplate(
        "granite-4",
        ("granite",),
        InfillOrder.PREFIX_FIRST,
        _PSM,
        ("<|fim_pad|>", "<|end_of_text|>"),
        begins_with_bos=False,
        name_pattern=r"granite-4",
    ),
    # Model card of JetBrains/Mellum-4b-base. Its sentinels are StarCoder's, its order is not.
    InfillTemplate(
        "mellum",
        ("llama",),
        InfillOrder.SUFFIX_FIRST,
        ("{context}", "<fim_suffix>", "{suffix}", "<fim_prefix>", "{prefix}", "<fim_middle>"),
        ("<|endoftext|>", "<filename>"),
        begins_with_bos=False,
        files=FileNaming(file=("<filename>", "{path}\n"), file_end=("\n",), own_file=("<filename>", "{path}\n")),
        name_pattern=r"mellum",
        splits_digits=False,
    ),
    # Lozhkov et al., "StarCoder 2 and The Stack v2" (2024), section 5.1
    InfillTemplate(
        "starcoder2",
        ("starcoder2",),
        InfillOrder.PREFIX_FIRST,
        _STARCODER,
        ("<|endoftext|>", "<file_sep>", "<repo_name>"),
        begins_with_bos=False,
        files=FileNaming(
            repository=("<repo_name>", "{repository}"),
            file=("<file_sep>", "{path}\n"),
            own_file=("<file_sep>",),
            lead="{path}\n",
        ),
        other_control_tokens=("<fim_pad>",),
        name_pattern=r"starcoder-?2",
    ),
    # StarCoder's format, which the Granite code models use. Later Granite vocabularies have the tokens, too.
    InfillTemplate(
        "starcoder",
        ("llama", "granite"),
        InfillOrder.PREFIX_FIRST,
        _STARCODER,
        ("<|endoftext|>", "<file_sep>"),
        begins_with_bos=False,
        other_control_tokens=("<fim_pad>",),
        name_pattern=r"granite.*code",
        sentinels_suffice=False,
    ),
    InfillTemplate(
        "deepseek-coder",
        ("llama",),
        InfillOrder.PREFIX_FIRST,
        ("<｜fim▁begin｜>", "{context}", "{prefix}", "<｜fim▁hole｜>", "{suffix}", "<｜fim▁end｜>"),
        ("<｜end▁of▁sentence｜>",),
        name_pattern=r"deepseek-coder",
        sentinels_suffice=False,
    ),
    # Codestral's API puts other files before the prefix, each behind its path. GGUF files call it a llama.
    InfillTemplate(
        "codestral",
        ("mistral", "llama"),
        InfillOrder.SUFFIX_FIRST,
        ("[SUFFIX]", "{suffix}", "[PREFIX]", "{context}", "{prefix}"),
        ("</s>",),
        files=FileNaming(file=("+++++ {path}\n",), file_end=("\n\n",), lead="+++++ {path}\n"),
        name_pattern=r"codestral",
        sentinels_suffice=False,
    ),
    # ByteDance Seed, "Seed-Coder" (2025), section 3; Zeta is trained on top of it.
    InfillTemplate(
        "seed-coder",
        ("llama",),
        InfillOrder.SUFFIX_FIRST,
        ("<[fim-suffix]>", "{suffix}", "<[fim-prefix]>", "{context}", "{prefix}", "<[fim-middle]>"),
        ("<[end▁of▁sentence]>",),
        begins_with_bos=False,
        other_control_tokens=("<[begin▁of▁sentence]>", "<[PAD▁TOKEN]>", "<[SEP▁TOKEN]>"),
        name_pattern=r"seed-coder|\bzeta\b",
    ),
    # hf_mini/utils.py of the aiXcoder-7B repository
    InfillTemplate(
        "aixcoder",
        ("llama",),
        InfillOrder.SUFFIX_FIRST,
        ("▁<AIX-SPAN-PRE>", "▁<AIX-SPAN-POST>", "{suffix}", "▁<AIX-SPAN-MIDDLE>", "{context}", "{prefix}"),
        ("</s>", "▁<AIX-SPAN-PRE>", "▁<AIX-SPAN-POST>", "▁<AIX-SPAN-MIDDLE>"),
        files=FileNaming(
            lead=(
                "{comment} the file path is: {path}{comment_end}\n"
                "{comment} the code file is written by {language}{comment_end}\n"
            ),
            leads_alone=True,
        ),
        name_pattern=r"aixcoder",
    ),
    # Adapters of scripts/train_starter_model.py, which name control tokens that their base does not use. An adapter
    # says so; by its tokens alone a model is one of StarCoder's.
    InfillTemplate(
        "forelook",
        ("llama",),
        InfillOrder.SUFFIX_FIRST,
        ("<fim_prefix>", "<fim_suffix>", "{suffix}", "<fim_middle>", "{context}", "{prefix}"),
        ("<EOT>",),
        files=FileNaming(file=("<file_sep>", "{path}\n"), file_end=("\n",), own_file=("<file_sep>", "{path}\n")),
        other_control_tokens=("<fim_pad>",),
        name_pattern=r"^forelook$",
        sentinels_suffice=False,
    ),
)

PLAIN_TEMPLATE = InfillTemplate("plain", tuple(FAMILIES), InfillOrder.PLAIN, ("{context}", "{prefix}"), ())

# Added tokens that steer a model, whether or not its tokenizer flags them as special.
CONTROL_TOKENS = frozenset(
    token
    for template in INFILL_TEMPLATES
    for token in (*template.sentinels, *template.stops, *template.files.sentinels, *template.other_control_tokens)
)
