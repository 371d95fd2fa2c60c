// Escapes HTML, like markupsafe.
import { Markup, textIn, type Value } from './values.ts';

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&#39;', '"': '&#34;' };

export function escapeText(text: string): string {
  return text.replace(/[&<>'"]/g, (one) => ENTITIES[one]);
}

/** Converts a text to Markup by escaping it; Markup stays as it is. */
export function toMarkup(value: string | Markup): Markup {
  return value instanceof Markup ? value : new Markup(escapeText(value));
}

/** The text of an argument of a method of `self`: escaped if `self` is Markup. */
export function textFor(self: Value, argument: string | Markup): string {
  return self instanceof Markup ? toMarkup(argument).text : textIn(argument);
}

/** The result of a method of `self`: Markup if `self` is Markup. */
export function like(self: Value, text: string): string | Markup {
  return self instanceof Markup ? new Markup(text) : text;
}
