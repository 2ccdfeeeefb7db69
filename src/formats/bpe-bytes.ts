/**
 * Byte-level BPE writes every byte as one printable character, so that vocabularies are plain text: bytes that
 * print in Latin-1 stand for themselves, the others get the characters from U+0100 on, in order (GPT-2).
 */
const isPrintable = (byte: number): boolean =>
  (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);

/** The character for each byte. */
export const byteChars: readonly string[] = (() => {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : 256 + others++));
})();

const charBytes: ReadonlyMap<string, number> = new Map(byteChars.map((char, byte) => [char, byte]));

const utf8 = new TextEncoder();

/** The UTF-8 bytes of `text`, each as its character. */
export function toByteChars(text: string): string {
  let chars = "";
  for (const byte of utf8.encode(text)) chars += byteChars[byte]!;
  return chars;
}

/** The bytes that a token of a byte-level vocabulary stands for, or undefined when it holds other characters. */
export function fromByteChars(token: string): Uint8Array | undefined {
  const bytes = new Uint8Array(token.length);
  for (let i = 0; i < token.length; i++) {
    const byte = charBytes.get(token[i]!);
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}
