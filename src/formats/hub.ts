import { ArgumentError, PareError } from "../tensor/errors.ts";
import { FormatError } from "./errors.ts";

/** Why the hub did not give what was asked for. */
export type HubFailure =
  /** Working offline, or nothing answers, and the cache does not have it. */
  | "offline"
  /** It asks for a token, or does not take the one given. */
  | "unauthorized"
  /** The repository's owners have to grant access first. */
  | "gated"
  /** There is no such repository, revision or file. */
  | "missing"
  /** It answered with an error that none of the others is. */
  | "refused"
  /** The server failed, or the connection broke, time and again. */
  | "network"
  /** What arrived is not what the hub announced. */
  | "corrupt"
  /** The caller's signal stopped it. */
  | "aborted";

/** A model that could not be had from the hub; `failure` tells programs why. */
export class HubError extends PareError {
  override readonly code = "HUB";
  readonly failure: HubFailure;

  constructor(failure: HubFailure, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.failure = failure;
  }
}

/** A model on the hub: `owner/name`, or a name alone for the oldest ones, at a branch, tag or commit. */
export interface HubName {
  readonly repository: string;
  readonly revision: string;
}

const part = /^[A-Za-z0-9_](?:[\w.-]{0,94}[\w])?$/;

/**
 * Reads `owner/name` or `owner/name@revision`; `revision` is what holds where the name has none.
 * @throws ArgumentError when it is not a name on the hub
 */
export function parseHubName(text: string, revision = "main"): HubName {
  const at = text.indexOf("@");
  const repository = at < 0 ? text : text.slice(0, at);
  const named = at < 0 ? revision : text.slice(at + 1);
  const parts = repository.split("/");
  if (parts.length > 2 || !parts.every((name) => part.test(name) && !/--|\.\./.test(name))) {
    throw new ArgumentError(
      `${JSON.stringify(text)} is neither a folder here nor a model on the hub, written owner/name or owner/name@revision`,
    );
  }
  // A revision becomes the path of a file in the cache and a part of addresses.
  if (
    !/^[\w][\w./-]{0,254}$/.test(named) ||
    named.split("/").some((step) => step === "" || /^\.|\.\.|\.lock$/.test(step))
  ) {
    throw new ArgumentError(`${JSON.stringify(named)} is not a branch, tag or commit of ${repository}`);
  }
  return { repository, revision: named };
}

/** Folder of a repository within the hub's cache. */
export function cacheFolderName(repository: string): string {
  return `models--${repository.replace("/", "--")}`;
}

/**
 * Refuses paths in a repository's listing that would leave the folder they are written to, on any system.
 * @throws FormatError
 */
export function checkRepositoryPath(path: string, repository: string): void {
  const steps = path.split("/");
  const bad = (step: string): boolean =>
    step === "" || step === "." || step === ".." || /[\\:\0]|^\s|[\s.]$/.test(step);
  if (path.length > 1024 || steps.some(bad)) {
    throw new FormatError(
      `${repository} lists a file called ${JSON.stringify(path)}, which is no plain path; it is not downloaded`,
    );
  }
}
