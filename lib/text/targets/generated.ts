// Answers by the template's own marks: {% generation %} … {% endgeneration %}.
import type { ChatTemplate } from '../chat_template.ts';
import type { Conversation } from '../records/record.ts';
import type { Span } from './marked_text.ts';

/**
 * The marked spans of the messages that are trained on.
 * @param generated all marked spans, in order
 * @param targets the indices of the messages
 */
export async function generatedSpans(
  template: ChatTemplate,
  conversation: Conversation,
  { generated, targets }: { generated: readonly Span[]; targets: readonly number[] },
): Promise<Span[]> {
  const { messages } = conversation;
  const answers = messages.flatMap(({ role }, i) => (role === 'assistant' ? [i] : []));
  const isFilled = ([begin, end]: Span) => end > begin;
  if (targets.length === answers.length) return generated.filter(isFilled);
  if (generated.length === answers.length) {
    const chosen = new Set(targets);
    return generated.filter((_, k) => chosen.has(answers[k]!)).filter(isFilled);
  }
  // Some answers have several spans or none. Those of a message are there with the message and not without it.
  const countBefore = async (end: number) => {
    if (end === 0) return 0;
    return (await template.rendered({ ...conversation, messages: messages.slice(0, end) })).generated?.length ?? 0;
  };
  const spans: Span[] = [];
  for (const i of targets) spans.push(...generated.slice(await countBefore(i), await countBefore(i + 1)));
  return spans.filter(isFilled);
}
