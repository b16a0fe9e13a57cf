import { describe, expect, test } from "vitest";
import { keepSurrogatesOut } from "../src/surrogates";

/** As VS Code's own, as far as they are used here: one line, columns in UTF-16. */
interface FakePosition {
  readonly line: number;
  readonly character: number;
  translate(lines: number, characters: number): FakePosition;
}
const at = (character: number): FakePosition => ({ line: 0, character, translate: (_, further) => at(character + further) });
const between = (start: FakePosition, end: FakePosition) => ({ start, end, with: (start: FakePosition) => between(start, end) });

function keep(line: string, start: number, insertText: string) {
  const item = { range: between(at(start), at(line.length)), insertText, filterText: insertText };
  keepSurrogatesOut(item as never, { lineAt: () => ({ text: line }) } as never, at(line.length) as never);
  return { start: item.range.start.character, insertText: item.insertText, filterText: item.filterText };
}

describe("a suggestion's range begins", () => {
  test("behind the last letter outside the basic plane", () => {
    expect(keep('x = "🙂🙂é"; y = ', 0, 'x = "🙂🙂é"; y = 1')).toEqual({ start: 9, insertText: 'é"; y = 1', filterText: 'é"; y = 1' });
  });

  test.each([
    ["where it began, without such letters", "é = ", 0, "é = 1"],
    ["where it began, when such a letter stands before it", "🙂 = ", 2, " = 1"],
    ["where it began, when its text differs there", "🙂 = ", 0, "🙃 = 1"],
  ])("%s", (_, line, start, insertText) => {
    expect(keep(line, start, insertText)).toEqual({ start, insertText, filterText: insertText });
  });
});
