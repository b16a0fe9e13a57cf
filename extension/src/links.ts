/** The two ways to a language server: a child process over stdio, or a websocket. */

import { type ChildProcess, spawn } from "node:child_process";
import { createInterface } from "node:readline";
import type * as vscode from "vscode";
import type { MessageTransports, StreamInfo } from "vscode-languageclient/node";
import { endWithin } from "./processes";
import { AddressError, connect, TokenRefusedError } from "./websocket";

/** How to reach the language server. */
export type Transport =
  | { readonly kind: "stdio"; readonly command: string; readonly args: readonly string[]; readonly cwd: string }
  | { readonly kind: "websocket"; readonly url: string; readonly token: string | undefined };

/** Why a connection ended. */
export interface Ended {
  readonly message: string;
  readonly isRetryable: boolean;
}

/** One connection to a language server, from its opening to its end. */
export interface Link {
  /** Human-readable target. */
  readonly where: string;
  open(signal: AbortSignal): Promise<StreamInfo | MessageTransports>;
  /** Closes it, whether or not it was opened. */
  close(): Promise<void>;
  /**
   * Why it ended; asked after `close`.
   *
   * @param problem what the language client threw, if anything
   */
  why(problem: unknown): Ended;
}

export function linkFor(transport: Transport, log: vscode.LogOutputChannel): Link {
  return transport.kind === "stdio" ? new ProcessLink(transport, log) : new SocketLink(transport);
}

const STOP_TIMEOUT_MS = 3_000;
const NUM_LAST_LINES = 5;

class ProcessLink implements Link {
  private child: ChildProcess | undefined;
  private exit: string | undefined;
  private readonly lastLines: string[] = [];

  constructor(
    private readonly transport: Transport & { kind: "stdio" },
    private readonly log: vscode.LogOutputChannel,
  ) {}

  get where(): string {
    return this.transport.command;
  }

  async open(): Promise<StreamInfo> {
    const child = spawn(this.transport.command, this.transport.args, {
      cwd: this.transport.cwd,
      stdio: ["pipe", "pipe", "pipe"],
      windowsHide: true,
    });
    this.child = child;
    createInterface({ input: child.stderr }).on("line", (line) => {
      this.log.info(line);
      this.lastLines.push(line);
      this.lastLines.splice(0, this.lastLines.length - NUM_LAST_LINES);
    });
    // A write to a server that has just ended; `exit` tells why.
    child.stdin.on("error", (error) => this.log.debug(`The language server's input: ${error.message}`));
    child.once("exit", (code, signal) => {
      this.exit = signal ? `was ended by ${signal}` : `ended with exit code ${code}`;
    });
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", reject);
    });
    return { reader: child.stdout, writer: child.stdin };
  }

  async close(): Promise<void> {
    if (this.child?.pid !== undefined) {
      this.child.stdin?.end();
      await endWithin(this.child, STOP_TIMEOUT_MS);
    }
  }

  why(problem: unknown): Ended {
    const last = this.lastLines.at(-1);
    const message =
      this.exit === undefined
        ? `The language server could not be started: ${messageOf(problem)}`
        : `The language server ${this.exit}${last ? `: ${last}` : ""}`;
    return { message, isRetryable: this.exit !== undefined };
  }
}

class SocketLink implements Link {
  private transports: MessageTransports | undefined;

  constructor(private readonly transport: Transport & { kind: "websocket" }) {}

  get where(): string {
    return this.transport.url;
  }

  async open(signal: AbortSignal): Promise<MessageTransports> {
    this.transports = await connect(this.transport.url, this.transport.token, signal);
    return this.transports;
  }

  close(): Promise<void> {
    this.transports?.writer.end();
    return Promise.resolve();
  }

  why(problem: unknown): Ended {
    if (problem instanceof AddressError || problem instanceof TokenRefusedError) {
      return { message: problem.message, isRetryable: false };
    }
    const message =
      problem === undefined ? `${this.where} closed the connection` : `${this.where}: ${messageOf(problem)}`;
    return { message, isRetryable: true };
  }
}

function messageOf(problem: unknown): string {
  return problem instanceof Error ? problem.message : String(problem);
}
