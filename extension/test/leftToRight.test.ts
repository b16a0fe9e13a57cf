import { beforeEach, expect, test } from "vitest";
import { fake } from "./fakes/vscode";
import { LeftToRightOffer } from "../src/leftToRight";
import type { Connection } from "../src/status";

const MESSAGE =
  "smol.gguf: it has none of the infill sentinels; choose a model trained to infill, or accept it with `--left-to-right`, " +
  "in an editor with the setting `forelook.leftToRight`";

const failing = (message: string): Connection => ({ kind: "running", status: { state: "error", message } });

let offer: LeftToRightOffer;

beforeEach(() => {
  fake.reset();
  offer = new LeftToRightOffer();
});

test("one click on the refusal turns the setting on; the server then restarts its backend", async () => {
  fake.answers = ["Use It Left to Right"];
  await offer.show(failing(MESSAGE));
  expect(fake.prompts).toEqual([MESSAGE]);
  expect(fake.value("forelook.leftToRight")).toBe(true);
});

test("the refusal is shown once, though the backend is tried again and again", async () => {
  await offer.show(failing(MESSAGE));
  await offer.show({ kind: "running", status: { state: "starting" } });
  await offer.show(failing(MESSAGE));
  expect(fake.prompts).toHaveLength(1);
  expect(fake.value("forelook.leftToRight")).toBeUndefined();
});

test("another model may be chosen instead", async () => {
  fake.answers = ["Choose Another Model…"];
  await offer.show(failing(MESSAGE));
  expect(fake.executed).toEqual([{ command: "forelook.chooseModel", args: [] }]);
});

test.each<Connection>([
  failing("the disk is full"),
  { kind: "running", status: { state: "ready", message: MESSAGE } },
  { kind: "running", status: undefined },
  { kind: "stopped" },
])("anything else is not asked about: %j", async (connection) => {
  await offer.show(connection);
  expect(fake.prompts).toEqual([]);
  expect(LeftToRightOffer.fits(connection)).toBe(false);
});
