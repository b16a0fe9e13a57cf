// Makes the .vsix: builds the extension, puts the server's wheel of the same version and its
// lock into it, packs all, and writes the bill of materials beside the package (FILE.cdx.json).
//   node scripts/package.mjs [--no-server] [--out FILE]
// Without the wheel, first run installs `forelook` of the same version from the package index.
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createVSIX } from "@vscode/vsce";

const extension = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const repository = path.dirname(extension);
const { version } = JSON.parse(readFileSync(path.join(extension, "package.json"), "utf8"));

const { values } = parseArgs({ options: { "no-server": { type: "boolean" }, out: { type: "string" } } });
const packagePath = path.resolve(values.out ?? path.join(extension, `forelook-${version}.vsix`));
const serverFolder = path.join(extension, "server");

rmSync(serverFolder, { recursive: true, force: true });
if (!values["no-server"]) {
  mkdirSync(serverFolder);
  run(python(), ["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", serverFolder, repository]);
  // First run installs these versions and checks these hashes.
  copyFileSync(path.join(repository, "requirements", "run.txt"), path.join(serverFolder, "requirements.txt"));
  const [torch] = readFileSync(path.join(repository, "constraints.txt"), "utf8").match(/^torch==.*$/m);
  writeFileSync(path.join(serverFolder, "torch.txt"), `${torch}\n`);
}
for (const name of ["LICENSE", "NOTICE"]) {
  copyFileSync(path.join(repository, name), path.join(extension, name));
}
run(process.execPath, ["esbuild.mjs", "--production"]);
// The README's images are inside the package, so their links stay as they are.
await createVSIX({ cwd: extension, packagePath, dependencies: false, allowMissingRepository: true, rewriteRelativeLinks: false });
run(python(), [path.join(repository, "scripts", "write_sbom.py"), packagePath.replace(/\.vsix$/, ".cdx.json")]);
console.log(`${path.relative(process.cwd(), packagePath)}: ${(statSync(packagePath).size / 1e6).toFixed(1)} MB`);

function python() {
  const own = path.join(repository, ".venv", "bin", "python");
  return process.env.PYTHON ?? (existsSync(own) ? own : "python3");
}

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: extension, stdio: "inherit" });
  if (error ?? status !== 0) {
    console.error(`${command} ${args.join(" ")}: ${error?.message ?? `exit code ${status}`}`);
    process.exit(1);
  }
}
