"""A language server whose suggestions are written down beforehand: the deterministic half of the editor tests.

It speaks just enough LSP for an editor, keeps a mirror of every document by LSP's own rules (so that a wrong
position shows as a wrong text), and writes each message it gets, with the mirror's view of it, to a record file.
Standard library only; run as ``python scripted_lsp.py SCRIPT.json RECORD.jsonl``.

The script is a JSON object:

``rules``
    a list; the first whose ``before`` ends the text before the cursor (on its line) answers a request. ``items`` are
    the texts to insert at the cursor; ``tail`` is how many characters behind the cursor they replace; ``hold`` keeps
    the answer until ``"request"`` (the next one is answered first, so this answer is stale), ``"change"`` (the next
    edit) or ``"cancel"`` (answered with RequestCancelled); ``once`` makes the rule answer one
    request only; ``die`` ends the process without an answer; ``notify`` are ``[method, params]`` pairs sent after it.
``encodings``
    the position encodings the server can do, its favourite first; the client's first known one of them is taken.
``commands``
    command id → result for ``workspace/executeCommand``.
``notifications``
    ``[method, params]`` pairs sent after ``initialized``.
``name``
    the server's name.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any, BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))  # an editor starts this file by its path

from bench import lsp_frames

REQUEST_CANCELLED = -32800
METHOD_NOT_FOUND = -32601

_LINE_END = re.compile(r"\r\n|\n|\r")


def split_lines(text: str) -> list[str]:
    """Lines with their ends, by LSP's rules: form feeds and Unicode separators end none."""
    lines, start = [], 0
    for end in _LINE_END.finditer(text):
        lines.append(text[start : end.end()])
        start = end.end()
    return [*lines, text[start:]]


def width(character: str, encoding: str) -> int:
    """Code units of one character."""
    if encoding == "utf-8":
        return len(character.encode("utf-8", "surrogatepass"))
    return 2 if encoding == "utf-16" and ord(character) > 0xFFFF else 1


def column_to_index(line: str, column: int, encoding: str) -> int:
    """Column in code units → index of the character."""
    seen = 0
    for index, character in enumerate(line):
        if seen >= column:
            return index
        seen += width(character, encoding)
    return len(line)


def index_to_column(line: str, index: int, encoding: str) -> int:
    """Index of a character → column in code units."""
    return sum(width(character, encoding) for character in line[:index])


