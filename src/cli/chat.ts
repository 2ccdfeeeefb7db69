import { createInterface } from "node:readline/promises";
import { type ChatMessage, ChatTemplateError, type Tokenizer } from "../formats/index.ts";
import { ContextError, type GenerateOptions } from "../generate/index.ts";
import { answer, figures, harmless } from "./answer.ts";
import type { TextModel } from "./model.ts";

export interface ChatOptions extends GenerateOptions {
  readonly seed: number;
  /** Whether what is typed continues one growing text, as models without a chat template need it. */
  readonly plain: boolean;
  /** What to begin with, as if it had been typed. */
  readonly opening?: string;
}

/** Where a conversation takes place. */
export interface Terminal {
  readonly input: NodeJS.ReadableStream;
  readonly output: NodeJS.WritableStream;
  /** Receives what is not part of the conversation. */
  readonly note: (line: string) => void;
}

/** What has been said, and how a model is asked to go on. */
interface Conversation {
  /** The prompt for what has been said and this line. */
  prompt(line: string): string | readonly number[];
  add(line: string, reply: string): void;
}

/** Turns of a user and a model, in the words of a chat template. */
function turns(tokenizer: Tokenizer): Conversation {
  const messages: ChatMessage[] = [];
  const asked = (line: string): ChatMessage => ({ role: "user", content: line });
  return {
    prompt: (line) => tokenizer.encodeChat([...messages, asked(line)], { addGenerationPrompt: true }),
    add: (line, reply) => messages.push(asked(line), { role: "assistant", content: reply }),
  };
}

/** One text that both write on, of which the model sees as much of the end as it takes. */
function growingText(): Conversation {
  let text = "";
  const joined = (line: string): string => (/\S$/.test(text) && line !== "" ? `${text} ${line}` : text + line);
  return {
    prompt: joined,
    add: (line, reply) => {
      text = joined(line) + reply;
    },
  };
}

const help = "/reset forgets what was said, /exit or Ctrl-D ends; Ctrl-C stops an answer, twice ends";

/** Talks with whoever sits at the terminal, until they end it. */
export async function chat(
  model: TextModel,
  { plain, opening, ...options }: ChatOptions,
  { input, output, note }: Terminal,
): Promise<void> {
  const begin = (): Conversation => (plain ? growingText() : turns(model.tokenizer));
  let conversation = begin();
  /** Stops the answer that is being given. */
  let running: AbortController | undefined;
  let pressed = false;
  let ended = false;
  const write = (text: string): void => void output.write(harmless(text));

  const reply = async (line: string): Promise<void> => {
    running = new AbortController();
    try {
      const prompt = conversation.prompt(line);
      // Enter alone, with nothing to go on from.
      if (prompt === "") return;
      const settings = { ...options, ...(plain && ({ overflow: "slide" } as const)), signal: running.signal };
      const given = await answer(model, prompt, settings, write);
      conversation.add(line, given.text);
      output.write("\n");
      note(figures(given, options.seed));
    } catch (error) {
      // A conversation that has become too long, or that its template refuses, can go on differently.
      if (!(error instanceof ContextError || error instanceof ChatTemplateError)) throw error;
      note(`${error.message}; /reset begins anew`);
    } finally {
      running = undefined;
    }
  };

  note(`${model.name}: ${plain ? "what you type continues the text; Enter alone goes on" : "type a message"}. ${help}`);
  using terminal = disposable(createInterface({ input, output, terminal: true, prompt: "> " }));
  terminal.on("SIGINT", () => {
    if (pressed) return terminal.close();
    pressed = true;
    if (running) return running.abort();
    terminal.write(null, { ctrl: true, name: "u" });
    note("\n(Ctrl-C again ends)");
    terminal.prompt();
  });
  terminal.on("close", () => {
    ended = true;
    running?.abort();
  });
  const lines = terminal[Symbol.asyncIterator]();
  if (opening !== undefined) {
    write(opening);
    await reply(opening);
  }
  while (!ended) {
    terminal.prompt();
    const { done, value: line } = await lines.next();
    if (done || line === "/exit") break;
    pressed = false;
    if (line === "/reset") conversation = begin();
    else if (line.startsWith("/")) note(`there is no ${line.split(/\s/, 1)[0]}; ${help}`);
    else if (line !== "" || plain) await reply(line);
  }
  // What follows begins on a line of its own.
  if (ended) output.write("\n");
}

const disposable = <T extends { close(): void }>(it: T): T & Disposable =>
  Object.assign(it, { [Symbol.dispose]: () => it.close() });
