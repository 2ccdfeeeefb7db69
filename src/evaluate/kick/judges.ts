import { isJsonObject } from "../../formats/json.ts";
import { PareError } from "../../tensor/index.ts";
import { type Judge, promptedJudge } from "./judge.ts";
import type { Reader } from "./reader.ts";

/** A judge's endpoint that cannot be reached or does not answer as it should. */
export class JudgeEndpointError extends PareError {
  override readonly code = "JUDGE_ENDPOINT";
}

/** How judges are sampled, as in the paper. */
const TEMPERATURE = 0.1;
const MOST_TOKENS = 1024;

export interface EndpointOptions {
  /** Where the interface begins: `https://host/v1`. */
  readonly url: string;
  readonly model: string;
  /** Goes into the authorization header. */
  readonly key?: string | undefined;
  readonly fetch?: typeof fetch;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A model behind OpenAI's chat interface as a judge, such as `pare serve` offers.
 * @throws while judging, JudgeEndpointError with what the endpoint said
 */
export function endpointJudge({ url, model, key, fetch: ask = fetch, signal }: EndpointOptions): Judge {
  const place = `${url.replace(/\/+$/, "")}/chat/completions`;
  return promptedJudge(`${model} at ${url}`, async (prompt) => {
    const body = JSON.stringify({
      model,
      messages: [{ role: "user", content: prompt }],
      temperature: TEMPERATURE,
      max_tokens: MOST_TOKENS,
    });
    const headers = { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
    const response = await ask(place, { method: "POST", headers, body, ...(signal && { signal }) }).catch(
      (cause: unknown) => {
        signal?.throwIfAborted();
        throw new JudgeEndpointError(`the judge at ${place} cannot be reached: ${(cause as Error).message}`, { cause });
      },
    );
    const text = await response.text();
    if (!response.ok)
      throw new JudgeEndpointError(`the judge at ${place} answered ${response.status}: ${text.slice(0, 200)}`);
    return contentOf(text, place);
  });
}

function contentOf(text: string, place: string): string {
  const wrong = new JudgeEndpointError(
    `the judge at ${place} did not answer with a chat completion: ${text.slice(0, 200)}`,
  );
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw wrong;
  }
  const choices = isJsonObject(json) ? json["choices"] : undefined;
  const message = Array.isArray(choices) && isJsonObject(choices[0]) ? choices[0]["message"] : undefined;
  const content = isJsonObject(message) ? message["content"] : undefined;
  if (typeof content !== "string") throw wrong;
  return content;
}

/** A model in this process as a judge. @param name of the model, for reports */
export function readerJudge(name: string, reader: Reader, seed = 0): Judge {
  return promptedJudge(name, async (prompt) => {
    const ids = reader.chat([{ role: "user", content: prompt }]);
    const [answer] = await reader.answer([ids], { maxTokens: MOST_TOKENS, temperature: TEMPERATURE, seed });
    return answer!.text;
  });
}
