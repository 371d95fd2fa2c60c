// The policies and dtypes of parity that npm test leaves out.
import { isQuick, parityTests } from '../support/parity_tests.ts';

describe('parity with PyTorch', () => {
  parityTests((policy, dtype) => !isQuick(policy, dtype));
});
