/**
 * Tests that run inside VS Code's extension host, with the whole real API: no browser, no fake. The end-to-end run starts
 * them (tests/e2e_vscode/host.test.ts) and reads what they print.
 */

import assert from "node:assert/strict";
import * as vscode from "vscode";

const ID = "forelook.forelook";
const FIND = "\n    def find(self, name: str) -> Item:\n        return ";
const DEADLINE_MS = 60_000;
const PATIENCE_MS = 2_000;

type Test = () => Promise<void>;

const tests: Readonly<Record<string, Test>> = {
  "the extension is active and every command of its manifest is registered": async () => {
    const extension = await active();
    const manifest = extension.packageJSON as { contributes: { commands: { command: string }[] } };
    const registered = new Set(await vscode.commands.getCommands(true));
    for (const { command } of manifest.contributes.commands) {
      assert.ok(registered.has(command), command);
    }
  },

  "the language server's commands stand beside the extension's, under names of their own": async () => {
    const registered = await eventually("the language server's commands", async () => {
      const names = (await vscode.commands.getCommands(true)).filter((name) => name.startsWith("forelook."));
      return names.some((name) => name.endsWith(".server")) ? names : undefined;
    });
    assert.equal(new Set(registered).size, registered.length);
  },

  "the language server says that the model is ready": async () => {
    const { state } = await eventually("the model is ready", async () => {
      const status = await vscode.commands.executeCommand<{ state: string }>("forelook.status.server");
      return status.state === "ready" ? status : undefined;
    });
    assert.equal(state, "ready");
  },

  "VS Code knows which settings are the machine's": async () => {
    const settings = vscode.workspace.getConfiguration("forelook");
    // A workspace must not be able to name a program, a model or an address.
    for (const name of ["model", "server.interpreter", "server.url", "backend.url", "backend.tokenFile"]) {
      await assert.rejects(async () => settings.update(name, "x", vscode.ConfigurationTarget.Workspace), name);
    }
  },

  "a suggestion in a file is accepted by VS Code's own command": async () => {
    const editor = await show(await vscode.workspace.openTextDocument(inWorkspace("shop.py")));
    await append(editor, FIND);
    await acceptSuggestion(editor, FIND);
  },

  "a suggestion in a file with Windows line ends keeps them": async () => {
    const shop = await vscode.workspace.openTextDocument(inWorkspace("shop.py"));
    const content = shop.getText().replace(/\r?\n/g, "\r\n");
    const editor = await show(await vscode.workspace.openTextDocument({ language: "python", content }));
    await editor.edit((edit) => edit.setEndOfLine(vscode.EndOfLine.CRLF));
    await append(editor, FIND);
    await acceptSuggestion(editor, FIND);
    assert.doesNotMatch(editor.document.getText().replaceAll("\r\n", ""), /[\r\n]/);
  },

  "a suggestion in an untitled file": async () => {
    const editor = await show(await vscode.workspace.openTextDocument({ language: "python", content: "import os\n\n" }));
    const text = "def read(path):\n    with open(path) as file:\n        return ";
    await append(editor, text);
    await acceptSuggestion(editor, text);
  },

  "a suggestion in a notebook's cell": async () => {
    const shop = (await vscode.workspace.openTextDocument(inWorkspace("shop.py"))).getText();
    const cell = new vscode.NotebookCellData(vscode.NotebookCellKind.Code, shop + FIND, "python");
    const notebook = await vscode.workspace.openNotebookDocument("jupyter-notebook", new vscode.NotebookData([cell]));
    await vscode.window.showNotebookDocument(notebook);
    await vscode.commands.executeCommand("notebook.cell.edit");
    const editor = await eventually("the cell's editor", () =>
      Promise.resolve(vscode.window.visibleTextEditors.find(({ document }) => document.uri.scheme === "vscode-notebook-cell")),
    );
    await moveToEnd(editor);
    await acceptSuggestion(editor, FIND);
  },

  "a suggestion in the second folder of a multi-root workspace": async () => {
    const folders = vscode.workspace.workspaceFolders ?? [];
    assert.equal(folders.length, 2);
    const file = vscode.Uri.joinPath((folders[1] as vscode.WorkspaceFolder).uri, "orders.py");
    const editor = await show(await vscode.workspace.openTextDocument(file));
    const text = "\n    def count(self) -> int:\n        return ";
    await append(editor, text);
    await acceptSuggestion(editor, text);
  },

  "switching off takes suggestions away, and on brings them back": async () => {
    const editor = await show(await vscode.workspace.openTextDocument({ language: "python", content: "" }));
    const settings = (): vscode.WorkspaceConfiguration => vscode.workspace.getConfiguration("forelook");
    await vscode.commands.executeCommand("forelook.toggle");
    assert.equal(settings().get("enable"), false);
    const text = "def read(path):\n    with open(path) as file:\n        return ";
    await append(editor, text);
    assert.equal(await askAndAccept(editor), false, "nothing is suggested");
    await vscode.commands.executeCommand("forelook.toggle");
    assert.equal(settings().get("enable"), true);
    const further = `self.path\n\n\n${text}`;
    await append(editor, further);
    await acceptSuggestion(editor, further);
  },
};

