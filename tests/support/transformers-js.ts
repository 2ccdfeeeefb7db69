import {
  AutoModelForCausalLM,
  env,
  LogitsProcessor,
  LogitsProcessorList,
  type PreTrainedModel,
  Tensor,
} from "@huggingface/transformers";

/** What transformers.js generates for one sequence of a batch, with the logits that it chose each token by. */
export interface TheirContinuation {
  readonly tokens: number[];
  readonly scores: number[][];
}

/** Keeps a copy of the logits that pass, of each sequence apart. */
class Recorder extends LogitsProcessor {
  readonly scores: number[][][] = [];

  override _call(_ids: bigint[][], logits: Tensor): Tensor {
    const [batch] = logits.dims as [number];
    const values = Array.from(logits.data as Float32Array);
    const vocab = values.length / batch;
    for (let i = 0; i < batch; i++) (this.scores[i] ??= []).push(values.slice(i * vocab, (i + 1) * vocab));
    return logits;
  }
}

/** A model in a local folder, in one of the representations that it has there, run by onnxruntime's CPU in one thread. */
export async function openTheirs(folder: string, dtype: string): Promise<PreTrainedModel> {
  env.allowRemoteModels = false;
  env.localModelPath = "/";
  const session = { intraOpNumThreads: 1 };
  return await AutoModelForCausalLM.from_pretrained(folder, {
    dtype: dtype as "fp32",
    device: "cpu",
    session_options: session,
  });
}

/** Greedy continuations by `length` tokens of prompts, which are padded on the left to the same length. */
export async function generateTheirs(
  model: PreTrainedModel,
  prompts: readonly (readonly number[])[],
  length: number,
): Promise<TheirContinuation[]> {
  const width = Math.max(...prompts.map((prompt) => prompt.length));
  const padded = (of: (prompt: readonly number[]) => readonly number[], fill: number): Tensor => {
    const rows = prompts.map((prompt) => [...Array.from({ length: width - prompt.length }, () => fill), ...of(prompt)]);
    return new Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [prompts.length, width]);
  };
  const recorder = new Recorder();
  const processors = new LogitsProcessorList();
  processors.push(recorder);
  const sequences = (await model.generate({
    input_ids: padded((prompt) => prompt, 0),
    attention_mask: padded((prompt) => prompt.map(() => 1), 0),
    logits_processor: processors,
    // No token ends the text.
    generation_config: { max_new_tokens: length, do_sample: false, eos_token_id: null } as never,
  } as never)) as Tensor;
  return prompts.map((_, i) => ({
    tokens: (sequences.tolist() as bigint[][])[i]!.slice(width).map(Number),
    scores: recorder.scores[i]!,
  }));
}
