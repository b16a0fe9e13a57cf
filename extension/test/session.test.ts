import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { servers } from "./fakes/languageclient";
import { fake, log, Uri } from "./fakes/vscode";
import { Session } from "../src/session";
import type { Link } from "../src/links";
import type { Connection } from "../src/status";

vi.mock("vscode-languageclient/node", () => import("./fakes/languageclient"));

const links = { opened: 0, closed: 0, permanent: false, refuse: false };
vi.mock("../src/links", () => ({
  linkFor: (): Link => ({
    where: "the server",
    open: () => {
      links.opened += 1;
      if (links.refuse) {
        return Promise.reject(new Error("connection refused"));
      }
      return Promise.resolve({} as never);
    },
    close: () => {
      links.closed += 1;
      return Promise.resolve();
    },
    why: (problem) => ({ message: problem ? String(problem) : "it went away", isRetryable: !links.permanent }),
  }),
}));

const TRANSPORT = { kind: "stdio", command: "forelook-lsp", args: [], cwd: "/" } as const;

let session: Session;
let seen: Connection[];

beforeEach(() => {
  vi.useFakeTimers();
  fake.reset();
  servers.reset();
  Object.assign(links, { opened: 0, closed: 0, permanent: false, refuse: false });
  seen = [];
  session = new Session(log() as never);
  session.onDidChange((connection) => seen.push(connection));
});

afterEach(async () => {
  await session.stop();
  vi.useRealTimers();
});

/** Lets all that is due happen, and then `milliseconds` pass. */
const pass = (milliseconds = 0): Promise<unknown> => vi.advanceTimersByTimeAsync(milliseconds);

const only = () => {
  expect(servers.numRunning).toBe(1);
  const client = servers.clients.at(-1);
  if (!client) {
    throw new Error("there is no client");
  }
  return client;
};

describe("a session", () => {
  test("tells how far the start is, and then what the server says", async () => {
    await session.start(TRANSPORT);
    await pass();
    only().notify("forelook/status", { state: "loading", progress: 0.5 });
    expect(seen.map(({ kind }) => kind)).toEqual(["starting", "running", "running"]);
    expect(session.state).toEqual({ kind: "running", status: { state: "loading", progress: 0.5 } });
  });

  test("restarts a crashed server with a growing delay, and at once after a steady run", async () => {
    await session.start(TRANSPORT);
    await pass();
    for (const seconds of [1, 2, 4, 8, 16, 30, 30]) {
      only().crash();
      await pass();
      expect(session.state).toEqual({ kind: "failed", message: "it went away", retryInS: seconds });
      await pass(seconds * 1000 - 1);
      expect(servers.numRunning).toBe(0);
      await pass(1);
      expect(servers.numRunning).toBe(1);
    }
    await pass(61_000);
    only().crash();
    await pass();
    expect(session.state).toMatchObject({ retryInS: 1 });
    expect(links.closed).toBe(8);
  });

  test("reports the cursor in documents that the server knows, while there is one", async () => {
    const report = (scheme: string): Promise<void> =>
      session.reportCursor({ uri: Uri.from({ scheme, path: "/a.py" }) } as never, { line: 3, character: 7 } as never);
    await report("file");
    await session.start(TRANSPORT);
    await pass();
    await report("output");
    await report("file");
    expect(only().sent).toEqual([
      {
        method: "forelook/didMoveCursor",
        params: { textDocument: { uri: "file:///a.py" }, position: { line: 3, character: 7 } },
      },
    ]);
  });

  test("tries a start that failed again", async () => {
    servers.failures = 2;
    await session.start(TRANSPORT);
    await pass();
    expect(session.state).toMatchObject({ kind: "failed", retryInS: 1 });
    await pass(1000);
    await pass(2000);
    expect(session.isRunning).toBe(true);
  });

  test("makes no language client, whose failure pops up, for a server it cannot reach", async () => {
    links.refuse = true;
    await session.start(TRANSPORT);
    await pass();
    expect(servers.clients).toEqual([]);
    expect(session.state).toMatchObject({ kind: "failed", message: "Error: connection refused" });
    links.refuse = false;
    await pass(1000);
    expect(session.isRunning).toBe(true);
    expect(links.closed).toBe(1);
  });

  test("gives up where another try cannot help", async () => {
    links.permanent = true;
    servers.failures = 1;
    await session.start(TRANSPORT);
    await pass(600_000);
    expect(session.state).toMatchObject({ kind: "failed", retryInS: undefined });
    expect(servers.clients).toHaveLength(1);
  });

  test("has one server, however often it is started", async () => {
    await Promise.all([session.start(TRANSPORT), session.start(TRANSPORT), session.start(TRANSPORT)]);
    await pass();
    only();
    expect(links.closed).toBe(links.opened - 1);
  });

  test("stops a server that never answers", async () => {
    servers.hang = true;
    await session.start(TRANSPORT);
    await pass();
    await session.stop();
    expect(links.closed).toBe(1);
    expect(session.state).toEqual({ kind: "stopped" });
  });

  test("stopped while it waits to try again, starts nothing any more", async () => {
    servers.failures = 1;
    await session.start(TRANSPORT);
    await pass();
    await session.stop({ kind: "untrusted" });
    await pass(600_000);
    expect(servers.clients).toHaveLength(1);
    expect(session.state).toEqual({ kind: "untrusted" });
  });

  test("sends the settings as they are, at the start, on a change, and when the server asks", async () => {
    fake.set("forelook.deadlineMs", 300);
    fake.set("forelook.server.url", "ws://127.0.0.1:1");
    const settings = { deadlineMs: 300, commandSuffix: ".server", modelOffer: false };
    await session.start(TRANSPORT);
    await pass();
    const { options, sent } = only();
    expect(options.initializationOptions).toEqual(settings);
    expect(options.middleware.workspace.configuration({ items: [{ section: "forelook" }, { section: "python" }] })).toEqual([
      settings,
      null,
    ]);
    await session.sendSettings();
    expect(sent).toEqual([{ method: "workspace/didChangeConfiguration", params: { settings: { forelook: settings } } }]);
  });

  test("runs no command and sends no setting without a server", async () => {
    await session.sendSettings();
    expect(await session.execute("forelook.stats.server")).toBeUndefined();
  });

  test("a status it cannot read leaves the last one", async () => {
    await session.start(TRANSPORT);
    await pass();
    only().notify("forelook/status", { state: "ready" });
    only().notify("forelook/status", { state: "confused" });
    expect(session.state).toEqual({ kind: "running", status: { state: "ready" } });
  });
});
