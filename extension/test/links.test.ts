import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { log } from "./fakes/vscode";
import { type Link, linkFor } from "../src/links";
import { AddressError, TokenRefusedError } from "../src/websocket";

let folder: string;
let link: Link | undefined;
const signal = new AbortController().signal;

beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "forelook-"));
});

afterEach(async () => {
  await link?.close();
  await rm(folder, { recursive: true, force: true });
});

function shell(script: string): Link {
  link = linkFor({ kind: "stdio", command: "/bin/sh", args: ["-c", script], cwd: folder }, log() as never);
  return link;
}

test("a server's end is told with its exit code and last words", async () => {
  const crashing = shell("echo first >&2; echo 'no module named torch' >&2; exit 3");
  await crashing.open(signal);
  await crashing.close();
  expect(crashing.why(new Error("connection got disposed"))).toEqual({
    message: "The language server ended with exit code 3: no module named torch",
    isRetryable: true,
  });
});

test("a program that is not there is told, and not tried again", async () => {
  link = linkFor({ kind: "stdio", command: path.join(folder, "none"), args: [], cwd: folder }, log() as never);
  const problem = await link.open(signal).catch((error: unknown) => error);
  await link.close();
  expect(link.why(problem).message).toContain("could not be started: spawn");
  expect(link.why(problem).isRetryable).toBe(false);
});

test("a server that ends by itself when its input does is not killed", async () => {
  const polite = shell("cat > /dev/null; exit 7");
  await polite.open(signal);
  await polite.close();
  expect(polite.why(undefined).message).toBe("The language server ended with exit code 7");
});

test("a server that does not end is killed", async () => {
  const stubborn = shell("exec sleep 600");
  await stubborn.open(signal);
  await stubborn.close();
  expect(stubborn.why(undefined).message).toBe("The language server was ended by SIGKILL");
});

test.each([new AddressError("not an address"), new TokenRefusedError("it refused the token")])(
  "over websocket, %s is not tried again",
  (problem) => {
    const socket = linkFor({ kind: "websocket", url: "ws://127.0.0.1:1", token: undefined }, log() as never);
    expect(socket.why(problem)).toEqual({ message: problem.message, isRetryable: false });
    expect(socket.why(new Error("ECONNREFUSED"))).toEqual({ message: "ws://127.0.0.1:1: ECONNREFUSED", isRetryable: true });
    expect(socket.why(undefined)).toEqual({ message: "ws://127.0.0.1:1 closed the connection", isRetryable: true });
  },
);