/** Entry point for VS Code. */
export async function run(): Promise<void> {
  let numFailed = 0;
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`host test ok: ${name}`);
    } catch (error) {
      numFailed += 1;
      console.log(`host test FAILED: ${name}: ${error instanceof Error ? error.stack : String(error)}`);
    }
    await vscode.commands.executeCommand("workbench.action.revertAndCloseActiveEditor");
  }
  console.log(`host tests: ${Object.keys(tests).length} run, ${numFailed} failed`);
  if (numFailed > 0) {
    throw new Error(`${numFailed} tests failed`);
  }
}

async function active(): Promise<vscode.Extension<unknown>> {
  const extension = vscode.extensions.getExtension<unknown>(ID);
  assert.ok(extension);
  await extension.activate();
  return extension;
}

function inWorkspace(name: string): vscode.Uri {
  const [folder] = vscode.workspace.workspaceFolders ?? [];
  assert.ok(folder);
  return vscode.Uri.joinPath(folder.uri, name);
}

function show(document: vscode.TextDocument): Thenable<vscode.TextEditor> {
  return vscode.window.showTextDocument(document, { preview: false });
}

async function append(editor: vscode.TextEditor, text: string): Promise<void> {
  const { document } = editor;
  assert.ok(await editor.edit((edit) => edit.insert(document.positionAt(document.getText().length), text)));
  await moveToEnd(editor);
}

async function moveToEnd(editor: vscode.TextEditor): Promise<void> {
  const end = editor.document.positionAt(editor.document.getText().length);
  editor.selection = new vscode.Selection(end, end);
  editor.revealRange(new vscode.Range(end, end));
}

/** Asks for a suggestion and accepts what comes within a while; whether the document changed. */
async function askAndAccept(editor: vscode.TextEditor): Promise<boolean> {
  const before = editor.document.getText();
  await vscode.commands.executeCommand("editor.action.inlineSuggest.trigger");
  const deadline = Date.now() + PATIENCE_MS;
  while (Date.now() < deadline && editor.document.getText() === before) {
    await vscode.commands.executeCommand("editor.action.inlineSuggest.commit");
    await pause();
  }
  return editor.document.getText() !== before;
}

/** As `askAndAccept`, until there is a suggestion: the model may still be loading. */
async function acceptSuggestion(editor: vscode.TextEditor, after: string): Promise<void> {
  const text = (): string => editor.document.getText().replaceAll("\r\n", "\n");
  const before = text();
  assert.ok(before.endsWith(after));
  await eventually("a suggestion is accepted", async () => (await askAndAccept(editor)) || undefined);
  assert.ok(text().startsWith(before), "what stood there is still there");
  assert.ok(text().length > before.length);
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 50));
}

async function eventually<T>(what: string, check: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + DEADLINE_MS;
  for (;;) {
    const value = await check();
    if (value !== undefined) {
      return value;
    }
    if (Date.now() > deadline) {
      throw new Error(`not within ${DEADLINE_MS / 1000} s: ${what}`);
    }
    await pause();
  }
}
