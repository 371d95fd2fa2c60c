// The page of a plan in headless Chromium, from the disk: drawn, read with keys, narrow and wide.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { Browser, chromium } from '../support/chromium.ts';
import { runCommand } from '../support/command.ts';
import { newFolder } from '../support/runs.ts';

const PLOTS = ['ways', 'rungs', 'timeline'];

describe('the page of a plan in Chromium', () => {
  let browser: Browser;

  before(async function () {
    if (!chromium) {
      console.log('    skipped: no chromium (apt-get install chromium)');
      this.skip();
    }
    const file = join(newFolder(), 'plan.html');
    runCommand(['plan', '--model', 'SmolLM2-135M', '--memory', '12GB', '--sequence-length', '8192', '--html', file]);
    browser = await Browser.start();
    await browser.resize(1600);
    await browser.open(file);
  });

  after(async () => {
    await browser?.close();
  });

  for (const width of [400, 1600]) {
    it(`draws every plot within ${width} pixels, without an error`, async () => {
      await browser.resize(width);
      await browser.until(`document.querySelector('#ways canvas').getBoundingClientRect().width <= ${width}`);
      assert.ok(
        await browser.evaluate('document.scrollingElement.scrollWidth <= document.documentElement.clientWidth'),
      );
      for (const id of PLOTS) {
        const drawn = await browser.evaluate<number>(`(() => {
          const canvas = document.querySelector('#${id} canvas');
          const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
          return data.filter((value, i) => i % 4 === 3 && value > 0).length;
        })()`);
        assert.ok(drawn > 2000, `${id}: ${drawn}`);
      }
      assert.deepEqual(browser.problems, []);
    });
  }

  it('is read with keys', async () => {
    await browser.evaluate(`document.getElementById('ways').focus()`);
    await browser.key('Home');
    const readout = (id: string) => browser.evaluate<string>(`document.getElementById('${id}-readout').textContent`);
    assert.match(await readout('ways'), /^Tokens 1,138plain [\d.]+ GiBrecomputation .*it may reserve 11\.18 GiB$/);
    await browser.evaluate(`document.getElementById('rungs').focus()`);
    await browser.key('End');
    assert.match(await readout('rungs'), /^Tokens 10,240recompute none, mlpSave gateUp [\d.]+ GiB/);
  });
});
