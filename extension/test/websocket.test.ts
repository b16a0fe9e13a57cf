import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Message } from "vscode-jsonrpc/node";
import { type WebSocket, WebSocketServer } from "ws";
import { AddressError, checkAddress, connect, TokenRefusedError } from "../src/websocket";

const TOKEN = "0123456789abcdef";

let server: WebSocketServer;
let address: string;
let requests: IncomingMessage[];
const stop = new AbortController();

beforeEach(async () => {
  requests = [];
  server = new WebSocketServer({
    host: "127.0.0.1",
    port: 0,
    verifyClient: ({ req }: { req: IncomingMessage }) => {
      requests.push(req);
      return req.headers.authorization === `Bearer ${TOKEN}`;
    },
  });
  await once(server, "listening");
  address = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(() => {
  server.clients.forEach((client) => client.terminate());
  server.close();
});

async function connected() {
  const accepted = once(server, "connection") as Promise<[WebSocket]>;
  const transports = await connect(address, TOKEN, stop.signal);
  return { ...transports, peer: (await accepted)[0] };
}

test("the token goes in a header and not in the address", async () => {
  await connected();
  expect(requests[0]?.headers.authorization).toBe(`Bearer ${TOKEN}`);
  expect(requests[0]?.url).not.toContain(TOKEN);
});

test("no Origin is sent: servers refuse web pages by it", async () => {
  await connected();
  expect(requests[0]?.headers.origin).toBeUndefined();
});

test.each([undefined, "wrong"])("the token %j is refused, which is told apart from other failures", async (token) => {
  await expect(connect(address, token, stop.signal)).rejects.toThrow(TokenRefusedError);
});

test("one message a frame, text or binary, both ways and in order", async () => {
  const { reader, writer, peer } = await connected();
  const received: Message[] = [];
  const two = new Promise<void>((resolve) =>
    reader.listen((message) => {
      received.push(message);
      if (received.length === 2) {
        resolve();
      }
    }),
  );
  const [first, second] = [
    { jsonrpc: "2.0", method: "a", params: { text: "🙂é\u2028" } },
    { jsonrpc: "2.0", method: "b" },
  ];
  peer.send(JSON.stringify(first));
  peer.send(Buffer.from(JSON.stringify(second)));
  await two;
  expect(received).toEqual([first, second]);

  const echoed = once(peer, "message") as Promise<[Buffer]>;
  await writer.write(first as Message);
  expect(JSON.parse((await echoed)[0].toString("utf8"))).toEqual(first);
});

test("a frame that is no JSON is an error and does not end the connection", async () => {
  const { reader, peer } = await connected();
  const failed = new Promise<Error>((resolve) => reader.onError(resolve));
  const arrived = new Promise<Message>((resolve) => reader.listen(resolve));
  peer.send("not json");
  expect((await failed).name).toBe("SyntaxError");
  peer.send('{"jsonrpc": "2.0", "method": "after"}');
  expect(await arrived).toMatchObject({ method: "after" });
});

test("the other end's leaving closes reader and writer", async () => {
  const { reader, writer, peer } = await connected();
  const closed = Promise.all([
    new Promise<void>((resolve) => reader.onClose(resolve)),
    new Promise<void>((resolve) => writer.onClose(resolve)),
  ]);
  peer.terminate();
  await closed;
});

test("end closes the connection in good order", async () => {
  const { writer, peer } = await connected();
  const closed = once(peer, "close") as Promise<[number]>;
  writer.end();
  expect((await closed)[0]).toBe(1000);
});

test("a connection given up while it opens is not opened", async () => {
  const given = new AbortController();
  const opening = connect(address, TOKEN, given.signal);
  given.abort();
  await expect(opening).rejects.toThrow();
  expect(server.clients.size).toBe(0);
});

describe("addresses", () => {
  test.each(["ws://127.0.0.1:4000", "ws://localhost:4000/lsp", "ws://[::1]:4000", "wss://code.example.org", "wss://10.0.0.3:1"])(
    "%s may be used",
    (good) => {
      expect(() => checkAddress(good)).not.toThrow();
    },
  );

  test.each([
    ["ws://10.0.0.3:4000", /unencrypted/],
    ["ws://127.0.0.1.example.org", /unencrypted/],
    ["ws://localhost.example.org", /unencrypted/],
    ["http://127.0.0.1:4000", /scheme http:/],
    ["wss://me:secret@example.org", /contains a user/],
    ["wss://example.org/?token=secret", /contains a user/],
    ["127.0.0.1:4000", /forelook\.server\.url/],
    ["", /use ws:/],
  ])("%s may not", (bad, why) => {
    expect(() => checkAddress(bad)).toThrow(AddressError);
    expect(() => checkAddress(bad)).toThrow(why);
  });
});
