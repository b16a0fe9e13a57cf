import { beforeEach, describe, expect, test } from "vitest";
import { fake } from "./fakes/vscode";
import { chooseTorchBuild, CPU_INDEX } from "../src/torchBuild";

beforeEach(() => fake.reset());

describe("on Linux", () => {
  test.each([
    ["For the CPU", { torchIndex: CPU_INDEX }],
    ["With CUDA", { torchIndex: undefined }],
    [undefined, undefined],
  ])("the answer %s gives %j", async (answer, expected) => {
    fake.answers = [answer];
    expect(await chooseTorchBuild([], "linux", false)).toEqual(expected);
  });

  test("the build that fits the machine stands first", async () => {
    expect(await firstOffered(false)).toContain("For the CPU");
    expect(await firstOffered(true)).toContain("With CUDA");
  });

  test.each([["--index-url=https://mirror.example.org"], ["-f"], ["--no-deps"]])(
    "a user whose arguments have %s is not asked",
    async (argument) => {
      fake.answers = ["For the CPU"];
      expect(await chooseTorchBuild([argument], "linux", false)).toEqual({ torchIndex: undefined });
      expect(fake.answers).toHaveLength(1);
    },
  );
});

test("elsewhere there is one build only, and no question", async () => {
  fake.answers = ["For the CPU"];
  expect(await chooseTorchBuild([], "darwin", false)).toEqual({ torchIndex: undefined });
  expect(fake.answers).toHaveLength(1);
});

async function firstOffered(hasGpu: boolean): Promise<string | undefined> {
  fake.offered = [];
  await chooseTorchBuild([], "linux", hasGpu);
  return fake.offered[0];
}
