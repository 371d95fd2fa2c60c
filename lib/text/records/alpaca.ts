// The prompts that the Alpaca model was trained with. They serve records of { instruction, output } if there is no chat template.

export function alpacaPrompt(instruction: string, input: string): string {
  const paired = input === '' ? '' : ', paired with an input that provides further context';
  const context = input === '' ? '' : `### Input:\n${input}\n\n`;
  return (
    `Below is an instruction that describes a task${paired}. Write a response that appropriately completes the request.\n\n` +
    `### Instruction:\n${instruction}\n\n${context}### Response:\n`
  );
}
