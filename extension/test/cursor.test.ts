import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { fake } from "./fakes/vscode";
import { REST_MS, reportCursor } from "../src/cursor";

const editorAt = (line: number): unknown => ({ document: "a document", selection: { active: { line } } });

let reported: unknown[];
let reports: { dispose(): unknown };

beforeEach(() => {
  vi.useFakeTimers();
  reported = [];
  reports = reportCursor((document, position) => {
    reported.push([document, position]);
    return Promise.resolve();
  });
});

afterEach(() => {
  reports.dispose();
  vi.useRealTimers();
});

test("a cursor is reported once it rests", () => {
  fake.selectionChanged.fire({ textEditor: editorAt(1) });
  vi.advanceTimersByTime(REST_MS - 1);
  fake.selectionChanged.fire({ textEditor: editorAt(2) });
  vi.advanceTimersByTime(REST_MS - 1);
  expect(reported).toEqual([]);
  vi.advanceTimersByTime(1);
  expect(reported).toEqual([["a document", { line: 2 }]]);
});

test("another editor's cursor is reported, and none without an editor or after the end", () => {
  fake.editorChanged.fire(editorAt(3));
  vi.advanceTimersByTime(REST_MS);
  expect(reported).toEqual([["a document", { line: 3 }]]);
  fake.selectionChanged.fire({ textEditor: editorAt(4) });
  fake.editorChanged.fire(undefined);
  vi.advanceTimersByTime(REST_MS);
  fake.selectionChanged.fire({ textEditor: editorAt(5) });
  reports.dispose();
  vi.advanceTimersByTime(REST_MS);
  expect(reported.length).toBe(1);
});
