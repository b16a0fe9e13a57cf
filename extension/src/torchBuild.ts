/** Chooses the PyTorch build to install. On Linux the package index serves the CUDA build, which is ten times as large. */

import { existsSync } from "node:fs";
import * as vscode from "vscode";

/** PyTorch's own index of builds without CUDA. */
export const CPU_INDEX = "https://download.pytorch.org/whl/cpu";

/** Options of a user who has already chosen the package source. */
const CHOOSES_SOURCE = /^(-i|-f|--index-url|--extra-index-url|--find-links|--no-index|--no-deps)(=|$)/;

/** Files that exist when NVIDIA's driver is loaded, on Linux and in WSL. */
const DRIVER = ["/proc/driver/nvidia/version", "/usr/lib/wsl/lib/libcuda.so.1"];

/**
 * Asks which PyTorch build to install, where there is a choice.
 *
 * @param pipArguments the user's pip options
 * @returns the separate index for PyTorch, if any; `undefined` if the user cancelled
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
      detail: "PyTorch from download.pytorch.org, everything else from the package index.",
      torchIndex: CPU_INDEX,
    },
    {
      label: "$(zap) With CUDA",
      description: "about 3 GB",
      detail: "Everything from the package index. Required to run a model on an NVIDIA GPU.",
      torchIndex: undefined,
    },
  ];
  const found = hasGpu ? "an NVIDIA driver was found" : "no NVIDIA driver was found";
  const picked = await vscode.window.showQuickPick(hasGpu ? builds.reverse() : builds, {
    title: "Install Forelook's Server",
    placeHolder: `Which PyTorch build? On this machine ${found}.`,
    ignoreFocusOut: true,
  });
  return picked && { torchIndex: picked.torchIndex };
}
