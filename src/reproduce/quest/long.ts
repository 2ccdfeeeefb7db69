import { decodeUtf8 } from "../../formats/json.ts";
import type { Finding, Setting } from "../system.ts";
import { onText } from "../workbench.ts";
import { Contest, check, ratesOf, type Terms, tokensOf } from "./contest.ts";

/**
 * A hundred tokens for each number in the layers, as in the paper, and matrices that keep the size of their inputs: from
 * smaller ones learned steps do not find out of their first range.
 */
function longTerms({ seed }: Setting): Terms {
  return {
    shape: {
      vocab: 300,
      layers: 2,
      dim: 32,
      heads: 2,
      ffn: 64,
      tied: false,
      embedding: 1,
      matrices: 1 / Math.sqrt(32),
    },
    training: { steps: 1000, batch: 16, length: 128 },
    rates: [2e-2, 4e-2, 8e-2],
    seeds: [seed, seed + 1, seed + 2],
  };
}

/** In the folder of data sets: a text that is long enough to be read but once or twice. */
const LONG_TEXT = "text/darwin.txt";

/**
 * QuEST against learned steps where the paper compares them: on a long text if there is one, since of one that is read many
 * times over, what learns most of it is not the best on others.
 */
export async function longContest(setting: Setting): Promise<Finding> {
  const terms = longTerms(setting);
  const long = await setting.bench.dataFile?.(LONG_TEXT);
  const model = await setting.bench.languageModel();
  const read = long ? onText(model, decodeUtf8(long, LONG_TEXT)) : model;
  const bench = { ...setting.bench, languageModel: async () => read };
  const contest = new Contest({ ...setting, bench }, terms);
  const plain = await contest.entry("full precision", 4);
  const one = await contest.entry("QuEST", 1);
  const oneLearned = await contest.entry("learned steps", 1);
  const four = await contest.entry("QuEST", 4);
  const fourLearned = await contest.entry("learned steps", 4);
  const entries = {
    "full precision": plain,
    "QuEST W1A1": one,
    "learned steps W1A1": oneLearned,
    "QuEST W4A4": four,
    "learned steps W4A4": fourLearned,
  };
  return {
    checks: [
      check("long training, 1 bit, loss, and learned steps", one.loss, oneLearned.loss, (a, b) => a < b),
      check("long training, 4 bits, loss, and learned steps", four.loss, fourLearned.loss, (a, b) => a < b),
    ],
    metrics: { "long training, W1A1 loss": one.loss, "long training, W4A4 loss": four.loss },
    baseline: {
      "long training, full precision loss": plain.loss,
      "long training, learned steps W1A1 loss": oneLearned.loss,
      "long training, learned steps W4A4 loss": fourLearned.loss,
    },
    notes: [
      long
        ? `long training: on ${LONG_TEXT} in the folder that PARE_DATA names`
        : `long training: on the same text as above, read over and over; ${LONG_TEXT} in the folder that PARE_DATA names would be long enough`,
      `long training: ${terms.shape.dim} channels and ${tokensOf(terms.training)} tokens, a hundred for each number in the layers, as in the paper; the rates of ${terms.rates.join(", ")}: ${ratesOf(entries)}; the paper's models have 30 to 800 million weights. At full scale: pare train --new 6x640 --method quest --bits 4 --input-bits 4 --text <3 billion tokens>, and without --method`,
    ],
  };
}
