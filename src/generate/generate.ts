import {
  Continuation,
  type GeneratedToken,
  type GenerateOptions,
  type Generation,
  type GenerationTokenizer,
} from "./continuation.ts";
import { GenerateError } from "./errors.ts";
import type { AdvanceOptions, DecoderSession } from "./session.ts";

/**
 * Continues a prompt, token by token: an iterator whose return value says why it ended. What the session's context and
 * the prompt begin with alike is not read again; the rest of the context is forgotten. The session must not be used
 * for anything else until the iterator has ended.
 * @param prompt text, or ids as they are
 * @throws ArgumentError for an option outside of its range or an empty prompt; ContextError for a prompt longer than
 *   the model takes, unless the context may slide; while running, GenerateError when the session was used otherwise
 */
export function generate(
  session: DecoderSession,
  tokenizer: GenerationTokenizer,
  prompt: string | readonly number[],
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedToken, Generation, undefined> {
  return run(session, new Continuation(session.config, tokenizer, prompt, options));
}

/** Generates all of a text at once; parameters and errors are those of `generate`. */
export async function complete(...args: Parameters<typeof generate>): Promise<Generation> {
  const pieces = generate(...args);
  for (;;) {
    const { done, value } = await pieces.next();
    if (done) return value;
  }
}

async function* run(
  session: DecoderSession,
  text: Continuation,
): AsyncGenerator<GeneratedToken, Generation, undefined> {
  let logits = await unlessAborted(text, (options) => session.read(text.ids, options));
  while (logits) {
    const { ids } = session;
    yield text.next(logits);
    if (text.ended) break;
    if (session.ids !== ids)
      throw new GenerateError("the session was used for something else while it generated; open one for each text");
    logits = await unlessAborted(text, (options) => session.advance([text.last], options));
  }
  return text.result();
}

/** The logits that `read` gives, or undefined when the text's signal came. */
export async function unlessAborted(
  { options: { signal, overflow } }: Continuation,
  read: (options: AdvanceOptions) => Promise<Float32Array>,
): Promise<Float32Array | undefined> {
  try {
    const logits = await read({ signal, ...(overflow && { overflow }) });
    return signal?.aborted ? undefined : logits;
  } catch (error) {
    if (signal?.aborted && error === signal.reason) return undefined;
    throw error;
  }
}
