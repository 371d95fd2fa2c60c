// What files of data hold, in the one form that the rest of the package knows.

/** One turn of a conversation; further fields go to the chat template as they are. */
export interface Message {
  role: string;
  /** Text; some templates take other things. Absent beside tool calls, for example. */
  content?: unknown;
  /** Whether an assistant's turn may be trained on; absent: yes. Not for the template. */
  isTrained?: boolean;
  [field: string]: unknown;
}

/** Messages, and what else the chat template is given. */
export interface Conversation {
  messages: Message[];
  /** The first message that may be trained on. @default 0 */
  firstTarget?: number;
  /** Functions that the assistant may call, as the template expects them. */
  tools?: unknown[];
  /** Documents to answer from, as the template expects them. */
  documents?: unknown[];
  /** Further variables of the template (`chat_template_kwargs`). */
  variables?: Record<string, unknown>;
}

/** What one line of a data set may be. */
export type DataRecord = { text: string } | { prompt: string; completion: string } | Conversation;

/** A long text comes in parts, of which only the last ends its document. */
export interface DocumentPart {
  record: DataRecord;
  isEnd: boolean;
  /** The file and the line or row, for messages. */
  place: string;
  /** What a user should know of the record: a field that is not used. */
  notices?: readonly string[];
}

/** An object of a file, before its form is known. */
export interface Row {
  value: unknown;
  place: string;
}
