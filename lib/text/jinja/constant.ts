// Decides which expressions jinja2 computes at compile time.
import type { Arguments, Expression } from './nodes.ts';
import type { StaticEscaping } from './scope.ts';

/** Filters that see the variables of the template. */
const WITH_CONTEXT = new Set(['map', 'select', 'reject', 'selectattr', 'rejectattr', 'random']);

/** Whether nothing in an expression depends on variables or, for filters and tests, on {% autoescape %} at run time. */
export function isConstant(node: Expression, escaping: StaticEscaping): boolean {
  const isFixed = (one: Expression | null): boolean => !one || isConstant(one, escaping);
  const areFixed = ({ positional, named, list, dict }: Arguments) =>
    [...positional, ...named.map(([, value]) => value), list, dict].every(isFixed);
  switch (node.kind) {
    case 'constant':
    case 'number':
      return true;
    case 'name':
    case 'call':
      return false;
    case 'tuple':
    case 'list':
      return node.items.every(isFixed);
    case 'dict':
      return node.entries.flat().every(isFixed);
    case 'attribute':
      return isFixed(node.object);
    case 'item':
      return isFixed(node.object) && isFixed(node.key);
    case 'slice':
      return [node.object, ...node.bounds].every(isFixed);
    case 'unary':
      return isFixed(node.operand);
    case 'binary':
      return isFixed(node.left) && isFixed(node.right);
    case 'concat':
      return node.parts.every(isFixed);
    case 'compare':
      return isFixed(node.first) && node.rest.every(([, operand]) => isFixed(operand));
    case 'condition':
      return isFixed(node.test) && isFixed(node.value) && node.otherwise !== null && isFixed(node.otherwise);
    case 'filter':
      // value is null for the text of a block
      return (
        !escaping.isVolatile &&
        node.value !== null &&
        !WITH_CONTEXT.has(node.name) &&
        isFixed(node.value) &&
        areFixed(node.args)
      );
    case 'test':
      return !escaping.isVolatile && isFixed(node.value) && areFixed(node.args);
  }
}
