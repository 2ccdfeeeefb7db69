import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Stands before each story or chapter, and is what ends a text. */
export const endOfText = "<|endoftext|>";

/** Books that the model never sees while it is trained; its perplexity is measured on them. */
export const heldOutBooks: readonly string[] = [
  "abbie-phillips-walker--sandmans-goodnight-stories.txt",
  "mabel-c-hawley--four-little-blossoms-on-apple-tree-island.txt",
  "thornton-w-burgess--mother-west-wind-where-stories.txt",
];

/** Written for older readers. */
const notForChildren = /^(arthur-conan-doyle|edward-stratemeyer)--/;

/**
 * What a paragraph must not hold to be trained on: slurs and dated names for peoples, the dialects that were put into
 * their mouths, and cruelty that a reader of a small model's stories should not meet by chance.
 */
const unwanted = new RegExp(
  [
    String.raw`\bnig(ger|gard)?s?\b|\bnegro|\bdark(y|ies|ey|eys)\b|\bpickaninn|\bredskin|\bsquaws?\b|\binjuns?\b|\bcoons?\b`,
    String.raw`\bchina(man|men)\b|\bjaps?\b|\b(gyps|gips)(y|ies)\b|\bjews?\b|\bjewish\b|\bheathens?\b|\bmammy\b|\bhalf-breed|\bindians?\b|\bturks?\b|\bmoors?\b`,
    String.raw`\b(black|colored|coloured|white) (man|men|woman|women|boy|girl|people|folks?|cook|maid|servant)s?\b|\bslave(s|ry)?\b|\bsavages?\b|\bcannibal`,
    String.raw`\b(dat|dem|dey|dis|gwine|massa|mah|yo'|suah|sho'|chillun)(?=\W)`,
    String.raw`\bsuicide|\bmurder|\bhang(ed|ing)\b.*\b(neck|gallows)\b|\bgallows\b|\bwhipp(ed|ing)\b|\bdrunk(en|ard)?\b|\bidiots?\b|\bdevils?\b|\bdamn|\bhell\b|\bcripple|\btortur|\bblood(y|shed)\b|\bcut off (his|her|their) heads?\b|\bGutenberg\b`,
  ].join("|"),
  "i",
);

const hasLowerCase = /[a-z]/;

/** A book's paragraphs in stories: headings divide it, unwanted paragraphs are dropped, quotes and dashes are made plain. */
export function storiesOf(book: string): string[][] {
  const stories: string[][] = [[]];
  const paragraphs = book
    .replace(/\r/g, "")
    .replace(/[“”]/g, '"')
    .replace(/[‘’]/g, "'")
    .replace(/—/g, "--")
    .replace(/…/g, "...")
    .replace(/[_*#]/g, "")
    .split(/\n\s*\n/);
  for (const raw of paragraphs) {
    const paragraph = raw.replace(/\s+/g, " ").trim();
    if (!hasLowerCase.test(paragraph) || /^(chapter|story|book|part)\s+[ivxlc\d]+\b/i.test(paragraph)) {
      if (stories.at(-1)!.length > 0) stories.push([]);
    } else if (!unwanted.test(paragraph) && !/[[\]{}|<>=@\\]|[^\x20-\x7e]|http/.test(paragraph))
      stories.at(-1)!.push(paragraph);
  }
  return stories.filter((story) => story.join(" ").length >= 200);
}

export interface Corpus {
  /** Stories of one book after the other, each preceded by `endOfText`. */
  readonly training: readonly string[];
  readonly heldOut: readonly string[];
}

/** Reads a folder of books, one UTF-8 text file each. @throws Error where a book to hold out is missing */
export function readCorpus(folder: string): Corpus {
  const files = readdirSync(folder).filter((name) => name.endsWith(".txt") && !notForChildren.test(name));
  const missing = heldOutBooks.find((name) => !files.includes(name));
  if (missing !== undefined)
    throw new Error(`${folder} lacks ${missing}, which is held out; is it the folder of books?`);
  const read = (name: string): string[] => storiesOf(readFileSync(join(folder, name), "utf8")).map(asText);
  return {
    training: files
      .filter((name) => !heldOutBooks.includes(name))
      .sort()
      .flatMap(read),
    heldOut: heldOutBooks.flatMap((name) => firstOf(read(name), 60_000)),
  };
}

/** The first stories up to a number of characters in all. */
function firstOf(stories: readonly string[], characters: number): string[] {
  let total = 0;
  return stories.filter((story) => (total += story.length) <= characters);
}

const asText = (story: readonly string[]): string => `${story.join("\n\n")}\n`;
