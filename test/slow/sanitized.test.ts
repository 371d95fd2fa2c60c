// The native tests that take long with sanitizers.
import { runNativeTests } from '../support/native_tests.ts';

describe('native tests with sanitizers', () => {
  it('pass where products have many tiles', () => runNativeTests('sanitized', '*ManyTiles*'));
});
