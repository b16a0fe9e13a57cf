// Bundles the extension into dist/; with --watch it stays and follows changes.
import { build, context } from "esbuild";

const production = process.argv.includes("--production");

/** @type {import("esbuild").BuildOptions} */
const options = {
  entryPoints: ["src/extension.ts"],
  outfile: "dist/extension.js",
  bundle: true,
  platform: "node",
  format: "cjs",
  target: "node20",
  // `vscode` is given by the extension host; the other two are optional native parts of `ws`.
  external: ["vscode", "bufferutil", "utf-8-validate"],
  minify: production,
  sourcemap: !production,
  legalComments: "linked",
  logLevel: "info",
};

if (process.argv.includes("--watch")) {
  await (await context(options)).watch();
} else {
  await build(options);
}
