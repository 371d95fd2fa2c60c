/** An error of the template, or something that would not give the result of jinja2. */
export class TemplateError extends Error {
  override name = 'TemplateError';
}

/** A rendering that takes more steps, text, depth or time than its budget has. */
export class TemplateBudgetError extends TemplateError {
  override name = 'TemplateBudgetError';
}

/** A syntax error of the template. */
export class TemplateSyntaxError extends TemplateError {
  override name = 'TemplateSyntaxError';
  readonly line: number;

  constructor(message: string, line: number) {
    super(message);
    this.line = line;
  }
}
