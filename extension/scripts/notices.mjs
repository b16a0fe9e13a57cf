// The licences of what esbuild put into the bundle, which their terms ask to be passed on.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";

/**
 * @param {import("esbuild").Metafile} metafile
 * @param {string} root the folder that the metafile's paths are relative to
 * @returns {string}
 */
export function notices(metafile, root) {
  const packages = new Set(
    Object.keys(metafile.inputs)
      .map((input) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1])
      .filter((folder) => folder !== undefined),
  );
  const parts = [...packages].sort().map((folder) => {
    const at = path.resolve(root, folder);
    const { name, version, license } = JSON.parse(readFileSync(path.join(at, "package.json"), "utf8"));
    const file = existsSync(at) && readdirSync(at).find((entry) => /^(licen[sc]e|copying)/i.test(entry));
    if (!file) {
      throw new Error(`${name} ${version} (${license}) has no licence file to pass on`);
    }
    return `${name} ${version} (${license})\n\n${readFileSync(path.join(at, file), "utf8").trim()}\n`;
  });
  return `The extension contains the following packages.\n\n${parts.join(`\n${"-".repeat(80)}\n\n`)}`;
}
