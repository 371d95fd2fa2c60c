// The records of data files, in the one form that the rest of the package uses.

/** One turn of a conversation. The chat template gets all further fields as they are. */
export interface Message {
  role: string;
  /** Text; some templates also take other values. May be absent, for example beside tool calls. */
  content?: unknown;
  /** Whether an assistant's turn may be trained on; absent means yes. The template does not get it. */
  isTrained?: boolean;
  [field: string]: unknown;
}

/** Messages, and what else the chat template gets. */
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

/** One record of a data set. */
export type DataRecord = { text: string } | { prompt: string; completion: string } | Conversation;

/** A document, or a part of one: a long text comes in parts, and only the last of them ends the document. */
export interface DocumentPart {
  record: DataRecord;
  isEnd: boolean;
  /** The file and the line or row, for messages. */
  place: string;
  /** Notices for the user about the record, such as a field that is not used. */
  notices?: readonly string[];
}

/** An object of a file whose form is not known yet. */
export interface Row {
  value: unknown;
  place: string;
}