class Server:
    """One conversation over stdio."""

    def __init__(self, script: dict[str, Any], record: Path, output: BinaryIO) -> None:
        self._script = script
        self._record = record
        self._output = output
        self._encoding = "utf-16"
        self._texts: dict[str, str] = {}
        self._held: list[tuple[str, Any, Any]] = []
        self._num_items = 0
        self._shut_down = False

    def run(self, source: BinaryIO) -> int:
        """Serve until ``exit`` or the end of the input."""
        while (message := lsp_frames.read(source)) is not None:
            if message.get("method") == "exit":
                self._note(message)
                return 0 if self._shut_down else 1
            self._handle(message)
        return 1

    def _send(self, message: dict[str, Any]) -> None:
        self._output.write(lsp_frames.encode({"jsonrpc": "2.0", **message}))
        self._output.flush()

    def _note(self, entry: dict[str, Any]) -> None:
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def _handle(self, message: dict[str, Any]) -> None:
        method, params, request = message.get("method"), message.get("params") or {}, message.get("id")
        if method is None:
            return
        entry: dict[str, Any] = {"method": method, "params": params, "pid": os.getpid()}
        if method == "textDocument/inlineCompletion":
            entry.update(self._view(params))
        if method == "textDocument/didChange":
            self._change(params)
            entry["text"] = self._texts[params["textDocument"]["uri"]]
        self._note(entry)
        if method == "initialize":
            self._send({"id": request, "result": self._initialize(params)})
        elif method == "initialized":
            for notification, content in self._script.get("notifications", []):
                self._send({"method": notification, "params": content})
        elif method == "textDocument/didOpen":
            self._texts[params["textDocument"]["uri"]] = params["textDocument"]["text"]
        elif method == "textDocument/didClose":
            self._texts.pop(params["textDocument"]["uri"], None)
        elif method == "textDocument/inlineCompletion":
            self._complete(request, params, entry)
        elif method == "workspace/executeCommand":
            self._send({"id": request, "result": self._script.get("commands", {}).get(params["command"])})
        elif method == "$/cancelRequest":
            self._release("cancel", only=params["id"])
        elif method == "shutdown":
            self._shut_down = True
            self._send({"id": request, "result": None})
        elif request is not None:
            self._send({"id": request, "error": {"code": METHOD_NOT_FOUND, "message": f"no method {method}"}})
        if method == "textDocument/didChange":
            self._release("change")

    def _initialize(self, params: dict[str, Any]) -> dict[str, Any]:
        able = self._script.get("encodings", ["utf-16"])
        offered = params.get("capabilities", {}).get("general", {}).get("positionEncodings") or ["utf-16"]
        self._encoding = next((encoding for encoding in offered if encoding in able), "utf-16")
        return {
            "serverInfo": {"name": self._script.get("name", "scripted"), "version": "1"},
            "capabilities": {
                "positionEncoding": self._encoding,
                "textDocumentSync": {"openClose": True, "change": 2, "save": False},
                "inlineCompletionProvider": {},
                "executeCommandProvider": {"commands": ["forelook.accept", *self._script.get("commands", {})]},
            },
        }

    def _change(self, params: dict[str, Any]) -> None:
        uri = params["textDocument"]["uri"]
        for change in params["contentChanges"]:
            if "range" not in change:
                self._texts[uri] = change["text"]
                continue
            text = self._texts[uri]
            start, end = (self._offset(text, change["range"][side]) for side in ("start", "end"))
            self._texts[uri] = text[:start] + change["text"] + text[end:]

    def _offset(self, text: str, position: dict[str, int]) -> int:
        lines = split_lines(text)
        if position["line"] >= len(lines):
            return len(text)
        line = _LINE_END.sub("", lines[position["line"]])
        before = sum(map(len, lines[: position["line"]]))
        return before + column_to_index(line, position["character"], self._encoding)

    def _view(self, params: dict[str, Any]) -> dict[str, str]:
        lines = split_lines(self._texts.get(params["textDocument"]["uri"], ""))
        line = _LINE_END.sub("", lines[params["position"]["line"]])
        index = column_to_index(line, params["position"]["character"], self._encoding)
        return {"before": line[:index], "after": line[index:]}

    def _complete(self, request: Any, params: dict[str, Any], view: dict[str, Any]) -> None:
        before, after = view["before"], view["after"]
        rule = next((rule for rule in self._script.get("rules", []) if before.endswith(rule["before"])), None)
        if rule is not None and rule.get("once"):
            self._script["rules"].remove(rule)
        items = [] if rule is None else self._items(rule, params["position"]["line"], before, after)
        if params["context"]["triggerKind"] == 2:
            items = items[:1]  # as the real server: alternatives only for those who ask
        if rule is not None and rule.get("die"):
            os._exit(3)
        if rule is not None and "hold" in rule:
            self._held.append((rule["hold"], request, {"items": items}))
            return
        self._send({"id": request, "result": {"items": items}})
        for method, content in rule.get("notify", []) if rule is not None else []:
            self._send({"method": method, "params": content})
        self._release("request")

    def _items(self, rule: dict[str, Any], row: int, before: str, after: str) -> list[dict[str, Any]]:
        items = []
        end = len(before) + rule.get("tail", 0)
        for text in rule["items"]:
            self._num_items += 1
            items.append(
                {
                    "insertText": before + text,
                    "range": {
                        "start": {"line": row, "character": 0},
                        "end": {"line": row, "character": index_to_column(before + after, end, self._encoding)},
                    },
                    "command": {"title": "accepted", "command": "forelook.accept", "arguments": [self._num_items]},
                }
            )
        return items

    def _release(self, event: str, only: Any = None) -> None:
        kept = []
        for waits_for, request, result in self._held:
            if event == "cancel" and request == only:
                error = {"code": REQUEST_CANCELLED, "message": "cancelled"}
                self._send({"id": request, "error": error})
            elif waits_for == event:
                self._send({"id": request, "result": result})
            else:
                kept.append((waits_for, request, result))
        self._held = kept


if __name__ == "__main__":
    sys.exit(
        Server(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), sys.stdout.buffer).run(sys.stdin.buffer)
    )
