// Recognises by its first characters what is in a file instead of a model's data.

const OTHERS: [begin: string, is: string][] = [
  ['version https://git-lfs', 'a pointer of git-lfs instead of the file: run  git lfs pull  in its folder'],
  ['<!doctype', 'a web page instead of the file: fetch it again'],
  ['<html', 'a web page instead of the file: fetch it again'],
  ['pk\x03\x04', "in PyTorch's format: convert it to safetensors"],
  ['gguf', 'a GGUF file, which is not read'],
];

/** A description to follow 'is', or null if the content is not recognised. Needs at least the first 24 characters. */
export function describeOther(begin: string): string | null {
  const lower = begin.slice(0, 32).toLowerCase();
  return OTHERS.find(([text]) => lower.startsWith(text))?.[1] ?? null;
}
