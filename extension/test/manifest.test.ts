import { existsSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { beforeEach, describe, expect, test } from "vitest";
import { fake, log } from "./fakes/vscode";
import { registerCommands } from "../src/commands";

interface Step {
  readonly description: string;
  readonly media: { readonly markdown: string };
}
interface Manifest {
  readonly icon: string;
  readonly contributes: {
    readonly commands: { readonly command: string }[];
    readonly walkthroughs: { readonly steps: Step[] }[];
  };
}

const root = path.dirname(import.meta.dirname);
const manifest = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as Manifest;
const contributed = manifest.contributes.commands.map(({ command }) => command);

beforeEach(() => {
  fake.reset();
  registerCommands({ session: {}, server: {}, tokens: {}, log: log(), home: root } as never);
});

test("every command of the manifest is registered, and none is registered that the manifest does not name", () => {
  expect([...fake.commands.keys()].sort()).toEqual([...contributed].sort());
});

describe("the walkthrough", () => {
  const steps = manifest.contributes.walkthroughs.flatMap(({ steps }) => steps);

  test.each(steps)("step %# has its page, and its links lead to commands that exist", ({ description, media }) => {
    expect(existsSync(path.join(root, media.markdown))).toBe(true);
    for (const [, command] of description.matchAll(/\(command:([\w.]+)\)/g)) {
      expect(contributed).toContain(command);
    }
  });
});

test("the pictures of the README and of the walkthrough are there, and small", () => {
  const pages = ["README.md", ...manifest.contributes.walkthroughs.flatMap(({ steps }) => steps.map(({ media }) => media.markdown))];
  const pictures = pages.flatMap((page) => {
    const links = readFileSync(path.join(root, page), "utf8").matchAll(/!\[[^\]]*\]\(([^)]+)\)/g);
    return [...links].map(([, link = ""]) => path.join(root, path.dirname(page), link));
  });
  expect(pictures.map((picture) => path.basename(picture))).toContain("forelook.gif");
  for (const picture of pictures) {
    expect([picture, statSync(picture).size < 1_000_000]).toEqual([picture, true]);
  }
});

test("the icon is there, 256 pixels square", () => {
  const png = readFileSync(path.join(root, manifest.icon));
  expect([png.readUInt32BE(16), png.readUInt32BE(20)]).toEqual([256, 256]);
});

test("version and licence are the Python package's", () => {
  const { version, license } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as Record<string, string>;
  const source = readFileSync(path.join(root, "../backend/forelook/__init__.py"), "utf8");
  expect(/__version__ = "(.+)"/.exec(source)?.[1]).toBe(version);
  expect(readFileSync(path.join(root, "../pyproject.toml"), "utf8")).toContain(`license = "${license}"`);
});
