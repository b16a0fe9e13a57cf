/** Which build of PyTorch an installation downloads. On Linux the package index serves the one with CUDA, ten times the size. */

import { existsSync } from "node:fs";
import * as vscode from "vscode";

/** PyTorch's own index of builds without CUDA. */
export const CPU_INDEX = "https://download.pytorch.org/whl/cpu";

/** A user who says where packages come from, or that dependencies are there, has chosen the build already. */
const CHOOSES_SOURCE = /^(-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--no-deps)(=|$)/;

/** What stands where NVIDIA's driver is loaded: on Linux, and in WSL. */
const DRIVER = ["/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1"];

/**
 * Asks for the build of PyTorch where there is a choice.
 *
 * @param pipArguments the user's own
 * @returns further arguments for pip; `undefined` where the user changed their mind about installing
 */
export async function chooseTorchBuild(
  pipArguments: readonly string[],
  platform: NodeJS.Platform = process.platform,
  hasGpu: boolean = DRIVER.some((file) => existsSync(file)),
): Promise<readonly string[] | undefined> {
  if (platform !== "linux" || pipArguments.some((argument) => CHOOSES_SOURCE.test(argument))) {
    return [];
  }
  const builds: (vscode.QuickPickItem & { readonly pipArguments: readonly string[] })[] = [
    {
      label: "$(circuit-board) For the CPU",
      description: "about 250 MB",
      detail: "Packages from the package index, and PyTorch from download.pytorch.org.",
      pipArguments: ["--extra-index-url", CPU_INDEX],
    },
    {
      label: "$(zap) With CUDA",
      description: "about 3 GB",
      detail: "All from the package index. Needed for a model on an NVIDIA GPU.",
      pipArguments: [],
    },
  ];
  const found = hasGpu ? "an NVIDIA driver was found" : "no NVIDIA driver was found";
  const picked = await vscode.window.showQuickPick(hasGpu ? builds.reverse() : builds, {
    title: "Install Forelook's Server",
    placeHolder: `Which PyTorch should be downloaded? On this machine ${found}.`,
    ignoreFocusOut: true,
  });
  return picked?.pipArguments;
}
