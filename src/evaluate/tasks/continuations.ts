import { Rng } from "../../tensor/index.ts";
import { TaskError } from "../errors.ts";
import type { ContinuationSpec } from "./task.ts";
import type { Row } from "./template.ts";

interface Passage {
  readonly document: number;
  readonly context: string;
  readonly continuation: string;
}

/**
 * Questions made of texts: each is a passage's `context` with several `choices` to go on, of which `answer` is the index
 * of the true one. The others are true continuations of other passages, of the same document where it has enough. Same
 * texts, same questions.
 * @throws TaskError when the texts are too short
 */
export function continuationRows(documents: readonly string[], spec: ContinuationSpec): Row[] {
  const passages = documents.flatMap((text, document) => passagesOf(text, document, spec));
  if (passages.length < spec.choices)
    throw new TaskError(`the texts have ${passages.length} passages, too few for ${spec.choices} choices`);
  const rng = new Rng(0);
  return passages.map((passage, i) => {
    const draw = rng.fork(i);
    const others = passages.filter((other) => other.continuation !== passage.continuation);
    const near = others.filter(({ document }) => document === passage.document);
    const pool = near.length >= spec.choices - 1 ? near : others;
    const choices = draw.sample(pool, spec.choices - 1).map(({ continuation }) => continuation);
    const answer = draw.integer(spec.choices);
    choices.splice(answer, 0, passage.continuation);
    return { context: passage.context, choices, answer };
  });
}

/** Stretches of a text one behind the other, as many as fit. */
function passagesOf(text: string, document: number, { contextWords, words }: ContinuationSpec): Passage[] {
  const all = text.split(/\s+/).filter((word) => word !== "");
  const length = contextWords + words;
  return Array.from({ length: Math.floor(all.length / length) }, (_, i) => {
    const at = i * length;
    return {
      document,
      context: all.slice(at, at + contextWords).join(" "),
      continuation: all.slice(at + contextWords, at + length).join(" "),
    };
  });
}
