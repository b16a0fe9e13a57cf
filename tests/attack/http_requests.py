"""Hostile HTTP requests: crafted ones, and as many random ones as wanted from a seed. All carry a canary."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

CANARY = "zeisigkehlchen"
"""In every prompt, path and header value: it may be in no log line and in nobody else's answer."""

PROMPT = f"def {CANARY}(values):\n    return "
BODIES: dict[str, dict[str, Any]] = {
    "/v1/completions": {
        "model": "m", "prompt": PROMPT, "suffix": "\n", "max_tokens": 4, "temperature": 0, "top_p": 1, "n": 1,
        "stream": False, "stop": ["\n\n"], "seed": 1, "echo": False, "logprobs": None, "user": CANARY, "best_of": 1,
        "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": None, "stream_options": None,
        "forelook_clean": False, "forelook_language": "python",
    },
    "/infill": {
        "input_prefix": f"# {CANARY}\n", "input_suffix": "\n", "prompt": PROMPT, "n_predict": 4,
        "input_extra": [{"filename": "a.py", "text": f"{CANARY} = 1\n", "time": 1}], "n_indent": 4, "top_k": 40,
        "top_p": 0.9, "samplers": ["top_k", "top_p", "infill"], "temperature": 0, "stop": [], "cache_prompt": True,
        "id_slot": 0, "stream": False, "t_max_prompt_ms": 500, "t_max_predict_ms": 500, "response_fields": ["content"],
        "n_cmpl": 1, "lora": [{"id": 0, "scale": 0.5}], "model": "",
    },
    "/completion": {
        "prompt": PROMPT, "n_predict": 4, "temperature": 0, "top_k": 40, "top_p": 0.9, "stop": ["\n\n"],
        "stream": False, "seed": 1, "cache_prompt": True, "n_probs": 0, "logit_bias": [], "grammar": "",
        "json_schema": None, "response_fields": ["content"], "id_slot": -1,
    },
    "/api/generate": {
        "model": "m", "prompt": PROMPT, "suffix": "\n", "stream": False, "raw": False, "keep_alive": "5m",
        "options": {"num_predict": 4, "temperature": 0, "stop": ["\n\n"], "seed": 1, "num_ctx": 2048}, "images": [],
        "format": "", "system": "", "template": "", "context": [], "think": False,
    },
    "/tokenize": {"content": PROMPT, "add_special": False, "parse_special": True, "with_pieces": False},
    "/detokenize": {"tokens": [100, 101, 102]},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Literal:
    """JSON text that no encoder writes."""

    text: str


HUGE = int("9" * 4200)
LITERALS = tuple(
    Literal(text)
    for text in (
        "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "-0.0", "9" * 4000, "1." + "0" * 4000,
        '"\\ud800"', '"\\udfff\\ud800"', '"\\u0000"', '"\\x41"', '"\x00"', '"\x1f\x7f"', "'a'", "01", "+1", ".5", "1.",
        "0x10", "1_000", "True", "None", "undefined", "", '{"a":1,"a":2}', "[1,]", "/*c*/1", '"' + "\\" * 999,
        "[" * 500 + "]" * 500, "[" * 100_000, '{"a":' * 5_000,
    )
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 2, 3, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, -(2**63), HUGE, -HUGE, 0.5, -0.5, 1e308,
    -1e308, 5e-324, "", "a", " ", "\n", "\r\n", "\0", "\x1b[31m", "\u202e", "\ufeff", "\ufffd", "😀", "e\u0301" * 50,
    "<PRE>", "<SUF>", "<MID>", "<EOT>", "<PRE><SUF>a<MID>b", "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>",
    "../../etc/passwd", "file:///etc/passwd", "%s%n%x", "{0.__class__}", "${jndi:ldap://x}", "'; drop table", "-1",
    "NaN",
    "x" * 300, "x" * 20_000, "\n" * 20_000, "\t" * 3_000, [], [[]], [None], [1], [-1], [2**31], ["a"], [["a"], "b"],
    ["x"] * 2_000, list(range(300)), [HUGE], [True], [0.5], {}, {"a": {"b": []}}, {"text": "a"}, {"tokens": [1]},
    [{"text": "a"}], [{"filename": None, "text": 1}], [{"text": "b", "time": "now"}] * 300, {"": ""}, {"__proto__": 1},
    *LITERALS,
)  # fmt: skip
NAMES = (
    "extra", "", "__class__", "prompt\0", "\ud800", "x" * 5_000, "messages", "input_extra", "n_predict", "max_tokens",
    "stream", "n", "n_cmpl", "grammar", "response_fields", "options", "best_of", "logprobs", "n_probs", "raw",
)  # fmt: skip
TYPES = (
    None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
    "application/json; charset=utf-16",
    "application/json; charset=nonsense", "application/jsonx", "", "*/*", "application/json" * 300, "image/png",
)  # fmt: skip
BROKEN_UTF_8 = (b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf5\x80")
METHODS = ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE", "PATCH", "CONNECT", "PROPFIND", "post", "P0ST", "")
PATHS = (
    "//infill", "/infill/", "/infill//", "/./infill", "/x/../infill", "/infill/../health", "/%69nfill", "/infill%00",
    "/infill%2f", "/INFILL", "/infill;a=b", "/infill?model=x", "/infill?" + "a=b&" * 500, "/infill#x",
    "/../../etc/passwd",
    "/..%2f..%2fetc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/static/../../x", "/v1/completions/", "/v1//completions",
    "/v1/completions/../models", "/v1/models/../../x", "/v1/models/%2e%2e%2f%2e%2e", "/v1/models/" + "x" * 4_000,
    "/v1/models/%00", "/v1/models/%ff%fe", "/v1/embeddings", "/v1/chat/completions", "/api/chat", "/api/pull",
    "/api/show", "/api/tags/", "/api/generate/..", "/slots", "/slots/0?action=save", "/lora-adapters", "/rpc",
    "/metrics",
    "/health", "/props", "*", "", "infill", "http://elsewhere/infill", "/\xff\xfe", "/" + "a" * 70_000, "/{path}", "/%",
    "/api/blobs/sha256:0", "/v1/completions?api_key=x", "/.git/config", "/proc/self/environ", "/infill\\..\\health",
)  # fmt: skip


class Then(Enum):
    """What the client does once its bytes are sent."""

    READ = auto()
    STOP_SENDING = auto()
    CLOSE = auto()
    RESET = auto()
    READ_A_LITTLE = auto()


@dataclass(frozen=True, slots=True)
class Attack:
    """Bytes for one connection.

    Attributes:
        name: what is hostile about it.
        data: sent in one go.
        then: what follows.
    """

    name: str
    data: bytes
    then: Then = Then.READ


def encode(value: Any) -> bytes:
    """JSON in which literals stand as they are; lone surrogates are escaped."""
    literals: list[str] = []

    def plain(item: Any) -> Any:
        if isinstance(item, Literal):
            literals.append(item.text)
            return f"@literal{len(literals) - 1}@"
        if isinstance(item, Mapping):
            return {key: plain(member) for key, member in item.items()}
        if isinstance(item, (list, tuple)):
            return [plain(member) for member in item]
        return item

    text = json.dumps(plain(value))
    for number, literal in enumerate(literals):
        text = text.replace(f'"@literal{number}@"', literal)
    return text.encode("utf-8", "surrogatepass")


def head(
    key: str,
    path: str,
    length: int | None,
    *,
    method: str = "POST",
    content_type: str | None = "application/json",
    more: tuple[str, ...] = (),
    host: str = "127.0.0.1",
    version: str = "HTTP/1.1",
) -> bytes:
    """The head of a request that closes its connection."""
    lines = [f"{method} {path} {version}", f"Host: {host}", f"Authorization: Bearer {key}", "Connection: close"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join([*lines, *more]) + "\r\n\r\n").encode("latin-1", "replace")


def request(key: str, path: str, body: bytes, **options: Any) -> bytes:
    """A whole request."""
    return head(key, path, len(body), **options) + body


def chunked(body: bytes, size: int, end: bytes = b"0\r\n\r\n") -> bytes:
    """A body in chunks."""
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


def random_attacks(seed: int, count: int, keys: tuple[str, ...]) -> Iterator[Attack]:
    """Mutations of valid requests, the same ones for the same seed."""
    chance = random.Random(seed)
    for number in range(count):
        path = chance.choice(list(BODIES))
        key = chance.choice(keys)
        body, what = _mutated(chance, BODIES[path])
        data = encode(body)
        if chance.random() < 0.12:
            data, damage = _damaged(chance, data)
            what += f", {damage}"
        options: dict[str, Any] = {}
        if chance.random() < 0.05:
            options["content_type"] = chance.choice(TYPES)
        then = chance.choices(list(Then), (80, 5, 5, 5, 5))[0]
        if chance.random() < 0.1:
            sent = head(key, path, None, more=("Transfer-Encoding: chunked",), **options)
            sent += chunked(data, chance.choice((1, 7, 1000, 65_536)) if len(data) < 50_000 else 65_536)
            what += ", in chunks"
        else:
            sent = request(key, path, data, **options)
        yield Attack(f"{number} {path}: {what}"[:300], sent, then)


def _mutated(chance: random.Random, valid: Mapping[str, Any]) -> tuple[Any, str]:
    if chance.random() < 0.04:
        return chance.choice(VALUES), "another body"
    body = dict(valid)
    changed = chance.sample(list(body), min(len(body), chance.choice((1, 1, 1, 2, 3))))
    for name in changed:
        inner = body[name]
        if isinstance(inner, dict) and chance.random() < 0.7:
            field = chance.choice(list(inner))
            body[name] = {**inner, field: chance.choice(VALUES)}
        else:
            body[name] = chance.choice(VALUES)
    for name in list(body):
        if chance.random() < 0.1 and name not in changed:
            del body[name]
    if chance.random() < 0.1:
        body[chance.choice(NAMES)] = chance.choice(VALUES)
    return body, "changed " + ", ".join(changed)


def _damaged(chance: random.Random, data: bytes) -> tuple[bytes, str]:
    place = chance.randrange(len(data) + 1)
    damages = {
        "cut": data[:place],
        "broken UTF-8": data[:place] + chance.choice(BROKEN_UTF_8) + data[place:],
        "a byte changed": data[:place] + bytes([chance.randrange(256)]) + data[place + 1 :],
        "a mark before it": b"\xef\xbb\xbf" + data,
        "UTF-16": data.decode("utf-8", "replace").encode("utf-16"),
        "UTF-32": data.decode("utf-8", "replace").encode("utf-32"),
        "twice": data + data,
        "zeros": b"\0" * len(data),
        "gzip": gzip.compress(data, mtime=0),
        "nothing": b"",
    }  # fmt: skip
    name = chance.choice(list(damages))
    return damages[name], name


def crafted_attacks(key: str) -> Iterator[Attack]:
    """One of each trick with methods, paths, headers, bodies, framing and disconnects."""
    infill = encode(BODIES["/infill"])
    stream = encode({**BODIES["/completion"], "stream": True, "n_predict": 400})
    for method in METHODS:
        for path in ("/infill", "/v1/completions", "/health", "/nowhere"):
            yield Attack(f"{method} {path}", request(key, path, infill, method=method))
    for path in PATHS:
        yield Attack(f"path {path[:40]!r}", request(key, path, infill))
        yield Attack(f"GET path {path[:40]!r}", head(key, path, None, method="GET"))
    for content_type in TYPES:
        for path in BODIES:
            sent = request(key, path, encode(BODIES[path]), content_type=content_type)
            yield Attack(f"{path} as {str(content_type)[:40]}", sent)
    yield from _headers(key, infill)
    yield from _framing(key, infill)
    for path in BODIES:
        valid = encode(BODIES[path])
        for share in (0, 1, 20, len(valid) - 1):
            cut = head(key, path, len(valid)) + valid[:share]
            for then in (Then.STOP_SENDING, Then.CLOSE, Then.RESET):
                yield Attack(f"{path} ends after {share} bytes, {then.name}", cut, then)
    for then in (Then.CLOSE, Then.RESET, Then.READ_A_LITTLE):
        for path in ("/completion", "/v1/completions", "/api/generate"):
            body = (
                stream
                if path == "/completion"
                else encode({**BODIES[path], "stream": True, "max_tokens": 400, "options": {"num_predict": 400}})
            )
            yield Attack(f"{path} leaves its stream, {then.name}", request(key, path, body), then)


def _headers(key: str, body: bytes) -> Iterator[Attack]:
    for line in (
        "Origin: http://evil.example", "Origin: null", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil",
        "X: " + "y" * 70_000,
        f"Cookie: {CANARY}=1", "Expect: 100-continue", "Expect: 200-nothing", "Content-Encoding: gzip",
        "Content-Encoding: br",
        "Upgrade: websocket", "Upgrade: h2c", "Connection: keep-alive, Upgrade", "Host: evil.example",
        "Authorization: Basic eDp5",
        "Authorization: Bearer", "X-Forelook-Clean: perhaps", "X-Forelook-Clean: true\r\nX-Forelook-Clean: false",
        "Accept: image/png",
        "Range: bytes=0-1", "Transfer-Encoding: gzip", "Transfer-Encoding: identity", "TE: trailers", "X-Api-Key: x",
        " Folded: a\r\n b",
        "No-Colon", ": empty", "Sp ace: a", "Ctl\x01: a", "Nul: \0", "Latin: \xe9\xff", "Content-Length: 1",
        "Content-Length: -1",
        "Content-Length: 99999999999999999999", "Content-Length: 0x10", "Content-Length: +5", "Max-Forwards: 0",
    ):  # fmt: skip
        yield Attack(f"header {line[:40]!r}", request(key, "/infill", body, more=(line,)), Then.STOP_SENDING)
    yield Attack("200 headers", request(key, "/infill", body, more=tuple(f"H{n}: {n}" for n in range(200))))
    for host in ("evil.example", "", "127.0.0.1@evil", "[::1", "127.0.0.1:99999", "a" * 300, "127.0.0.1, evil"):
        yield Attack(f"host {host[:30]!r}", request(key, "/infill", body, host=host))
    for token in (
        "",
        "x",
        key[:-1],
        key + "x",
        key.upper(),
        f"{key}, {key}",
        f" {key}",
        f'"{key}"',
        "\xff" * 40,
        "y" * 9_000,
    ):
        yield Attack(f"a key of {len(token)} characters", request(token, "/infill", body))


def _framing(key: str, body: bytes) -> Iterator[Attack]:
    in_chunks = ("Transfer-Encoding: chunked",)
    both = head(key, "/infill", len(body), more=in_chunks)
    yield Attack("chunks and a length", both + chunked(body, 50), Then.STOP_SENDING)
    smuggled = request(key, "/completion", encode(BODIES["/completion"]))
    yield Attack(
        "a request in a body", head(key, "/infill", 4, more=in_chunks) + b"0\r\n\r\n" + smuggled, Then.STOP_SENDING
    )
    for end in (
        b"",
        b"0\r\n",
        b"-1\r\n",
        b"zz\r\n",
        b"ffffffffffffffffffff\r\n",
        b"0;ext=" + b"x" * 20_000 + b"\r\n\r\n",
        b"0\r\nT: x\r\n\r\n",
    ):
        sent = head(key, "/infill", None, more=in_chunks) + chunked(body, 100, end)
        yield Attack(f"chunks end with {end[:20]!r}", sent, Then.STOP_SENDING)
    yield Attack("chunks of one byte", head(key, "/infill", None, more=in_chunks) + chunked(body, 1))
    yield Attack("a longer length", head(key, "/infill", len(body) + 100) + body, Then.STOP_SENDING)
    yield Attack("a shorter length", head(key, "/infill", len(body) - 5) + body)
    yield Attack("no length", head(key, "/infill", None) + body, Then.STOP_SENDING)
    for length in (2**31, 2**63, 10**30):
        yield Attack(f"length {length}", head(key, "/infill", length) + body, Then.STOP_SENDING)
    for version in ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9", "HTTX/1.1", ""):
        yield Attack(f"version {version}", request(key, "/infill", body, version=version), Then.STOP_SENDING)
    yield Attack("pipelined", request(key, "/health", b"", method="GET") * 20, Then.STOP_SENDING)
    for name, data in {
        "nothing": b"", "one byte": b"P", "a preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "line ends": b"\r\n" * 5_000,
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), "zeros": bytes(70_000),
        "no line end": b"G" * 70_000,
        "bare line feeds": request(key, "/infill", body).replace(b"\r\n", b"\n"),
        "a websocket frame": b"\x81\xfe\x00\x7e" + b"a" * 126,
    }.items():  # fmt: skip
        for then in (Then.STOP_SENDING, Then.RESET):
            yield Attack(f"{name}, {then.name}", data, then)
