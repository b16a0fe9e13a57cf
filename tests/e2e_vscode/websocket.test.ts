/** VS Code with a language server that somebody else started, over a websocket. */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, before, describe } from "node:test";
import { eventually } from "./eventually.ts";
import { Lab } from "./lab.ts";
import { scenario } from "./scenario.ts";
import type { EditorWindow } from "./window.ts";

describe("over websocket", () => {
  let lab: Lab;
  let window: EditorWindow;
  let address: string;
  let token: string;
  let certificates: string;
  let hasCertificate: boolean;

  before(async () => {
    certificates = await mkdtemp(path.join(tmpdir(), "flcert-"));
    hasCertificate = makeCertificate(certificates);
    // As an administrator makes a company's own authority known to node.
    lab = await Lab.start({ name: "websocket", environment: { NODE_EXTRA_CA_CERTS: path.join(certificates, "certificate.pem") } });
    await listen("127.0.0.1:0");
    await lab.writeSettings({}, { "forelook.server.url": address });
    window = await lab.open("shop.py");
  });
  after(async () => {
    await lab?.stop();
    await rm(certificates, { recursive: true, force: true });
  });

  /** Starts a language server that listens, and keeps its address and token. */
  async function listen(where: string, ...args: string[]) {
    const server = lab.spawn("forelook-lsp", Lab.python, ["-m", "forelook_lsp", "--websocket", where, ...args]);
    assert.ok(server.stdout);
    const [line] = (await once(createInterface({ input: server.stdout }), "line")) as [string];
    const announced = JSON.parse(line) as { listening: string; token_file: string };
    address = announced.listening;
    token = (await readFile(announced.token_file, "utf8")).trim();
    return server;
  }

  const inEditor = (name: string, run: (window: EditorWindow) => Promise<void>): void => scenario(name, () => window, run);

  async function setToken(text: string): Promise<void> {
    await window.command("Forelook: Set the Server's Token…");
    const input = window.page.locator(".quick-input-widget input[type=password]");
    await input.fill(text);
    await window.press("Enter");
  }

  async function suggests(file: string): Promise<void> {
    await lab.write(file, "\n    def find(self, name: str) -> Item:\n        ");
    await window.openFile(file);
    await window.press("Control+End");
    await window.type("return ");
    const ghost = await window.untilGhost();
    await window.press("Tab");
    await window.untilSaved(file, (text) => text.includes(`return ${ghost.split("\n")[0]}`));
  }

  inEditor("without the token it is refused, and the status says so", async () => {
    await window.untilStatus(/Forelook error/);
    assert.match(await window.statusDetail(), /refused the connection without a token/);
    await setToken("0".repeat(64));
    await eventually("the wrong token is refused", async () => /refused the token/.test(await window.statusDetail()));
    assert.equal(await window.page.locator(".notification-toast").count(), 0, "nothing pops up over the code");
    await window.screenshot("01 refused");
  });

  inEditor("with the token, suggestions come", async () => {
    await setToken(token);
    await window.untilReady();
    await suggests("socket.py");
    await window.screenshot("02 over websocket");
    assert.doesNotMatch(await readFile(lab.settingsFile, "utf8"), new RegExp(token), "the token is not in the settings");
  });

  inEditor("a server that goes and comes back is found again", async () => {
    const [server] = await lab.languageServerIds();
    assert.ok(server);
    process.kill(server, "SIGKILL");
    await window.untilStatus(/Forelook error/);
    await listen(new URL(address).host);
    await setToken(token);
    await window.untilReady();
    await suggests("again.py");
  });

  inEditor("a server with a certificate is reached over wss", async () => {
    assert.ok(hasCertificate, "the openssl command makes the certificate");
    const file = (name: string): string => path.join(certificates, name);
    await listen("127.0.0.1:0", "--tls-certificate", file("certificate.pem"), "--tls-key", file("key.pem"));
    assert.match(address, /^wss:/);
    await window.editMachineSettings({ "forelook.server.url": address });
    await eventually("no token belongs to it yet", async () => /refused the connection without a token/.test(await window.statusDetail()));
    await setToken(token);
    await window.untilReady();
    await suggests("encrypted.py");
    await window.screenshot("03 over wss");
  });
});

/** A certificate for this machine, signed by itself; false where there is no openssl. */
function makeCertificate(folder: string): boolean {
  const names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"];
  const files = ["-keyout", path.join(folder, "key.pem"), "-out", path.join(folder, "certificate.pem")];
  const made = spawnSync("openssl", ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", ...names, ...files]);
  return made.status === 0;
}
