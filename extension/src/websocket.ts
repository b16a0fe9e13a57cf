/** LSP over a websocket: one JSON message per frame. */

import {
  AbstractMessageReader,
  AbstractMessageWriter,
  type DataCallback,
  type Disposable,
  type Message,
  type MessageReader,
  type MessageWriter,
} from "vscode-jsonrpc/node";
import WebSocket, { type RawData } from "ws";

const OPEN_TIMEOUT_MS = 10_000;
const MAX_MESSAGE_BYTES = 64 * 1024 * 1024;

/** The server rejected the token. */
export class TokenRefusedError extends Error {
  override readonly name = "TokenRefusedError";
}

/** A forbidden or invalid address. */
export class AddressError extends Error {
  override readonly name = "AddressError";
}

/**
 * Checks a server's address.
 *
 * @throws AddressError for anything but ws:// to this machine and wss:// to any
 */
export function checkAddress(address: string): URL {
  let url: URL;
  try {
    url = new URL(address);
  } catch {
    throw new AddressError(`invalid forelook.server.url: ${JSON.stringify(address)}; use ws://HOST:PORT`);
  }
  if (url.protocol !== "ws:" && url.protocol !== "wss:") {
    throw new AddressError(`invalid forelook.server.url: scheme ${url.protocol}; use ws: or wss:`);
  }
  if (url.username || url.password || url.search) {
    throw new AddressError("invalid forelook.server.url: it contains a user, password or query; set the token by the command instead");
  }
  if (url.protocol === "ws:" && !isLoopback(url.hostname)) {
    throw new AddressError(
      `ws://${url.host} would send your code and the token unencrypted over the network; use wss://, or forward the port over SSH`,
    );
  }
  return url;
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "[::1]" || /^127(\.\d{1,3}){3}$/.test(host);
}

/** Connects; the token is sent in a header, never in the address, so it appears in no log. */
export async function connect(
  address: string,
  token: string | undefined,
  signal: AbortSignal,
): Promise<{ reader: MessageReader; writer: MessageWriter }> {
  const url = checkAddress(address);
  signal.throwIfAborted();
  const socket = new WebSocket(url, {
    handshakeTimeout: OPEN_TIMEOUT_MS,
    maxPayload: MAX_MESSAGE_BYTES,
    perMessageDeflate: false,
    ...(token && { headers: { Authorization: `Bearer ${token}` } }),
  });
  const abort = (): void => socket.terminate();
  signal.addEventListener("abort", abort, { once: true });
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once("open", resolve);
      socket.once("error", reject);
      socket.once("unexpected-response", (request, response) => {
        request.destroy();
        const refused = response.statusCode === 401 || response.statusCode === 403;
        reject(
          refused
            ? new TokenRefusedError(`${url.host} refused the ${token ? "token" : "connection without a token"}`)
            : new Error(`${url.host} answered ${response.statusCode} ${response.statusMessage} instead of a websocket`),
        );
      });
    });
  } finally {
    signal.removeEventListener("abort", abort);
  }
  return { reader: new SocketReader(socket), writer: new SocketWriter(socket) };
}

class SocketReader extends AbstractMessageReader {
  constructor(private readonly socket: WebSocket) {
    super();
    socket.on("error", (error) => this.fireError(error));
    socket.on("close", () => this.fireClose());
  }

  listen(callback: DataCallback): Disposable {
    const receive = (data: RawData): void => {
      try {
        callback(JSON.parse(asText(data)) as Message);
      } catch (error) {
        this.fireError(error);
      }
    };
    this.socket.on("message", receive);
    return { dispose: () => this.socket.off("message", receive) };
  }
}

class SocketWriter extends AbstractMessageWriter {
  private errors = 0;

  constructor(private readonly socket: WebSocket) {
    super();
    socket.on("close", () => this.fireClose());
  }

  write(message: Message): Promise<void> {
    return new Promise((resolve, reject) => {
      this.socket.send(JSON.stringify(message), (error) => {
        if (!error) {
          resolve();
          return;
        }
        this.fireError(error, message, ++this.errors);
        reject(error);
      });
    });
  }

  end(): void {
    this.socket.close(1000);
  }

  override dispose(): void {
    super.dispose();
    this.socket.close(1000);
  }
}

function asText(data: RawData): string {
  if (Array.isArray(data)) {
    return Buffer.concat(data).toString("utf8");
  }
  return data instanceof ArrayBuffer ? Buffer.from(data).toString("utf8") : data.toString("utf8");
}
