import { beforeEach, expect, test } from "vitest";
import { ConfigurationTarget, fake } from "./fakes/vscode";
import * as config from "../src/config";

beforeEach(() => fake.reset());

test("all settings but the extension's own are forwarded, groups and all", () => {
  fake.defaults.set("forelook.enable", true);
  fake.defaults.set("forelook.lookahead.window", "auto");
  fake.set("forelook.lookahead.ngram", 4);
  fake.set("forelook.model", "/models/x");
  fake.set("forelook.server.interpreter", "/usr/bin/python3");
  fake.set("forelook.trace.server", "verbose");
  expect(config.forwardedSettings()).toEqual({
    enable: true,
    lookahead: { window: "auto", ngram: 4 },
    model: "/models/x",
    commandSuffix: ".server",
    modelOffer: false,
  });
});

test("a workspace adds to the user's ignore globs, and takes none away", () => {
  fake.set("forelook.ignore", ["*.secret"]);
  fake.set("forelook.ignore", ["vendor/", "!*.secret"], ConfigurationTarget.Workspace);
  expect(config.forwardedSettings()).toMatchObject({ ignore: ["vendor/", "!*.secret", "*.secret"] });
  fake.set("forelook.ignore", [], ConfigurationTarget.Workspace);
  expect(config.forwardedSettings()).toMatchObject({ ignore: ["*.secret"] });
});

test("an ignore list that is none is forwarded as it is: the language server says what is wrong with it", () => {
  fake.set("forelook.ignore", "*.secret");
  expect(config.forwardedSettings()).toMatchObject({ ignore: "*.secret" });
});

test("blank settings count as none", () => {
  fake.set("forelook.server.url", "  ");
  fake.set("forelook.server.interpreter", "");
  expect(config.serverSettings()).toEqual({ interpreter: undefined, url: undefined, pipArguments: [] });
});

test("a tilde in the interpreter's path is the home folder", () => {
  fake.set("forelook.server.interpreter", "~/env/bin/python");
  expect(config.serverSettings().interpreter).toBe(`${process.env["HOME"]}/env/bin/python`);
});

test("a language is on unless it, or all others, are switched off", () => {
  expect(config.enabledFor("python")).toBe(true);
  fake.set("forelook.languages", { "*": false, go: true });
  expect(config.enabledFor("python")).toBe(false);
  expect(config.enabledFor("go")).toBe(true);
  fake.set("forelook.enable", false);
  expect(config.enabledFor("go")).toBe(false);
});

test("a language's toggle leaves the others as they are", async () => {
  fake.set("forelook.languages", { go: false });
  expect(await config.toggleLanguage("python")).toBe(false);
  expect(fake.value("forelook.languages")).toEqual({ go: false, python: false });
  expect(await config.toggleLanguage("python")).toBe(true);
  expect(fake.value("forelook.languages")).toEqual({ go: false, python: true });
});

test("switching a language on while all is off switches all on", async () => {
  fake.set("forelook.enable", false);
  expect(await config.toggleLanguage("python")).toBe(true);
  expect(config.enabledFor("python")).toBe(true);
});

test("the toggle writes where the setting comes from", async () => {
  fake.set("forelook.enable", true, ConfigurationTarget.Workspace);
  expect(await config.toggleEverywhere()).toBe(false);
  expect(fake.settings.get(ConfigurationTarget.Workspace)?.get("forelook.enable")).toBe(false);
  expect(fake.settings.get(ConfigurationTarget.Global)).toBeUndefined();
});
