// What is found where a model's file should be, by its first characters.

const OTHERS: [begin: string, is: string][] = [
  ['version https://git-lfs', 'a pointer of git-lfs instead of the file: run  git lfs pull  in its folder'],
  ['<!doctype', 'a web page instead of the file: fetch it again'],
  ['<html', 'a web page instead of the file: fetch it again'],
  ['pk\x03\x04', "in PyTorch's format: convert it to safetensors"],
  ['gguf', 'a GGUF file, which is not read'],
];

/** A description after 'is', or null where it is nothing that is known. At least 24 characters are looked at. */
export function describeOther(begin: string): string | null {
  const lower = begin.slice(0, 32).toLowerCase();
  return OTHERS.find(([text]) => lower.startsWith(text))?.[1] ?? null;
}
