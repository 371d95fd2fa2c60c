// The tokens that end a text: those of transformers' generate and, in a conversation, the one that ends the assistant's turns.
import type { DecoderConfig } from '../models/decoder_config.ts';
import { hasTools } from '../text/probe_tools.ts';
import type { Conversation } from '../text/records/record.ts';
import { SpecialTokens } from '../text/targets/special.ts';
import { findTurnEnd } from '../text/targets/turn_end.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { GenerationDefaults } from './generation_config.ts';

/**
 * The ids of generation_config.json, else of config.json, and the tokenizer's end of text.
 * @param answered the conversation that is being answered, if any: the template's end of a turn then ends the text too, since some
 * models' configurations do not list it
 */
export async function stopIdsOf(
  config: DecoderConfig,
  tokenizer: Tokenizer,
  { stopIds }: GenerationDefaults,
  answered: Conversation | null,
): Promise<Set<number>> {
  const ids = new Set(stopIds ?? config.eosTokenIds);
  if (tokenizer.endOfText !== null) ids.add(tokenizer.endOfText);
  const turnEnd = answered ? await turnEndOf(tokenizer, answered) : null;
  if (turnEnd !== null) ids.add(turnEnd);
  return ids;
}

/** The token that the chat template writes after an answer; null if there is none. */
async function turnEndOf(
  { chatTemplate, addedTokens, endOfText }: Tokenizer,
  answered: Conversation,
): Promise<number | null> {
  if (!chatTemplate) return null;
  const special = new SpecialTokens(addedTokens, endOfText);
  const { token } = await findTurnEnd(chatTemplate, special, hasTools(answered));
  return addedTokens.find(({ content }) => content === token)?.id ?? null;
}
