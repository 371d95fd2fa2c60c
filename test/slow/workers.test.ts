// Many workers that are ended in the middle of calls of the addon.
import { endWorkers } from '../support/ended_workers.ts';

describe('workers', () => {
  for (const how of ['terminate', 'throw', 'exit'] as const) {
    it(`that are ended in the middle (${how}), 100 of them, take nothing with them`, () => endWorkers(how, 100));
  }
});
