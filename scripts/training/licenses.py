"""Which packages may be trained on: the license a package states, judged against a list of permissive ones."""

from __future__ import annotations

import email.parser
import json
import re
from dataclasses import dataclass
from pathlib import Path

# SPDX ids and the names people write instead; a package is taken only when each of its terms is one of these.
PERMISSIVE = re.compile(
    r"(mit(-0|-cmu)?|x11|expat|(new |modified |simplified )?bsd(-[0234]-clause)?(-patent)?|0bsd|isc|zlib|unlicense|"
    r"cc0(-1\.0)?|apache(-| )?(software )?(license)?,?( ?-?(version )?2(\.0)?)?|psf(-2\.0|l)?|python-2\.0(\.1)?|"
    r"python software foundation( license)?|hpnd|boost|bsl-1(\.0)?|public[- ]domain|unicode(-dfs-2016|-3\.0)?|wtfpl|"
    r"ncsa|postgresql|curl|openssl|blueoak-1\.0\.0|llvm-exception|bzip2-1\.0\.6|libtiff|historical)",
    re.IGNORECASE,
)
COPYLEFT = re.compile(
    r"\b(A|L)?GPL|GNU (Lesser |Affero |Library )?General Public|Mozilla Public|\bMPL\b|\bEUPL\b|\bCDDL\b|\bEPL\b|"
    r"Creative Commons Attribution-(ShareAlike|NonCommercial)|\bCC-BY-(SA|NC)|\bSSPL\b|Business Source|\bBUSL\b",
    re.IGNORECASE,
)
_TEXTS = (
    (re.compile(r"Permission is hereby granted, free of charge, to any person obtaining", re.I), "MIT"),
    (re.compile(r"Redistribution and use in source and binary forms", re.I), "BSD"),
    (re.compile(r"Apache License\s+Version 2\.0", re.I), "Apache-2.0"),
    (re.compile(r"Permission to use, copy, modify, and/?(or)? distribute this software for any", re.I), "ISC"),
    (re.compile(r"PYTHON SOFTWARE FOUNDATION LICENSE", re.I), "PSF-2.0"),
    (re.compile(r"Boost Software License", re.I), "BSL-1.0"),
)
_LICENCE_FILE = re.compile(r"(licen[cs]e|copying|copyright)([-._].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class License:
    """What a package says of its license.

    Attributes:
        stated: its words, shortened.
        permissive: whether all of them are permissive.
    """

    stated: str
    permissive: bool


def judge(expression: str) -> bool:
    """Whether an SPDX expression or a license's name is permissive: one side of each OR, all sides of each AND."""
    text = re.sub(r"Apache License,? Version 2(\.0)?", "Apache-2.0", expression, flags=re.IGNORECASE)
    text = text.replace("/", " OR ") if re.fullmatch(r"[\w.-]+(/[\w.-]+)+", text) else text
    choices = re.split(r"\s+or\s+", text.replace("(", " ").replace(")", " "), flags=re.IGNORECASE)
    return any(
        all(_one(term) for term in re.split(r"\s+(?:and|with)\s+|[,;&]", choice, flags=re.IGNORECASE) if term.strip())
        for choice in choices
        if choice.strip()
    )


def license_of(folder: Path) -> License | None:
    """The license of an unpacked package; ``None`` when it states none.

    Looks, in this order, at a wheel's METADATA, a package.json, a Cargo.toml, a Debian copyright file, and the text of
    a license file.
    """
    for read in (_of_wheel, _of_npm, _of_cargo, _of_debian, _of_text):
        found = read(folder)
        if found is not None:
            return found
    return None


def _one(term: str) -> bool:
    words = re.sub(r"\b(the|license|licence|licensed|clause)\b", " ", term, flags=re.IGNORECASE)
    words = re.sub(r"^\W+|\W+$|['\"]", "", re.sub(r"\s+", " ", words).strip())
    whole = term.strip().strip("'\"")
    return PERMISSIVE.fullmatch(whole) is not None or PERMISSIVE.fullmatch(words) is not None


def _of_wheel(folder: Path) -> License | None:
    for path in [*folder.glob("*.dist-info/METADATA"), *folder.glob("PKG-INFO")][:1]:
        message = email.parser.Parser().parsestr(path.read_text("utf-8", "replace"), headersonly=True)
        if expression := message.get("License-Expression"):
            return License(expression, judge(expression))
        classifiers = [
            value.split(" :: ")[-1] for value in message.get_all("Classifier") or [] if value.startswith("License ::")
        ]
        classifiers = [name for name in classifiers if name != "OSI Approved"]
        if classifiers:
            stated = " AND ".join(classifiers)
            return License(stated, all(_one(name.replace(" License", "")) or _one(name) for name in classifiers))
        stated = (message.get("License") or "").strip()
        if stated and len(stated) < 80:
            return License(stated, judge(stated))
        if stated:
            return _from_text(stated)
        return _of_text(path.parent) or _of_text(path.parent / "licenses") or _of_text(folder)
    return None


def _of_npm(folder: Path) -> License | None:
    path = folder / "package.json"
    if not path.is_file():
        return None
    try:
        stated = json.loads(path.read_text("utf-8", "replace")).get("license")
    except ValueError:
        return None
    if isinstance(stated, dict):
        stated = stated.get("type")
    return License(stated, judge(stated)) if isinstance(stated, str) else _of_text(folder)


def _of_cargo(folder: Path) -> License | None:
    for path in sorted(folder.glob("usr/share/cargo/registry/*/Cargo.toml"))[:1]:
        stated = re.search(r'^license\s*=\s*"(.+)"', path.read_text("utf-8", "replace"), re.MULTILINE)
        return License(stated.group(1), judge(stated.group(1))) if stated else None
    return None


def _of_debian(folder: Path) -> License | None:
    paths = [*folder.glob("usr/share/doc/*/copyright"), *folder.glob("debian/copyright")]
    if not paths:
        return None
    names: list[str] = []
    for stanza in re.split(r"\n\s*\n", paths[0].read_text("utf-8", "replace")):
        # Terms of the packaging itself are not those of the source.
        files = re.search(r"^Files:\s*(.*)$", stanza, re.MULTILINE)
        stated = re.search(r"^License:\s*(\S.*)$", stanza, re.MULTILINE)
        if files and stated and not files.group(1).startswith("debian"):
            names.append(stated.group(1).strip())
    if not names:
        return _from_text(paths[0].read_text("utf-8", "replace"))
    distinct = list(dict.fromkeys(names))
    return License(" AND ".join(distinct)[:120], all(judge(name.replace("|", " or ")) for name in distinct))


def _of_text(folder: Path) -> License | None:
    if not folder.is_dir():
        return None
    for path in sorted(folder.iterdir()):
        if path.is_file() and _LICENCE_FILE.fullmatch(path.name):
            return _from_text(path.read_text("utf-8", "replace"))
    return None


def _from_text(text: str) -> License | None:
    names = [name for pattern, name in _TEXTS if pattern.search(text)]
    if not names:
        return None
    head = text[:3000]
    return License(" AND ".join(names), COPYLEFT.search(head) is None)
