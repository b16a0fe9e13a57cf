/**
 * VS Code 1.139 counts a letter outside the basic plane as one column where it takes off what a suggestion and the line
 * have in common, and hides the suggestion for standing elsewhere then. So such letters are kept out of what is replaced.
 */

import type * as vscode from "vscode";

const SURROGATE_PAIR = /[\ud800-\udbff][\udc00-\udfff]/g;

/** Lets an item's range begin behind the last surrogate pair before the cursor. */
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
