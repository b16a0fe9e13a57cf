"""What a file's content says about it: whether it contains secrets, was written by a tool, or is no text."""

from __future__ import annotations

import os
import re

from forelook.privacy.ignore_rules import IgnoreRules

MAX_FILE_BYTES = 1 << 20  # chosen, not measured
MAX_LINE_BYTES = 2000  # chosen, not measured: longer lines are minified or data

GENERATED_GLOBS: tuple[str, ...] = (
    "*.min.js", "*.min.css", "*.min.mjs", "*.bundle.js", "*-bundle.js", "*.chunk.js", "*.map", "*.lock",
    "package-lock.json",
    "npm-shrinkwrap.json", "pnpm-lock.yaml", "go.sum", "*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*.pb.go", "*.pb.cc",
    "*.pb.h",
    "*.g.dart", "*.freezed.dart", "*.designer.cs", "*.generated.*", "*.snap", "*.ipynb", "*.svg", "*.csv", "*.tsv",
)  # fmt: skip
"""Files written by tools: long, repetitive and unlike what a person types."""

_GENERATED_MARK = re.compile(
    rb"@generated|\b(?:auto-?generated|generated (?:by|from|with))\b.{0,80}|do not edit", re.IGNORECASE
)
_GENERATED = IgnoreRules("\n".join(GENERATED_GLOBS).encode(), ignore_case=True, strict=True)

# A marker that code compares with is no key: base64 follows in a key, after line ends, headers or quotes.
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:(?:\s|\\[nr]|[A-Za-z-]{1,30}: [^\n]{0,200}\n){0,40}[A-Za-z0-9+/]{4}|[\s\"'+,.\\nr]{0,80}[A-Za-z0-9+/]{32})"
    r"|PuTTY-User-Key-File-\d|AGE-SECRET-KEY-1[0-9A-Z]{58}"
)

_KEY_MARKS = ("-----BEGIN ", "PuTTY-", "AGE-SECRET-KEY")

# Shapes that the issuers document so that scanners can find them; names of variables prove nothing. The marks, one of
# which each shape contains, are looked for first: that is a hundred times faster than the expressions.
_TOKENS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (
        "an AWS access key",
        ("AKIA", "ASIA", "ABIA", "ACCA"),
        r"(?:AKIA|ASIA|ABIA|ACCA)(?![A-Z0-9]{9}EXAMPLE)[A-Z2-7]{16}",
    ),
    (
        "a GitHub token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        r"gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,}",
    ),
    (
        "a GitLab token",
        ("glpat-", "gldt-", "glrt-", "glptt-", "glsoat-", "glagent-", "gloas-"),
        r"gl(?:pat|dt|rt|ptt|soat|agent|oas)-[A-Za-z0-9_-]{20}",
    ),
    (
        "a Slack token",
        ("xox", "hooks.slack.com/"),
        r"xox[abeoprs]-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/\w{20}",
    ),
    ("a Stripe key", ("k_live_",), r"[rs]k_live_[A-Za-z0-9]{20}"),
    (
        "a Google key",
        ("AIza", "GOCSPX-", "ya29."),
        r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{40}",
    ),
    ("a SendGrid key", ("SG.",), r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    ("an npm token", ("npm_",), r"npm_[A-Za-z0-9]{36}"),
    (
        "a PyPI token",
        ("pypi-Ag",),
        r"pypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{40}|pypi-AgENdGVzdC5weXBpLm9yZw[A-Za-z0-9_-]{40}",
    ),
    ("an OpenAI key", ("T3BlbkFJ",), r"sk-(?:proj-|svcacct-|admin-)?[A-Za-z0-9_-]{20,80}T3BlbkFJ[A-Za-z0-9_-]{20}"),
    ("an Anthropic key", ("sk-ant-",), r"sk-ant-[a-z]{3,8}\d\d-[A-Za-z0-9_-]{60}"),
    ("a Hugging Face token", ("hf_",), r"hf_[A-Za-z]{34}"),
    ("a DigitalOcean token", ("_v1_",), r"do[opr]_v1_[a-f0-9]{64}"),
    ("a Shopify token", ("shpat_", "shpca_", "shppa_", "shpss_"), r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    ("a Databricks token", ("dapi",), r"dapi[a-f0-9]{32}"),
    ("an Azure account key", ("AccountKey=",), r"AccountKey=[A-Za-z0-9+/]{86}=="),
    ("a Mailchimp key", ("-us",), r"[a-f0-9]{32}-us\d{1,2}"),
    ("a Telegram token", (":AA",), r"\d{8,10}:AA[A-Za-z0-9_-]{33}"),
    ("a Docker token", ("dckr_pat_",), r"dckr_pat_[A-Za-z0-9_-]{27}"),
    ("a Vault token", ("hvs.",), r"hvs\.[A-Za-z0-9_-]{24}"),
    ("an Atlassian token", ("ATATT3",), r"ATATT3[A-Za-z0-9_=-]{100}"),
    ("a Linear key", ("lin_api_",), r"lin_api_[A-Za-z0-9]{40}"),
    ("a New Relic key", ("NRAK-",), r"NRAK-[A-Z0-9]{27}"),
    ("a PlanetScale token", ("pscale_",), r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_-]{32}"),
    ("a Doppler token", ("dp.pt.", "dp.st.", "dp.ct.", "dp.sa."), r"dp\.(?:pt|st|ct|sa)\.[A-Za-z0-9]{40}"),
)
_SHAPES = [(reason, marks, re.compile(rf"(?<![A-Za-z0-9])(?:{shape})")) for reason, marks, shape in _TOKENS]
_MAX_PLACES = 2000  # of one mark in one text; chosen, not measured
LONGEST_SECRET = 400
"""Characters around an edit within which a secret can begin or end."""


def secret_reason(text: str) -> str | None:
    """Why a text is excluded: it contains a private key or a token of a known issuer; ``None`` if it does not."""
    if any(mark in text for mark in _KEY_MARKS) and _PRIVATE_KEY.search(text):
        return "it contains a private key"
    for reason, marks, shape in _SHAPES:
        if any(_has_shape(text, mark, shape) for mark in marks):
            return f"it contains {reason}"
    return None


def _has_shape(text: str, mark: str, shape: re.Pattern[str]) -> bool:
    """Whether a token of this shape stands around a mark."""
    place = text.find(mark)
    for _ in range(_MAX_PLACES):
        if place < 0:
            return False
        if shape.search(text[max(0, place - LONGEST_SECRET) : place + LONGEST_SECRET]):
            return True
        place = text.find(mark, place + 1)
    return False


def is_generated_name(name: str) -> bool:
    """Whether a file name indicates that a tool wrote the file."""
    return bool(_GENERATED.verdict(os.fsencode(name), is_directory=False))


def content_reason(data: bytes) -> str | None:
    """Why a file's content is excluded or useless; ``None`` if it is wanted."""
    if len(data) > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES} bytes"
    if b"\0" in data:
        return "binary"
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return "not UTF-8"
    secret = secret_reason(text)
    if secret is not None:
        return secret
    if _GENERATED_MARK.search(data, 0, 1000):
        return "generated by a tool"
    if max(map(len, data.split(b"\n"))) > MAX_LINE_BYTES:
        return "minified"
    return None
