import type { SmallShape } from "../small-language.ts";
import type { Finding, Setting, System } from "../system.ts";
import { Contest, check, lateLosses, meanAlignment, ratesOf, type Terms, tokensOf } from "./contest.ts";
import { mathematics, packedAsTrained } from "./exactness.ts";
import { longContest } from "./long.ts";

/** Embeddings of unit deviation, as libraries begin with, beside which outliers are a few times larger. */
const shape = {
  vocab: 300,
  layers: 2,
  dim: 64,
  heads: 4,
  ffn: 192,
  tied: false,
  embedding: 1,
} satisfies SmallShape;

function terms({ seed, full }: Setting): Terms {
  return {
    shape,
    training: { steps: 500, batch: 8, length: 64 },
    rates: full ? [3e-3, 5e-3, 1e-2, 2e-2] : [1e-2],
    seeds: [seed, seed + 1, seed + 2],
  };
}

/** At 1 bit, the best rate is not the same for all methods. */
function oneBitTerms(setting: Setting): Terms {
  return { ...terms(setting), ...(!setting.full && { rates: [4e-3, 1e-2] }) };
}

/** With outliers all methods end lowest at the same rate. */
function outlierTerms(setting: Setting): Terms {
  return { ...terms(setting), training: { steps: 400, batch: 8, length: 64 } };
}

async function experiment(setting: Setting): Promise<Finding> {
  const contest = new Contest(setting, terms(setting));
  const outlierContest = new Contest(setting, outlierTerms(setting));
  const oneBitContest = new Contest(setting, oneBitTerms(setting));
  const plain = await contest.entry("full precision", 4);
  const one = await oneBitContest.entry("QuEST", 1);
  const two = await contest.entry("QuEST", 2);
  const four = await contest.entry("QuEST", 4);
  const oneStraight = await oneBitContest.entry("straight-through", 1);
  const oneLearned = setting.full ? await oneBitContest.entry("learned steps", 1) : null;
  const outlying = await outlierContest.entry("full precision", 4, { withOutliers: true });
  const outlyingFour = await outlierContest.entry("QuEST", 4, { withOutliers: true });
  const outlyingStraight = await outlierContest.entry("straight-through", 4, { withOutliers: true });

  const [aligned, alignedStraight] = [await meanAlignment(outlyingFour), await meanAlignment(outlyingStraight)];
  const [early, late] = lateLosses(one);
  const long = setting.full ? await longContest(setting) : null;
  const { seeds, training } = terms(setting);
  const entries = {
    "full precision": plain,
    "QuEST W1A1": one,
    "QuEST W2A2": two,
    "QuEST W4A4": four,
    "straight-through W1A1": oneStraight,
    ...(oneLearned && { "learned steps W1A1": oneLearned }),
    "outliers, full precision": outlying,
    "outliers, QuEST W4A4": outlyingFour,
    "outliers, straight-through W4A4": outlyingStraight,
  };
  return {
    checks: [
      check("1 bit, loss, and straight-through less 0.08", one.loss, oneStraight.loss, (a, b) => a <= b - 0.08),
      check("1 bit, training loss late in the last quarter, and early", late, early, (a, b) => a < b),
      check("4 bits, loss, and full precision plus 0.06", four.loss, plain.loss, (a, b) => a <= b + 0.06),
      check(
        "4 bits, outliers, loss, and straight-through less 0.03",
        outlyingFour.loss,
        outlyingStraight.loss,
        (a, b) => a <= b - 0.03,
      ),
      check(
        "4 bits, outliers, loss, and full precision plus 0.05",
        outlyingFour.loss,
        outlying.loss,
        (a, b) => a <= b + 0.05,
      ),
      check("loss at 4 bits, and at 2", four.loss, two.loss, (a, b) => a < b),
      check("loss at 2 bits, and at 1", two.loss, one.loss, (a, b) => a < b),
      check("4 bits, outliers, gradient alignment, and 0.8", aligned, 0.8, (a, b) => a >= b),
      check("4 bits, outliers, gradient alignment, and straight-through", aligned, alignedStraight, (a, b) => a > b),
      ...(long?.checks ?? []),
      ...(await packedAsTrained(setting, one.runs[0]!, 1)),
      ...(await packedAsTrained(setting, four.runs[0]!, 4)),
      ...(await mathematics(setting)),
    ],
    metrics: {
      "W1A1 loss": one.loss,
      "W2A2 loss": two.loss,
      "W4A4 loss": four.loss,
      "outliers, W4A4 loss": outlyingFour.loss,
      "gradient alignment": aligned,
      ...long?.metrics,
    },
    baseline: {
      "full precision loss": plain.loss,
      "straight-through W1A1 loss": oneStraight.loss,
      ...(oneLearned && { "learned steps W1A1 loss": oneLearned.loss }),
      "outliers, full precision loss": outlying.loss,
      "outliers, straight-through W4A4 loss": outlyingStraight.loss,
      "straight-through gradient alignment": alignedStraight,
      ...long?.baseline,
    },
    notes: [
      `models of ${shape.layers} layers of ${shape.dim} channels, from scratch; the same starts and the same ${tokensOf(training)} tokens for all (${tokensOf(outlierTerms(setting).training)} with outliers), losses the means of ${seeds.length} starts; a vocabulary of ${shape.vocab}, so that words are spelt`,
      `learning rates: of ${oneBitTerms(setting).rates.join(", ")} the one that ends lowest on held-out text kept for that, for each method at 1 bit, and of ${terms(setting).rates.join(", ")} for the others: ${ratesOf(entries)}`,
      "straight-through: the same Gaussian grids, no transform, gradients everywhere. Learned steps: LSQ, mid-rise, one step a matrix and one for its inputs",
      "embeddings start with a deviation of 1, matrices of 0.02; from larger matrices all end lower, learned steps above all, and 4 bits with outliers lie further from full precision",
      "packed logits: an input within the rounding of single precision of the middle between two levels may go to either, and what follows is then off by more",
      ...(long?.notes ?? [
        "the paper has QuEST ahead of learned steps at 100 tokens a parameter; at fewer these can lead, so that the full proof alone compares with them",
      ]),
    ],
  };
}

/** QuEST against the straight-through estimator and learned steps, on the same tokens. */
export const quest: System = {
  name: "QuEST",
  family: "weights",
  summary: "trains language models from scratch whose weights and activations have 1 to 4 bits",
  paper: {
    title: "QuEST: Stable Training of LLMs with 1-Bit Weights and Activations",
    authors: "Panferov, Chen, Tabesh, Castro, Nikdan, Alistarh",
    year: 2025,
    url: "https://arxiv.org/abs/2502.05003",
  },
  file: "src/methods/weights/quest/trust.ts",
  claim:
    "with Hadamard transforms, Gaussian grids and gradients only through what these do not cut off, training is stable down to 1-bit weights and activations, and ends at lower losses than with straight-through gradients or learned steps",
  bar: "1 bit: 0.08 nats below straight-through, still improving at the end; 4 bits: within 0.06 of full precision, with outlier channels within 0.05 and 0.03 below straight-through; losses in the order of bits; gradient alignment of 0.8 and above straight-through's; packed logits to 1e-3. With --full also below learned steps",
  experiment,
};
