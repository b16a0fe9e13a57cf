/** Tokens of websocket language servers, in the system's secret storage. */

import type * as vscode from "vscode";
import { checkAddress } from "./websocket";

export class Tokens {
  constructor(private readonly secrets: vscode.SecretStorage) {}

  async get(address: string): Promise<string | undefined> {
    return this.secrets.get(keyOf(address));
  }

  async set(address: string, token: string): Promise<void> {
    await this.secrets.store(keyOf(address), token);
  }

  async forget(address: string): Promise<void> {
    await this.secrets.delete(keyOf(address));
  }
}

/** One token per host and port, so a changed address never receives another server's token. */
function keyOf(address: string): string {
  return `forelook.token ${checkAddress(address).host}`;
}
