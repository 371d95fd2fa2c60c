// Headless Chromium, spoken to by its DevTools protocol over two pipes.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { newFolder } from './runs.ts';

/** The program's name; null where there is none. */
export const chromium =
  ['chromium', 'chromium-browser', 'google-chrome'].find((name) => spawnSync(name, ['--version']).status === 0) ?? null;

type Params = Record<string, unknown>;
interface Message {
  id?: number;
  method?: string;
  params?: Params;
  result?: Params;
  error?: { message: string };
}

/** Chromium itself warns of much that is no fault of a page, such as tests that read pixels. */
const isErrorEntry = (method: string | undefined, { entry }: Params) =>
  method === 'Log.entryAdded' && (entry as { level: string }).level === 'error';

/** One browser with one page. */
export class Browser {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, (message: Message) => void>();
  #session: string | undefined;
  #nextId = 1;
  /** Errors and warnings of the console, exceptions, and what the page asks for beside its own file. */
  readonly problems: string[] = [];
  #url = '';

  private constructor(name: string) {
    const profile = `--user-data-dir=${newFolder()}`;
    const flags = [
      '--headless=new',
      '--no-sandbox',
      '--disable-gpu',
      '--no-first-run',
      '--remote-debugging-pipe',
      profile,
    ];
    this.#process = spawn(name, flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    let text = '';
    (this.#process.stdio[4] as Readable).setEncoding('utf8').on('data', (piece: string) => {
      const messages = (text + piece).split('\0');
      text = messages.pop()!;
      for (const message of messages) this.#receive(JSON.parse(message));
    });
  }

  static async start(): Promise<Browser> {
    const browser = new Browser(chromium!);
    const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true });
    browser.#session = sessionId as string;
    for (const domain of ['Page', 'Runtime', 'Log', 'Network', 'Accessibility']) await browser.send(`${domain}.enable`);
    return browser;
  }

  /** Calls a method of the protocol. */
  async send(method: string, params: Params = {}): Promise<Params> {
    const id = this.#nextId++;
    const message = { id, method, params, sessionId: this.#session };
    const answer = new Promise<Message>((resolve) => this.#waiting.set(id, resolve));
    (this.#process.stdio[3] as Writable).write(`${JSON.stringify(message)}\0`);
    const { result, error } = await answer;
    if (error) throw new Error(`${method}: ${error.message}`);
    return result!;
  }

  #receive({ id, method, params = {}, ...rest }: Message): void {
    if (id !== undefined) {
      this.#waiting.get(id)?.({ id, ...rest });
      this.#waiting.delete(id);
    } else if (method === 'Runtime.exceptionThrown' || isErrorEntry(method, params)) {
      this.problems.push(JSON.stringify(params));
    } else if (method === 'Runtime.consoleAPICalled' && ['error', 'warning'].includes(String(params.type))) {
      this.problems.push(JSON.stringify(params.args));
    } else if (method === 'Network.requestWillBeSent') {
      const { url } = params.request as { url: string };
      if (url !== this.#url) this.problems.push(`asks for ${url}`);
    }
  }

  /** Opens a file and waits until its scripts have run. */
  async open(path: string): Promise<void> {
    this.#url = pathToFileURL(path).href;
    await this.send('Page.navigate', { url: this.#url });
    await this.until(`document.readyState === 'complete' && location.href === ${JSON.stringify(this.#url)}`);
  }

  /** The value of an expression in the page. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', { expression, returnByValue: true });
    if (exceptionDetails) throw new Error(`${expression}: ${JSON.stringify(exceptionDetails)}`);
    return (result as { value: T }).value;
  }

  /** Waits for a condition in the page. */
  async until(condition: string): Promise<void> {
    for (let tries = 0; tries < 200; tries++) {
      if (await this.evaluate<boolean>(condition).catch(() => false)) return;
      await sleep(25);
    }
    throw new Error(`the page never came to ${condition}`);
  }

  async resize(width: number): Promise<void> {
    await this.send('Emulation.setDeviceMetricsOverride', { width, height: 900, deviceScaleFactor: 1, mobile: false });
  }

  async scheme(value: 'light' | 'dark'): Promise<void> {
    await this.send('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value }] });
  }

  async mouse(type: 'mouseMoved' | 'mousePressed' | 'mouseReleased', x: number, y: number): Promise<void> {
    const button = type === 'mouseMoved' ? {} : { button: 'left', clickCount: 1 };
    await this.send('Input.dispatchMouseEvent', { type, x, y, ...button });
  }

  async key(key: string): Promise<void> {
    const text = key.length === 1 ? { text: key } : {};
    await this.send('Input.dispatchKeyEvent', { type: 'keyDown', key, ...text });
    await this.send('Input.dispatchKeyEvent', { type: 'keyUp', key });
  }

  /** What a screen reader is told: roles and names. */
  async accessible(): Promise<{ role: string; name: string }[]> {
    const { nodes } = await this.send('Accessibility.getFullAXTree');
    type Node = { ignored: boolean; role?: { value: string }; name?: { value: string } };
    return (nodes as Node[])
      .filter(({ ignored }) => !ignored)
      .map(({ role, name }) => ({ role: role?.value ?? '', name: name?.value ?? '' }));
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once('exit', resolve));
    this.#session = undefined;
    await this.send('Browser.close').catch(() => {});
    await ended;
  }
}
