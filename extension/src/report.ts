/** Read-only pages: statistics as Markdown, the doctor's findings as text. */

import * as vscode from "vscode";

const SCHEME = "forelook-report";

export class Reports implements vscode.TextDocumentContentProvider, vscode.Disposable {
  private readonly pages = new Map<string, string>();
  private readonly changed = new vscode.EventEmitter<vscode.Uri>();
  readonly onDidChange = this.changed.event;
  private readonly registration = vscode.workspace.registerTextDocumentContentProvider(SCHEME, this);

  provideTextDocumentContent(uri: vscode.Uri): string {
    return this.pages.get(uri.path) ?? "";
  }

  /** Shows or refreshes a page; Markdown is rendered. */
  async show(name: string, text: string): Promise<void> {
    const uri = vscode.Uri.from({ scheme: SCHEME, path: name });
    this.pages.set(name, text);
    this.changed.fire(uri);
    if (name.endsWith(".md")) {
      await vscode.commands.executeCommand("markdown.showPreview", uri);
    } else {
      await vscode.window.showTextDocument(uri, { preview: true });
    }
  }

  dispose(): void {
    this.registration.dispose();
    this.changed.dispose();
  }
}

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** Renders any statistics object: groups become headings, figures become table rows. */
export function statisticsPage(statistics: Json): string {
  return ["# Forelook statistics", "", "Counts and times only, stored on this machine; never text.", ...section(statistics, 2)]
    .join("\n")
    .concat("\n");
}

function section(value: Json, level: number): string[] {
  if (!isGroup(value)) {
    return ["", inline(value)];
  }
  const entries = Object.entries(value).filter(([, entry]) => entry !== null);
  const figures = entries.filter(([, entry]) => !isGroup(entry));
  const groups = entries.filter(([, entry]) => isGroup(entry) && Object.keys(entry).length > 0);
  const table = figures.map(([name, figure]) => `| ${inWords(name)} | ${withUnit(name, figure)} |`);
  return [
    ...(table.length > 0 ? ["", "| | |", "|---|---:|", ...table] : []),
    ...groups.flatMap(([name, group]) => ["", `${"#".repeat(level)} ${inWords(name)}`, ...section(group, level + 1)]),
  ];
}

function isGroup(value: Json): value is { readonly [key: string]: Json } {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** Names that need a clearer label than the generic one. */
const WORDS: Readonly<Record<string, string>> = {
  window: "This window",
  num_asks: "Requests to the model",
  num_withdrawn: "Requests withdrawn",
  num_chars_accepted: "Characters accepted",
};

/** `tokens_per_step` → `Tokens per step`; the value carries the unit. */
function inWords(name: string): string {
  const known = WORDS[name];
  if (known !== undefined) {
    return known;
  }
  const words = name.replace(/^num_/, "").replace(/_(ms|s|bytes)$/, "").replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

function withUnit(name: string, value: Json): string {
  if (typeof value !== "number") {
    return inline(value);
  }
  if (name.endsWith("_ms")) {
    return `${value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 })} ms`;
  }
  if (name.endsWith("_bytes")) {
    return `${(value / 1024 / 1024).toLocaleString("en", { maximumFractionDigits: 1 })} MiB`;
  }
  if (name.endsWith("_rate") || name.endsWith("_share")) {
    return `${Math.round(value * 100)}%`;
  }
  return `${value.toLocaleString("en", { maximumFractionDigits: 2 })}${name.endsWith("_s") ? " s" : ""}`;
}

function inline(value: Json): string {
  const text = Array.isArray(value) ? value.map((item) => inline(item as Json)).join(", ") : String(value);
  return text.replace(/[|\\`*_<>[\]]/g, "\\$&").replaceAll("\n", " ");
}
