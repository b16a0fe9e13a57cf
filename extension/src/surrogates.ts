/**
 * When VS Code 1.139 removes the text that a suggestion and the line share, it counts a character outside the basic plane
 * as one column, and then hides the suggestion as misplaced. So such characters are kept out of the replaced range.
 */

import type * as vscode from "vscode";

const SURROGATE_PAIR = /[\ud800-\udbff][\udc00-\udfff]/g;

/** Moves the start of an item's range after the last surrogate pair before the cursor. */
export function keepSurrogatesOut(
  item: vscode.InlineCompletionItem,
  document: vscode.TextDocument,
  position: vscode.Position,
): void {
  const { range, insertText } = item;
  if (!range || typeof insertText !== "string" || range.start.line !== position.line) {
    return;
  }
  const before = document.lineAt(position.line).text.slice(range.start.character, position.character);
  const last = [...before.matchAll(SURROGATE_PAIR)].at(-1);
  const kept = before.slice(0, last === undefined ? 0 : last.index + last[0].length);
  if (kept === "" || !insertText.startsWith(kept)) {
    return;
  }
  item.range = range.with(range.start.translate(0, kept.length));
  item.insertText = insertText.slice(kept.length);
  if (item.filterText?.startsWith(kept)) {
    item.filterText = item.filterText.slice(kept.length);
  }
}
