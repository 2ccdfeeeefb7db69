import fc from "fast-check";
import { expect, it } from "vitest";
import { StopFinder } from "../../src/generate/index.ts";

/** The text before the stop string that is complete first, letter by letter. */
function plainly(text: string, stops: readonly string[]): { text: string; stopped: boolean } {
  for (let end = 1; end <= text.length; end++) {
    const ending = stops.filter((stop) => text.slice(0, end).endsWith(stop));
    if (ending.length > 0)
      return { text: text.slice(0, end - Math.max(...ending.map((stop) => stop.length))), stopped: true };
  }
  return { text, stopped: false };
}

const letters = (min: number, max: number) =>
  fc.string({ unit: fc.constantFrom("a", "b", "c"), minLength: min, maxLength: max });

it("finds what a search letter by letter finds, however the text is cut", () => {
  fc.assert(
    fc.property(
      fc.array(letters(0, 4), { maxLength: 12 }),
      fc.array(letters(1, 5), { maxLength: 3 }),
      (pieces, stops) => {
        const finder = new StopFinder(stops);
        let text = "";
        let stopped = false;
        for (const piece of pieces) {
          const found = finder.push(piece);
          text += found.text;
          if ((stopped = found.stopped)) break;
        }
        if (!stopped) text += finder.end();
        expect({ text, stopped }).toEqual(plainly(pieces.join(""), stops));
      },
    ),
    { seed: 1, numRuns: 1000 },
  );
});

it("holds back no more than what may begin a stop string", () => {
  const finder = new StopFinder(["\n\nUser:", "END"]);
  expect(finder.push("one\ntwo\n")).toEqual({ text: "one\ntwo", stopped: false });
  expect(finder.push("\nUse")).toEqual({ text: "", stopped: false });
  expect(finder.push(" it E")).toEqual({ text: "\n\nUse it ", stopped: false });
  expect(finder.push("N")).toEqual({ text: "", stopped: false });
  expect(finder.end()).toBe("EN");
});

it("refuses an empty stop string", () => {
  expect(() => new StopFinder(["a", ""])).toThrow("a stop string must not be empty: it would end every text");
});
