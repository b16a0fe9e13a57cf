"""The tables of all endpoints, by path: what the documentation shows."""

from __future__ import annotations

from collections.abc import Mapping

from forelook.server.http.fields import Field
from forelook.server.http.llama_cpp import DETOKENIZE, TOKENIZE, Completion, Infill
from forelook.server.http.ollama import Generate
from forelook.server.http.openai import Completions

TABLES: Mapping[str, tuple[Field, ...]] = {
    "/v1/completions": Completions.table,
    "/infill": Infill.table,
    "/completion": Completion.table,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
    "/api/generate": Generate.table,
}
