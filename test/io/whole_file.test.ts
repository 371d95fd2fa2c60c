// Files that appear whole or not at all, and what killed processes leave.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readdirSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { loadModel, saveModel } from '../../lib/index.ts';
import { removeLeftovers, writeWhole } from '../../lib/io/whole_file.ts';
import { openTestDevice } from '../support/devices.ts';
import { contents, parity } from '../support/folders.ts';
import { newFolder } from '../support/runs.ts';

describe('temporary files', () => {
  const machine = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
  const nameOf = (pid: number, host = machine) => `.model.safetensors.${host}-${pid}-0123456789abcdef.tmp`;

  it('of killed processes of this machine are removed by the next save, others only by who holds the folder', async () => {
    const dead = spawnSync('true').pid;
    const out = newFolder();
    const foreign = [nameOf(dead, '00000000'), nameOf(process.pid), '.model.safetensors.tmp'];
    for (const name of [nameOf(dead), ...foreign]) writeFileSync(join(out, name), 'half a model');
    using device = openTestDevice();
    using model = await loadModel(parity('llama'), { device });
    await saveModel(model, out, { tokenizerFrom: null });
    assert.deepEqual(readdirSync(out).sort(), [...foreign, 'config.json', 'model.safetensors'].sort());
    await removeLeftovers(out, { all: true });
    assert.deepEqual(readdirSync(out).sort(), ['.model.safetensors.tmp', 'config.json', 'model.safetensors']);
  });

  it('are gone where a later shard fails, and the old files are as they were', async () => {
    using device = openTestDevice();
    using model = await loadModel(parity('llama'), { device });
    const out = newFolder();
    await saveModel(model, out, { maxShardBytes: 100_000 });
    const [names, before] = [readdirSync(out).sort(), await contents(out)];
    model.namedParameters().get('lm_head.weight')!.dispose();
    await assert.rejects(saveModel(model, out, { maxShardBytes: 100_000 }), /lm_head.weight.*used after dispose/);
    assert.deepEqual(readdirSync(out).sort(), names);
    assert.deepEqual(await contents(out), before);
  });

  it('a failed write names the path and leaves nothing', async () => {
    const out = newFolder();
    const failing = writeWhole(join(out, 'a.json'), async (handle) => {
      await handle.write('half');
      throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
    });
    await assert.rejects(failing, {
      code: 'ENOSPC',
      message: `${join(out, 'a.json')}: cannot be written: ENOSPC: no space left on device, write`,
    });
    assert.deepEqual(readdirSync(out), []);
  });
});
