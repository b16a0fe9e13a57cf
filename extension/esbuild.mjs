// Bundles the extension into dist/, with --host-tests those tests into build/; with --watch it stays and follows changes.
import { writeFileSync } from "node:fs";
import { build, context } from "esbuild";
import { notices } from "./scripts/notices.mjs";

const production = process.argv.includes("--production");
const hostTests = process.argv.includes("--host-tests");

/** @type {import("esbuild").BuildOptions} */
const options = {
  entryPoints: [hostTests ? "host-tests/index.ts" : "src/extension.ts"],
  outfile: hostTests ? "build/host-tests.js" : "dist/extension.js",
  bundle: true,
  platform: "node",
  format: "cjs",
  target: "node20",
  // `vscode` is given by the extension host; the other two are optional native parts of `ws`.
  external: ["vscode", "bufferutil", "utf-8-validate"],
  minify: production,
  sourcemap: !production,
  legalComments: "none",
  metafile: true,
  logLevel: "info",
};

if (process.argv.includes("--watch")) {
  await (await context(options)).watch();
} else {
  const { metafile } = await build(options);
  if (!hostTests) {
    writeFileSync("dist/ThirdPartyNotices.txt", notices(metafile, "."));
  }
}
