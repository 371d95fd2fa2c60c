/** What a template does wrong, or what would not agree with jinja2. */
export class TemplateError extends Error {
  override name = 'TemplateError';
}

/** More steps, text, depth or time than a rendering has. */
export class TemplateBudgetError extends TemplateError {
  override name = 'TemplateBudgetError';
}

/** A template that is not well formed. */
export class TemplateSyntaxError extends TemplateError {
  override name = 'TemplateSyntaxError';
  readonly line: number;

  constructor(message: string, line: number) {
    super(message);
    this.line = line;
  }
}
