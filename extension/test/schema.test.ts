/** The settings' schema against the language server's own table, by asking the real language server. */

import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import Ajv, { type SchemaObject } from "ajv";
import { describe, expect, test } from "vitest";

interface Property extends SchemaObject {
  readonly default: unknown;
  readonly scope?: string;
}
interface Option {
  readonly name: string;
  readonly default: unknown;
  readonly machine: boolean;
}

const extension = path.dirname(import.meta.dirname);
const repository = path.dirname(extension);
const OWN = /^forelook\.(server|trace)\./;
/** Options of the language server that are an editor plug-in's to set, not its user's. */
const NOT_FOR_PEOPLE: ReadonlySet<string> = new Set(["commandSuffix", "modelOffer", "statusNotifications"]);

const manifest = JSON.parse(readFileSync(path.join(extension, "package.json"), "utf8")) as {
  contributes: { configuration: { properties: Record<string, Property> }[] };
};
const properties = new Map(
  manifest.contributes.configuration.flatMap((group) => Object.entries(group.properties)),
);
const forwarded = [...properties].filter(([name]) => !OWN.test(name));

function python(...args: string[]): string {
  const own = path.join(repository, ".venv", "bin", "python");
  const interpreter = process.env["PYTHON"] ?? (existsSync(own) ? own : "python3");
  const finished = spawnSync(interpreter, args, { encoding: "utf8", env: { ...process.env, PYTHONPATH: `${repository}/backend:${repository}/lsp` } });
  if (finished.status !== 0) {
    throw new Error(`${interpreter} could not describe the options: ${finished.stderr || String(finished.error)}`);
  }
  return finished.stdout;
}

const options = (JSON.parse(python("-m", "forelook_lsp", "--describe-options")) as Option[]).filter(
  ({ name }) => !NOT_FOR_PEOPLE.has(name),
);

test("the schema has the language server's options, no more and no fewer", () => {
  expect(forwarded.map(([name]) => name).sort()).toEqual(options.map(({ name }) => `forelook.${name}`).sort());
});

test.each(options)("$name has the same default, and the same scope", ({ name, default: value, machine }) => {
  const property = properties.get(`forelook.${name}`);
  expect(property?.default).toEqual(value);
  expect(property?.scope === "machine").toBe(machine);
});

test("whatever names a program, a path or an address is the machine's", () => {
  const naming = [...properties].filter(([name]) => /(interpreter|url|tokenFile|path|pipArguments|model|revision)$/i.test(name));
  expect(naming.map(([name]) => name)).toContain("forelook.server.interpreter");
  for (const [name, property] of naming) {
    expect([name, property.scope]).toEqual([name, "machine"]);
  }
});

/** Values at and around every border: both sides must agree on each, for every option. */
const SAMPLES: readonly unknown[] = [
  null, true, false, "", "auto", "always", "never", "float32", "float64", "cpu", "mps", "cuda", "cuda:1", "cuda:123", "gpu",
  ...[-1, 0, 1, 2, 3, 8, 9, 16, 17, 19, 20, 64, 65, 999, 1000, 2000, 2001, 4096, 4097, 600_000, 600_001, 100_000_000, 100_000_001],
  0.5, [], ["*.pem"], [""], [1], {}, { "*": false, go: true }, { go: "yes" }, "codellama/CodeLlama-7b-hf", "x".repeat(4096),
  "x".repeat(4097), "ws://127.0.0.1:1", "wss://example.org/path", "http://example.org", "wss://me@example.org", "wss://a?b=c",
  "wss://a#b", "ws://",
]; // prettier-ignore

describe("a value is allowed by the schema exactly when the language server takes it:", () => {
  const program = `
import json, sys
from forelook_lsp.settings import parse_settings
samples, names = json.loads(sys.argv[1])
print(json.dumps({name: [not parse_settings({name: value})[1] for value in samples] for name in names}))
`;
  const verdicts = JSON.parse(python("-c", program, JSON.stringify([SAMPLES, options.map(({ name }) => name)]))) as Record<string, boolean[]>;
  const ajv = new Ajv({ allowUnionTypes: true, strictTypes: false });
  ajv.addVocabulary([
    "order", "scope", "markdownDescription", "enumDescriptions", "patternErrorMessage",
  ]); // prettier-ignore

  test.each(options)("$name", ({ name }) => {
    const allows = ajv.compile(properties.get(`forelook.${name}`) ?? {});
    const disagreed = SAMPLES.filter((value, index) => allows(value) !== verdicts[name]?.[index]);
    expect(disagreed.map((value) => JSON.stringify(value).slice(0, 60))).toEqual([]);
  });
});
