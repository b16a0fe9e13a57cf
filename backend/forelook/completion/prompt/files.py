"""How the files of a prompt are told apart: the parts of an infill format, filled in for a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forelook.completion.document_store import Document
from forelook.languages import language_for
from forelook.model.infill_templates import FileNaming, Part


@dataclass(frozen=True, slots=True)
class FileContext:
    """Text of another file.

    Attributes:
        path: relative to the workspace.
        text: without the file's name.
        commented: the same below a comment with the file's name, for formats without paths.
    """

    path: str
    text: str
    commented: str


@dataclass(frozen=True, slots=True)
class FileLabels:
    """The parts of a format, filled in for one document; each is ids of sentinels and texts.

    Attributes:
        before: precedes all other files.
        after: follows them.
        lead: text directly before the prefix where other files precede it.
        lead_alone: the same where none does.
    """

    before: tuple[Part, ...]
    after: tuple[Part, ...]
    lead: str
    lead_alone: str


def labels_of(parts: FileNaming, document: Document) -> FileLabels:
    """The parts of a format for a document."""
    language = language_for(document.language_id)
    comment, comment_end = (language.line_comments[0], "") if language.line_comments else ("", "")
    if not comment and language.block_comments:
        comment, comment_end = language.block_comments[0]
    fields = {
        "path": document.path,
        "repository": document.repository,
        "language": language.title or language.name.capitalize(),
        "comment": comment,
        "comment_end": comment_end and f" {comment_end}",
    }
    has_comment = bool(comment) or "{comment}" not in parts.lead
    lead = parts.lead.format_map(fields) if has_comment else ""
    return FileLabels(
        _filled(parts.repository, fields), _filled(parts.own_file, fields), lead, lead if parts.leads_alone else ""
    )


def parts_of(parts: FileNaming, other: FileContext) -> list[Part]:
    """Another file of the prompt: ids of sentinels, and texts."""
    text = other.text if parts.name_files else other.commented
    return joined([*_filled(parts.file, {"path": other.path}), text, *parts.file_end])


def joined(parts: Sequence[Part]) -> list[Part]:
    """The same parts, with neighboring texts joined to one."""
    found: list[Part] = []
    for part in parts:
        last = found[-1] if found else None
        if isinstance(part, str) and isinstance(last, str):
            found[-1] = last + part
        else:
            found.append(part)
    return found


def _filled(parts: Sequence[Part], fields: Mapping[str, str]) -> tuple[Part, ...]:
    return tuple(part.format_map(fields) if isinstance(part, str) else part for part in parts)
