/** The status bar's text: the language server's status and the state of the connection to it. */

const STATES = ["starting", "loading", "ready", "completing", "paused", "error"] as const;
export type ServerState = (typeof STATES)[number];

/** The language server's notification `forelook/status`; a missing field is unknown to the server. */
export interface ServerStatus {
  readonly state: ServerState;
  /** Fraction of the model loaded, 0 to 1. */
  readonly progress?: number;
  /** One line: an error's cause and fix, or why this document gets no suggestions. */
  readonly message?: string;
  readonly model?: string;
  readonly device?: string;
  readonly last_latency_ms?: number;
  readonly tokens_per_step?: number;
  readonly accept_rate?: number;
  readonly pool_tokens?: number;
}

/** State of the connection to the language server. */
export type Connection =
  | { readonly kind: "untrusted" }
  | { readonly kind: "missing"; readonly message: string }
  | { readonly kind: "installing" }
  | { readonly kind: "starting"; readonly message: string }
  | { readonly kind: "failed"; readonly message: string; readonly retryInS: number | undefined }
  | { readonly kind: "running"; readonly status: ServerStatus | undefined }
  | { readonly kind: "stopped" };

/** Where suggestions are off, if anywhere. */
export type Paused = "everywhere" | "language" | undefined;

export interface StatusView {
  /** Status bar text with `$(icon)`s. */
  readonly text: string;
  /** Lines of a Markdown tooltip. */
  readonly tooltip: readonly string[];
  readonly severity: "normal" | "warning" | "error";
}

const NAME = "Forelook";

/** The view for a connection and the active editor's language. */
export function viewOf(connection: Connection, paused: Paused, languageId: string | undefined): StatusView {
  switch (connection.kind) {
    case "untrusted":
      return view("$(shield)", "untrusted workspace", "Forelook starts once you trust this workspace.", "warning");
    case "missing":
      return error("is not set up", connection.message);
    case "installing":
      return busy("installing", "Installing the server into a private environment; see the log.");
    case "starting":
      return busy("starting", connection.message);
    case "failed": {
      const retry = connection.retryInS === undefined ? "" : `\n\nRetrying in ${connection.retryInS} s.`;
      return error("error", `${connection.message}${retry}`);
    }
    case "stopped":
      return { text: `$(circle-slash) ${NAME}`, tooltip: [title("stopped")], severity: "normal" };
    case "running":
      return runningView(connection.status, paused, languageId);
  }
}

function runningView(status: ServerStatus | undefined, paused: Paused, languageId: string | undefined): StatusView {
  if (!status) {
    return busy("starting", "The language server is running and has not reported the model's state yet.");
  }
  if (paused !== undefined || status.state === "paused") {
    const where = paused === "language" ? ` in ${languageId ?? "this language"}` : "";
    return {
      text: `$(debug-pause) ${NAME}`,
      tooltip: [title(`paused${where}`), "Suggestions are off here. Click for the menu."],
      severity: "normal",
    };
  }
  if (status.state === "error") {
    return error("error", status.message || "The backend reported an error without a cause; see the log.");
  }
  if (status.state === "starting" || status.state === "loading") {
    const percent = status.progress === undefined ? "" : ` ${Math.floor(status.progress * 100)}%`;
    return busy(`${status.state}${percent}`, status.message || "Loading the model.");
  }
  const isBusy = status.state === "completing";
  const model = status.model ? shortModel(status.model) : NAME;
  return {
    text: `${isBusy ? "$(loading~spin)" : "$(sparkle)"} ${model}`,
    tooltip: [title(status.state), ...(status.message ? [escape(status.message)] : []), ...facts(status)],
    severity: "normal",
  };
}

/** The known facts, for the tooltip. */
function facts(status: ServerStatus): string[] {
  const { last_latency_ms: ms, tokens_per_step: perStep, accept_rate: rate, pool_tokens: pool } = status;
  const rows: [string, string | false | undefined][] = [
    ["Model", status.model && escape(status.model)],
    ["Device", status.device],
    ["Last suggestion", ms !== undefined && `${Math.round(ms)} ms`],
    ["Tokens per decode step", perStep?.toFixed(2)],
    ["Accepted", rate !== undefined && `${Math.round(rate * 100)}%`],
    ["Pool", pool !== undefined && `${pool.toLocaleString("en")} tokens`],
  ];
  return rows.filter(([, value]) => value).map(([name, value]) => `${name}: ${value}`);
}

function busy(what: string, message: string): StatusView {
  return view("$(loading~spin)", what, message, "normal");
}

function error(what: string, message: string): StatusView {
  return view("$(error)", what, message, "error");
}

function view(icon: string, what: string, message: string, severity: StatusView["severity"]): StatusView {
  return { text: `${icon} ${NAME} ${what}`, tooltip: [title(what), escape(message)], severity };
}

function title(what: string): string {
  return `**${NAME}** — ${what}`;
}

/** Last part of a folder or hub id: the name that people use for a model. */
export function shortModel(model: string): string {
  const name = model.replace(/[\\/]+$/, "").split(/[\\/]/).at(-1) || model;
  return name.length <= 32 ? name : `${name.slice(0, 31)}…`;
}

/** Escapes Markdown in text from the server. */
function escape(text: string): string {
  return text.replace(/[\\`*_{}[\]<>#|~]/g, "\\$&");
}

/** Reads a notification and drops fields of the wrong type. */
export function parseStatus(params: unknown): ServerStatus | undefined {
  if (typeof params !== "object" || params === null) {
    return undefined;
  }
  const fields = new Map<string, unknown>(Object.entries(params));
  const state = fields.get("state");
  if (!STATES.some((known) => known === state)) {
    return undefined;
  }
  const kept: Record<string, unknown> = { state };
  for (const [name, type] of Object.entries(FIELD_TYPES)) {
    const value = fields.get(name);
    if (typeof value === type && !Number.isNaN(value)) {
      kept[name] = value;
    }
  }
  return kept as unknown as ServerStatus;
}

const FIELD_TYPES: Readonly<Record<Exclude<keyof ServerStatus, "state">, "number" | "string">> = {
  progress: "number",
  message: "string",
  model: "string",
  device: "string",
  last_latency_ms: "number",
  tokens_per_step: "number",
  accept_rate: "number",
  pool_tokens: "number",
};
