"""What requests without a document teach the pool of their user: their texts, as if they were documents.

Such a request does not say which file it is about. Its text is taken for a later version of the earlier text that it
shares the most with, so that a client that sends its file with every keystroke fills the pool with one document.
"""

from __future__ import annotations

from collections import OrderedDict

from forelook.keys import WorkspaceKey
from forelook.protocol.generation import GenerationParams, InfillPrompt
from forelook.text import common_prefix, common_suffix
from forelook.workspace.pool import WorkspacePool

_MAX_TEXTS = 16  # per user; chosen, not measured
_MAX_CHARS = 100_000  # of a text; chosen, not measured
_MIN_SHARED = 0.5  # of the shorter text; chosen, not measured
_MIN_CHARS = 16  # a shorter text teaches nothing; chosen, not measured


def http_workspace(principal: str) -> WorkspaceKey:
    """The workspace of a user's requests without a document; its pool is in memory only."""
    return WorkspaceKey(principal, "requests")


class RequestTexts:
    """The latest texts of one user's requests, each under the key of a document of the pool."""

    def __init__(self) -> None:
        self._texts: OrderedDict[str, str] = OrderedDict()  # the latest last
        self._num_keys = 0

    def key_of(self, text: str) -> str | None:
        """The document that a text is a version of."""
        for key, known in reversed(self._texts.items()):
            shared = max(common_prefix(known, text), common_suffix(known, text))
            if shared >= _MIN_SHARED * min(len(known), len(text)):
                return key
        return None

    def learn(self, params: GenerationParams, pool: WorkspacePool) -> None:
        """Add the texts of a request to the pool."""
        prompt = params.prompt
        if isinstance(prompt, InfillPrompt):
            pool.add_files([(f"{file.name}#{hash(file.text) & 0xFFFF_FFFF:x}", file.text) for file in prompt.files])
        text = text_of(params)
        if len(text) < _MIN_CHARS:
            return
        key = self.key_of(text)
        if key is None:
            self._num_keys += 1
            key = f"request:{self._num_keys}"
            pool.open_document(key, text)
        elif self._texts[key] != text:
            pool.change_document(key, text)
        self._texts[key] = text
        self._texts.move_to_end(key)
        if len(self._texts) > _MAX_TEXTS:
            pool.close_document(self._texts.popitem(last=False)[0])


def text_of(params: GenerationParams) -> str:
    """The text of a request as of a document."""
    prompt = params.prompt
    if isinstance(prompt, InfillPrompt):
        before, after = prompt.prefix + prompt.middle, prompt.suffix
        return before[-_MAX_CHARS:] + after[:_MAX_CHARS]
    return "".join(part for part in prompt.parts if isinstance(part, str))[-_MAX_CHARS:]
