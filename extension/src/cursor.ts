/** Reports where the cursor rests: the prompt there is computed before a key is pressed. */

import * as vscode from "vscode";

/** Chosen, not measured: a cursor that moves on sooner was on its way. */
export const REST_MS = 200;

type Report = (document: vscode.TextDocument, position: vscode.Position) => Promise<void>;

/** Calls `report` once the cursor of the active editor has rested. */
export function reportCursor(report: Report): vscode.Disposable {
  let timer: NodeJS.Timeout | undefined;
  const rest = (editor: vscode.TextEditor | undefined): void => {
    clearTimeout(timer);
    if (editor) {
      timer = setTimeout(() => void report(editor.document, editor.selection.active), REST_MS);
    }
  };
  const moved = vscode.window.onDidChangeTextEditorSelection(({ textEditor }) => rest(textEditor));
  const changed = vscode.window.onDidChangeActiveTextEditor(rest);
  return new vscode.Disposable(() => {
    clearTimeout(timer);
    moved.dispose();
    changed.dispose();
  });
}
