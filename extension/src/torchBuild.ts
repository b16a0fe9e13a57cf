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
 * @returns the index to get PyTorch from first, where not with the rest; `undefined` where the user changed their mind
 */
export async function chooseTorchBuild(
  pipArguments: readonly string[],
  platform: NodeJS.Platform = process.platform,
  hasGpu: boolean = DRIVER.some((file) => existsSync(file)),
): Promise<{ readonly torchIndex: string | undefined } | undefined> {
  if (platform !== "linux" || pipArguments.some((argument) => CHOOSES_SOURCE.test(argument))) {
    return { torchIndex: undefined };
  }
  const builds: (vscode.QuickPickItem & { readonly torchIndex: string | undefined })[] = [
    {
      label: "$(circuit-board) For the CPU",
      description: "about 250 MB",
      detail: "Packages from the package index, and PyTorch from download.pytorch.org.",
      torchIndex: CPU_INDEX,
    },
    {
      label: "$(zap) With CUDA",
      description: "about 3 GB",
      detail: "All from the package index. Needed for a model on an NVIDIA GPU.",
      torchIndex: undefined,
    },
  ];
  const found = hasGpu ? "an NVIDIA driver was found" : "no NVIDIA driver was found";
  const picked = await vscode.window.showQuickPick(hasGpu ? builds.reverse() : builds, {
    title: "Install Forelook's Server",
    placeHolder: `Which PyTorch should be downloaded? On this machine ${found}.`,
    ignoreFocusOut: true,
  });
  return picked && { torchIndex: picked.torchIndex };
}
