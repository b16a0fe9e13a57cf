/** The extension's settings: its own, and those it forwards to the language server. */

import * as vscode from "vscode";

export const SECTION = "forelook";

/**
 * Groups that only the extension reads. Everything else under `forelook` is forwarded to the language server, which
 * validates it and reports errors.
 */
const OWN_GROUPS: ReadonlySet<string> = new Set(["server", "trace"]);

/** Appended to the language server's command ids, so that they differ from the extension's own. */
const COMMAND_SUFFIX = ".server";

/** How to reach the language server. */
export interface ServerSettings {
  readonly interpreter: string | undefined;
  readonly url: string | undefined;
  readonly pipArguments: readonly string[];
}

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** The settings for the language server, for `initializationOptions` and for changes. */
export function forwardedSettings(): Record<string, Json> {
  const section = vscode.workspace.getConfiguration().get<Record<string, Json>>(SECTION) ?? {};
  const forwarded = Object.entries(section).filter(([name]) => !OWN_GROUPS.has(name));
  return { ...Object.fromEntries(forwarded), ...ignoredByAll(), commandSuffix: COMMAND_SUFFIX, modelOffer: false };
}

/** The workspace's ignore globs and then the user's: a workspace may exclude more files, but include none. */
function ignoredByAll(): { readonly ignore?: readonly Json[] } {
  const found = vscode.workspace.getConfiguration(SECTION).inspect<unknown>("ignore");
  const lists = [found?.workspaceValue, found?.globalValue].filter((list): list is Json[] => Array.isArray(list));
  return lists.length < 2 ? {} : { ignore: lists.flat() };
}

/** The id under which the language server of this window offers its command `name`. */
export function serverCommand(name: string): string {
  return `${SECTION}.${name}${COMMAND_SUFFIX}`;
}

export function serverSettings(): ServerSettings {
  const section = vscode.workspace.getConfiguration(`${SECTION}.server`);
  return {
    interpreter: expandHome(section.get<string | null>("interpreter")?.trim()) || undefined,
    url: section.get<string | null>("url")?.trim() || undefined,
    pipArguments: section.get<string[]>("pipArguments", []),
  };
}

function expandHome(path: string | undefined): string | undefined {
  const home = process.env["HOME"] ?? process.env["USERPROFILE"];
  return path?.startsWith("~/") && home ? home + path.slice(1) : path;
}

/** Whether suggestions are enabled for a language; the language server applies the same rule. */
export function enabledFor(languageId: string): boolean {
  const section = vscode.workspace.getConfiguration(SECTION);
  const languages = section.get<Record<string, boolean>>("languages", {});
  return section.get<boolean>("enable", true) && (languages[languageId] ?? languages["*"] ?? true);
}

export function enabledEverywhere(): boolean {
  return vscode.workspace.getConfiguration(SECTION).get<boolean>("enable", true);
}

/** Enables or disables suggestions in the workspace's or user's settings, wherever it is set; returns the new state. */
export async function toggleEverywhere(): Promise<boolean> {
  const section = vscode.workspace.getConfiguration(SECTION);
  const on = !section.get<boolean>("enable", true);
  await section.update("enable", on, targetOf(section, "enable"));
  return on;
}

/** As `toggleEverywhere`, for one language; enabling it also enables suggestions everywhere. */
export async function toggleLanguage(languageId: string): Promise<boolean> {
  const section = vscode.workspace.getConfiguration(SECTION);
  const on = !enabledFor(languageId);
  const languages = section.get<Record<string, boolean>>("languages", {});
  await section.update("languages", { ...languages, [languageId]: on }, targetOf(section, "languages"));
  if (on && !section.get<boolean>("enable", true)) {
    await section.update("enable", true, targetOf(section, "enable"));
  }
  return on;
}

/** The settings of model and device as options of the `forelook` command; defaults are omitted. */
export function modelArguments(): string[] {
  const section = vscode.workspace.getConfiguration(SECTION);
  const named = ["model", "revision", "device", "dtype"].flatMap((name) => {
    const value = section.get<string | null>(name);
    return value && value !== "auto" ? [`--${name}=${value}`] : [];
  });
  return section.get<boolean>("leftToRight") ? [...named, "--left-to-right"] : named;
}

export async function setModel(model: string | undefined): Promise<void> {
  await vscode.workspace.getConfiguration(SECTION).update("model", model, vscode.ConfigurationTarget.Global);
}

/** Accepts models that were not trained to infill; the language server restarts the backend. */
export async function acceptLeftToRight(): Promise<void> {
  await vscode.workspace.getConfiguration(SECTION).update("leftToRight", true, vscode.ConfigurationTarget.Global);
}

export async function setInterpreter(path: string | null): Promise<void> {
  await vscode.workspace
    .getConfiguration(`${SECTION}.server`)
    .update("interpreter", path ?? undefined, vscode.ConfigurationTarget.Global);
}

function targetOf(section: vscode.WorkspaceConfiguration, name: string): vscode.ConfigurationTarget {
  const found = section.inspect(name);
  return found?.workspaceValue !== undefined
    ? vscode.ConfigurationTarget.Workspace
    : vscode.ConfigurationTarget.Global;
}
