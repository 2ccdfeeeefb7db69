import { appendFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import {
  DecoderReader,
  endpointJudge,
  type Judge,
  type JudgeCall,
  type LoggedJudge,
  readerJudge,
} from "../../evaluate/index.ts";
import { requireTokenizer } from "../../models/index.ts";
import { openModel } from "../../models/node.ts";
import { UsageError } from "../errors.ts";

export interface JudgeOptions {
  /** The address of a chat interface, or a model as `pare run` takes it. */
  readonly judge: string;
  /** The model's name behind an address. */
  readonly judgeModel: string | undefined;
  /** Where `judge.jsonl` goes. */
  readonly out: string;
  readonly threads: number | undefined;
  readonly signal: AbortSignal;
}

/** A judge whose calls are written down; `calls` counts those of this run. */
export interface OpenJudge extends LoggedJudge, AsyncDisposable {
  readonly calls: number;
}

/** Opens the judge that a user names. @throws UsageError; as `openModel` */
export async function openJudge({ judge, judgeModel, out, threads, signal }: JudgeOptions): Promise<OpenJudge> {
  await mkdir(out, { recursive: true });
  let calls = 0;
  let written = Promise.resolve();
  const log = (call: JudgeCall): void => {
    calls++;
    written = written.then(() => appendFile(join(out, "judge.jsonl"), `${JSON.stringify(call)}\n`));
  };
  const opened = (of: Judge, close: () => Promise<void>): OpenJudge => ({
    judge: of,
    log,
    get calls() {
      return calls;
    },
    async [Symbol.asyncDispose]() {
      await written;
      await close();
    },
  });
  if (/^https?:/.test(judge)) {
    if (judgeModel === undefined) throw new UsageError(`--judge ${judge} also takes --judge-model <name>`);
    const key = process.env["PARE_JUDGE_KEY"];
    return opened(endpointJudge({ url: judge, model: judgeModel, key, signal }), async () => {});
  }
  await using model = await openModel(judge);
  const reader = await DecoderReader.open(
    { ...model, tokenizer: requireTokenizer(model) },
    threads === undefined ? {} : { threads },
  );
  return opened(readerJudge(judge, reader), () => reader[Symbol.asyncDispose]());
}
