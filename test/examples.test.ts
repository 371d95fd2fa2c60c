// The examples, as a reader would run them.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';

describe('examples', () => {
  it('custom_block.ts shows what chunks save', () => {
    const output = execFileSync(process.execPath, ['--import=tsx', 'examples/custom_block.ts'], { encoding: 'utf8' });
    const [whole, chunked] = [...output.matchAll(/peak ([\d.]+) MiB/g)].map(([, number]) => Number(number));
    assert.ok(chunked! < whole! / 2, output);
  });
});
