// report.html in headless Chromium, from the disk: drawn, read with a pointer, with keys and aloud, narrow and wide, dark and light.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Browser, chromium } from '../support/chromium.ts';
import { run, tinyRun } from '../support/runs.ts';

const PLOTS = ['loss', 'learning-rate', 'gradient-norm', 'tokens-per-second', 'timeline'];
const HOSTILE = '</script><script>window.isBroken = true</script><img src=x onerror="window.isBroken = true">';

describe('report.html in Chromium', () => {
  let browser: Browser;

  before(async function () {
    if (!chromium) {
      console.log('    skipped: no chromium (apt-get install chromium)');
      this.skip();
    }
    const data = { ...tinyRun().data, validation: { fraction: 0.2 } };
    const samples = { everySteps: 6, prompts: [HOSTILE], maxTokens: 2 };
    const { outDir } = await run({ maxSteps: 12, data, evaluation: { everySteps: 3 }, samples });
    browser = await Browser.start();
    await browser.resize(1600);
    await browser.open(join(outDir, 'report.html'));
  });

  after(async () => {
    await browser?.close();
  });

  const readout = (id: string) => browser.evaluate<string>(`document.getElementById('${id}-readout').textContent`);
  /** Pixels of a plot that are not the background, and a sum over all. */
  const pixels = (id: string) =>
    browser.evaluate<{ drawn: number; sum: number }>(`(() => {
      const canvas = document.querySelector('#${id} canvas');
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      let [drawn, sum] = [0, 0];
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] > 0) drawn += 1;
        sum = (sum + data[i] * 3 + data[i + 1] * 5 + data[i + 2] * 7) % 2147483647;
      }
      return { drawn, sum };
    })()`);
  /** A point of a plot's inner area, from 0 to 1, where it is on the screen. */
  const pointOf = async (id: string, x: number) => {
    const { left, top, width, height } = await browser.evaluate<DOMRectLike>(`(() => {
      const over = document.querySelector('#${id} .u-over');
      over.scrollIntoView({ block: 'center' });
      const { left, top, width, height } = over.getBoundingClientRect();
      return { left, top, width, height };
    })()`);
    return [left + x * width, top + height / 2] as const;
  };
  interface DOMRectLike {
    left: number;
    top: number;
    width: number;
    height: number;
  }

  it('opens from the disk, asks for nothing else, and has no error', async () => {
    assert.equal(await browser.evaluate('location.protocol'), 'file:');
    assert.deepEqual(browser.problems, []);
  });

  it('draws every plot', async () => {
    for (const id of PLOTS) assert.ok((await pixels(id)).drawn > 2000, id);
  });

  it('runs nothing that stands in a sample, and shows it', async () => {
    assert.equal(await browser.evaluate('window.isBroken === undefined && document.images.length === 0'), true);
    assert.ok((await browser.evaluate<string>('document.body.innerText')).includes(HOSTILE));
  });

  it('shows the values under the pointer: of a step, and the tensors of a moment', async () => {
    assert.match(await readout('loss'), /^Step 12Loss \d\.\d{4}Validation \d\.\d{4}$/);
    await browser.mouse('mouseMoved', ...(await pointOf('loss', 0.5)));
    await browser.until(`document.getElementById('loss-readout').textContent.startsWith('Step 6')`);
    assert.match(await readout('tokens-per-second'), /^Step 6/, 'plots over the same steps are read together');
    assert.match(await readout('timeline'), /^peak, at \d+total /);
    await browser.mouse('mouseMoved', ...(await pointOf('timeline', 0.02)));
    await browser.until(`document.getElementById('timeline-readout').textContent.startsWith('Allocations')`);
    const items = await browser.evaluate<string[]>(
      `[...document.querySelectorAll('#timeline-readout li')].map((item) => item.textContent)`,
    );
    assert.ok(
      items.length > 2 && items.every((item) => /^[\d.]+ \w+, \w+, [\d,]+ x float32 \(/.test(item)),
      items.join('; '),
    );
  });

  it('is zoomed by dragging, and shown whole by a double click', async () => {
    const first = async () => {
      await browser.evaluate(`document.getElementById('loss').focus()`);
      await browser.key('Home');
      return Number(/^Step (\d+)/.exec(await readout('loss'))![1]);
    };
    assert.equal(await first(), 1);
    const [from, to] = [await pointOf('loss', 0.5), await pointOf('loss', 0.9)];
    await browser.mouse('mouseMoved', ...from);
    await browser.mouse('mousePressed', ...from);
    await browser.mouse('mouseMoved', ...to);
    await browser.mouse('mouseReleased', ...to);
    assert.ok((await first()) > 5);
    await browser.key('0');
    assert.equal(await first(), 1);
  });

  it('is read and zoomed with keys', async () => {
    await browser.mouse('mouseMoved', 1, 1); // over no plot, also when the page moves
    await browser.evaluate(`document.getElementById('gradient-norm').focus()`);
    await browser.key('Home');
    for (const key of ['ArrowRight', 'ArrowRight', 'ArrowLeft']) await browser.key(key);
    assert.match(await readout('gradient-norm'), /^Step 2Gradient norm before clipping [\d.]+$/);
    await browser.key('End');
    assert.match(await readout('gradient-norm'), /^Step 12/);
    await browser.key('+');
    await browser.key('Home');
    assert.match(await readout('gradient-norm'), /^Step 4/);
    await browser.key('Escape');
    await browser.key('Home');
    assert.match(await readout('gradient-norm'), /^Step 1G/);
    assert.equal(
      await browser.evaluate(`document.getElementById('gradient-norm-readout').getAttribute('aria-live')`),
      'polite',
    );
  });

  it('tells a screen reader its headings, plots and tables', async () => {
    await browser.evaluate(`for (const details of document.querySelectorAll('details')) details.open = true`);
    const nodes = await browser.accessible();
    const named = (wanted: string) => nodes.filter(({ role }) => role === wanted).map(({ name }) => name);
    const headings = [
      'Loss',
      'Learning rate',
      'Gradient norm before clipping',
      'Tokens a second',
      'Memory through one step',
    ];
    for (const name of [...headings, 'Plan and measurement', 'Samples', 'Configuration', 'Machine, model and data'])
      assert.ok(named('heading').includes(name), name);
    for (const name of headings) {
      assert.ok(
        named('table').some((table) => table.startsWith(name)),
        `a table of ${name}`,
      );
      assert.ok(
        named('group').some((group) => group.startsWith(`${name}. `)),
        `a plot of ${name}`,
      );
    }
    assert.ok(named('rowheader').includes('12'), 'the row of the last step');
  });

  for (const width of [400, 1600]) {
    it(`fits ${width} pixels`, async () => {
      await browser.resize(width);
      await browser.until(`document.querySelector('#loss canvas').getBoundingClientRect().width <= ${width}`);
      assert.ok(
        await browser.evaluate('document.scrollingElement.scrollWidth <= document.documentElement.clientWidth'),
      );
      const widths = await browser.evaluate<number[]>(
        `[...document.querySelectorAll('canvas')].map((canvas) => canvas.getBoundingClientRect().width)`,
      );
      assert.ok(
        widths.every((each) => each >= 250 && each <= width),
        widths.join(),
      );
      for (const id of PLOTS) assert.ok((await pixels(id)).drawn > 2000, id);
    });
  }

  it('is drawn anew, and has contrast enough, dark and light', async () => {
    const sums = new Set<number>();
    for (const scheme of ['light', 'dark'] as const) {
      await browser.scheme(scheme);
      await browser.until(`matchMedia('(prefers-color-scheme: ${scheme})').matches`);
      for (let tries = 0; tries < 40; tries++) {
        const { sum } = await pixels('loss');
        const isNew = !sums.has(sum);
        sums.add(sum);
        if (isNew) break;
        await sleep(25); // until the next frame
      }
      const contrasts = await browser.evaluate<number[]>(`(() => {
        const light = (text) => {
          const [r, g, b] = text.match(/[\\d.]+/g).map((value) => Number(value) / 255)
            .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const of = (selector, property) => light(getComputedStyle(document.querySelector(selector))[property]);
        const contrast = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        const [page, panel] = [of('body', 'backgroundColor'), of('section', 'backgroundColor')];
        const marks = [...document.querySelectorAll('#timeline-readout i')].map((mark) => light(getComputedStyle(mark).backgroundColor));
        return [contrast(of('h1', 'color'), page), contrast(of('figcaption p', 'color'), panel), contrast(of('td', 'color'), panel),
          ...marks.map((mark) => 1.5 * contrast(mark, panel))];
      })()`);
      for (const contrast of contrasts) assert.ok(contrast >= 4.5, `${scheme}: ${contrasts.join(', ')}`);
    }
    assert.equal(sums.size, 2);
    assert.deepEqual(browser.problems, []);
  });
});
