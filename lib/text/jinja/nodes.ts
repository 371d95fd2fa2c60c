// The syntax tree of a template. Every node has the line where it begins.

export type Expression = { line: number } & (
  | { kind: 'constant'; value: null | boolean | string }
  | { kind: 'number'; digits: string; isFloat: boolean }
  | { kind: 'name'; name: string }
  | { kind: 'tuple' | 'list'; items: Expression[] }
  | { kind: 'dict'; entries: [key: Expression, value: Expression][] }
  | { kind: 'attribute'; object: Expression; name: string }
  | { kind: 'item'; object: Expression; key: Expression }
  | { kind: 'slice'; object: Expression; bounds: (Expression | null)[] }
  | { kind: 'unary'; operator: '-' | '+' | 'not'; operand: Expression }
  | { kind: 'binary'; operator: BinaryOperator; left: Expression; right: Expression }
  | { kind: 'concat'; parts: Expression[] }
  | { kind: 'compare'; first: Expression; rest: [Comparison, Expression][] }
  | { kind: 'condition'; test: Expression; value: Expression; otherwise: Expression | null }
  | Call
  | Filter
  | { kind: 'test'; name: string; value: Expression; args: Arguments }
);

export type BinaryOperator = '+' | '-' | '*' | '/' | '//' | '%' | '**' | 'and' | 'or';
export type Comparison = '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'not in';

export interface Arguments {
  positional: Expression[];
  named: [name: string, value: Expression][];
  /** The expressions after * and **. */
  list: Expression | null;
  dict: Expression | null;
}

export interface Call {
  kind: 'call';
  callee: Expression;
  args: Arguments;
  line: number;
}

export interface Filter {
  kind: 'filter';
  name: string;
  /** Null if the value is the body of a block. */
  value: Expression | null;
  args: Arguments;
  line: number;
}

export type Target = { line: number } & (
  | { kind: 'name'; name: string }
  | { kind: 'tuple'; items: Target[] }
  | { kind: 'field'; object: string; name: string }
);

export interface Signature {
  params: string[];
  /** The defaults of the last parameters. */
  defaults: Expression[];
}

export type Statement = { line: number } & (
  | { kind: 'output'; parts: (Expression | { kind: 'text'; text: string; line: number })[] }
  | {
      kind: 'for';
      target: Target;
      iterable: Expression;
      test: Expression | null;
      isRecursive: boolean;
      body: Statement[];
      otherwise: Statement[];
    }
  | { kind: 'if'; test: Expression; body: Statement[]; others: [Expression, Statement[]][]; otherwise: Statement[] }
  | { kind: 'set'; target: Target; value: Expression }
  | { kind: 'set block'; target: Target; filter: Filter | null; body: Statement[] }
  | ({ kind: 'macro'; name: string; body: Statement[] } & Signature)
  | ({ kind: 'call block'; call: Call; body: Statement[] } & Signature)
  | { kind: 'generation'; body: Statement[] }
  | { kind: 'autoescape'; value: Expression; body: Statement[] }
  | { kind: 'filter block'; filter: Filter; body: Statement[] }
  | { kind: 'with'; targets: Target[]; values: Expression[]; body: Statement[] }
  | { kind: 'block'; name: string; isScoped: boolean; isRequired: boolean; body: Statement[] }
  | { kind: 'other template'; tag: string; stores: string[] }
  | { kind: 'break' | 'continue' }
);
