/** Caps on what the files of a Hugging Face folder may ask for; see `limits.ts` for how they are meant. */
export const folderLimits = {
  /** Bytes of config.json and of each other small JSON file. */
  jsonBytes: 10_000_000,
  /** Bytes of tokenizer.json: vocabularies of 256,000 with their merges take about 35 MB. */
  tokenizerBytes: 100_000_000,
  /** Files in a folder, subfolders included. */
  files: 10_000,
};

export const tokenizerLimits = {
  /** Tokens of a vocabulary, and the largest id: real ones reach 262,144. */
  tokens: 4_000_000,
  /** Tokens outside of the model's own vocabulary: real ones reach 6,500. */
  addedTokens: 100_000,
  /** UTF-16 units of an added token: runs of 31 spaces are among the longest. */
  addedTokenLength: 1000,
  /** UTF-16 units of a regular expression: the longest in use is about 500. */
  regexLength: 4096,
  /** Groups within groups of a regular expression. */
  regexDepth: 50,
  /** Repetitions that may be tried one by one; more count as endless. */
  regexTimes: 16,
  /** Milliseconds that a regular expression may take to cut a text, and more for each of its megabytes. */
  regexMilliseconds: 1000,
  regexMillisecondsPerMegabyte: 5000,
  /** UTF-16 units of a word for models other than BPE, whose time grows with the square of a word. */
  wordLength: 100_000,
};

export const templateLimits = {
  /** UTF-16 units of a chat template: the longest in use are about 20,000. */
  sourceLength: 262_144,
  /** Whitespace in a row in a template, which its parser takes quadratic time for. */
  whitespaceRun: 2048,
  /** Nodes of the template evaluated in one rendering; each turn of a loop counts for `stepsPerTurn` more. */
  steps: 1_000_000,
  stepsPerTurn: 5,
  /** Nodes evaluated within one another, macros within macros included. */
  depth: 400,
  /** Characters that all operations of one rendering read and write together. */
  work: 128_000_000,
  /** Entries of a `range`. */
  range: 100_000,
  /** UTF-16 units of the rendered conversation. */
  outputLength: 4_194_304,
};

export const hubLimits = {
  /** Bytes of one answer of the hub's API: a page of a listing is about 1 MB. */
  answerBytes: 64_000_000,
  /** Files of a repository. */
  files: 100_000,
};
