import { describe, expect, test } from "vitest";
import { type Connection, parseStatus, shortModel, viewOf } from "../src/status";

const READY = {
  state: "ready",
  model: "codellama/CodeLlama-7b-hf",
  device: "cuda:0",
  last_latency_ms: 84.4,
  tokens_per_step: 2.314,
  accept_rate: 0.345,
  pool_tokens: 120_400,
} as const;

function running(status: object): Connection {
  return { kind: "running", status: parseStatus(status) };
}

const view = (connection: Connection): ReturnType<typeof viewOf> => viewOf(connection, undefined, "python");

describe("the status item", () => {
  test("shows the share of the model that is loaded", () => {
    const shown = view(running({ state: "loading", progress: 0.427, message: "reading weights" }));
    expect(shown.text).toBe("$(loading~spin) Forelook loading 42%");
    expect(shown.tooltip).toContain("reading weights");
  });

  test("shows loading without a share while none is known", () => {
    expect(view(running({ state: "loading", progress: null, message: "" })).text).toBe("$(loading~spin) Forelook loading");
  });

  test("shows the model, and in the tooltip all figures that are known", () => {
    const shown = view(running(READY));
    expect(shown.text).toBe("$(sparkle) CodeLlama-7b-hf");
    expect(shown.tooltip).toEqual([
      "**Forelook** — ready",
      "Model: codellama/CodeLlama-7b-hf",
      "Device: cuda:0",
      "Last suggestion: 84 ms",
      "Tokens per decode step: 2.31",
      "Accepted: 35%",
      "Pool: 120,400 tokens",
    ]);
  });

  test("leaves out figures that are not known yet", () => {
    const shown = view(running({ ...READY, last_latency_ms: null, tokens_per_step: null, accept_rate: null, pool_tokens: null }));
    expect(shown.tooltip).toEqual(["**Forelook** — ready", "Model: codellama/CodeLlama-7b-hf", "Device: cuda:0"]);
  });

  test("spins while the server is being installed", () => {
    expect(view({ kind: "installing" }).text).toBe("$(loading~spin) Forelook installing");
  });

  test("spins while a completion is under way", () => {
    expect(view(running({ ...READY, state: "completing" })).text).toBe("$(loading~spin) CodeLlama-7b-hf");
  });

  test("says why a document gets no suggestions", () => {
    expect(view(running({ ...READY, message: "this file may hold secrets" })).tooltip[1]).toBe("this file may hold secrets");
  });

  test("shows an error with its cause", () => {
    const shown = view(running({ state: "error", message: "no CUDA device; set device = cpu" }));
    expect(shown).toEqual({
      text: "$(error) Forelook error",
      tooltip: ["**Forelook** — error", "no CUDA device; set device = cpu"],
      severity: "error",
    });
  });

  test.each([
    ["everywhere", "**Forelook** — paused"],
    ["language", "**Forelook** — paused in python"],
  ] as const)("paused %s is shown, whatever the model does", (paused, title) => {
    const shown = viewOf(running(READY), paused, "python");
    expect(shown.text).toBe("$(debug-pause) Forelook");
    expect(shown.tooltip[0]).toBe(title);
  });

  test("tells when it tries again", () => {
    const shown = view({ kind: "failed", message: "ended with exit code 3", retryInS: 4 });
    expect(shown.tooltip[1]).toBe("ended with exit code 3\n\nRetrying in 4 s.");
    expect(shown.severity).toBe("error");
  });

  test("tells that an untrusted workspace starts nothing", () => {
    expect(view({ kind: "untrusted" })).toMatchObject({ text: "$(shield) Forelook untrusted workspace", severity: "warning" });
  });

  test("takes Markdown's meaning away from a message", () => {
    const shown = view(running({ state: "error", message: "[click](command:x) **now** <b>" }));
    expect(shown.tooltip[1]).toBe("\\[click\\](command:x) \\*\\*now\\*\\* \\<b\\>");
  });

  test("looks like starting until the first status", () => {
    expect(view({ kind: "running", status: undefined }).text).toBe("$(loading~spin) Forelook starting");
  });
});

describe("a status notification", () => {
  test.each([null, undefined, 3, "ready", {}, { state: "unheard of" }, { state: 1 }])("%j is not one", (params) => {
    expect(parseStatus(params)).toBeUndefined();
  });

  test("keeps the fields that are as agreed and drops the rest", () => {
    const parsed = parseStatus({ state: "ready", model: 7, tokens_per_step: 1.5, accept_rate: Number.NaN, other: "x" });
    expect(parsed).toEqual({ state: "ready", tokens_per_step: 1.5 });
  });
});

test.each([
  ["/home/me/models/my-model/", "my-model"],
  ["C:\\models\\small", "small"],
  ["owner/name", "name"],
  ["starter", "starter"],
  ["x".repeat(40), `${"x".repeat(31)}…`],
])("the short name of %s is %s", (model, short) => {
  expect(shortModel(model)).toBe(short);
});
