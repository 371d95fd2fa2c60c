// The snippets of README and docs compile against lib/ and run on small data. A comment above a block, which readers do not see, says
// what the block is given (<!-- given … -->, TypeScript) or that it shows lines of a file (<!-- excerpt of FILE -->).
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import ts from 'typescript';
import { Decoder, decoderConfig, openDevice, saveModel } from '../lib/index.ts';
import { EARLIER, SHOWN } from '../scripts/benchmark_tables.ts';
import { differing } from '../scripts/figures.ts';
import { chart, parseTable } from '../scripts/longest_chart.ts';
import { row } from '../scripts/longest_table.ts';
import { between } from '../scripts/marked.ts';
import { newFolder, tinyLlama } from './support/runs.ts';

interface Snippet {
  /** Where it begins. */
  place: string;
  code: string;
  given: string;
  excerptOf: string | null;
}

const TSX = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
const BLOCK = /(?:<!-- (given|excerpt of)\s([\s\S]*?)-->\n)?^```(?:ts|typescript|js|javascript)\n([\s\S]*?)^```$/gm;

function snippetsOf(file: string): Snippet[] {
  const text = readFileSync(file, 'utf8');
  return [...text.matchAll(BLOCK)].map(({ index, 1: kind, 2: comment = '', 3: code = '' }) => ({
    place: `${file}:${text.slice(0, index).split('\n').length}`,
    code,
    given: kind === 'given' ? comment : '',
    excerptOf: kind === 'excerpt of' ? comment.trim() : null,
  }));
}

const files = ['README.md', 'CONTRIBUTING.md', ...readdirSync('docs').map((name) => join('docs', name))];
const snippets = files.filter((file) => file.endsWith('.md')).flatMap(snippetsOf);
const programs = snippets.filter(({ excerptOf }) => excerptOf === null);
/** One file in a snippet's place, which needs no such file on the disk. */
const sources = new Map(
  programs.map(({ place, given, code }) => [resolve(`${place.replace(/\W/g, '_')}.mts`), `${given}\n${code}`]),
);
/** A snippet that is wrong. */
const WRONG = resolve('wrong.mts');

/** The compiler, with the settings of this package, over the snippets and the wrong one: it reads lib/ once. */
function compiler(): ts.Program {
  const files = new Map(sources).set(
    WRONG,
    "import { openDevice } from 'minisequence';\nopenDevice('cpu', { memoryLimits: 8 });\n",
  );
  const { config } = ts.readConfigFile('tsconfig.json', ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, '.');
  const settings = { ...options, rootDir: '.', noEmit: true, declaration: false, noUnusedLocals: false };
  const host = ts.createCompilerHost(settings);
  const { readFile, fileExists, getSourceFile } = host;
  host.readFile = (name) => files.get(resolve(name)) ?? readFile(name);
  host.fileExists = (name) => files.has(resolve(name)) || fileExists(name);
  host.getSourceFile = (name, version, ...rest) => {
    const source = files.get(resolve(name));
    return source === undefined
      ? getSourceFile(name, version, ...rest)
      : ts.createSourceFile(name, source, version, true);
  };
  return ts.createProgram([...files.keys()], settings, host);
}

/** What the compiler has against these files. */
function problemsOf(program: ts.Program, paths: Iterable<string>): string[] {
  const found = [...program.getOptionsDiagnostics(), ...program.getGlobalDiagnostics()];
  for (const path of paths) {
    const file = program.getSourceFile(path);
    assert.ok(file, path);
    found.push(...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file));
  }
  return found.map(
    ({ file, messageText }) => `${file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`,
  );
}

/** A folder with the models and data that the snippets name, small. */
async function makeWorld(): Promise<string> {
  const folder = newFolder();
  for (const name of ['llama', 'qwen3-0.6b']) {
    using device = openDevice('cpu');
    using model = new Decoder(decoderConfig({ ...tinyLlama, vocab_size: 1024 }), { device }).initialize(1);
    mkdirSync(join(folder, 'models', name), { recursive: true });
    await saveModel(model, join(folder, 'models', name), { tokenizerFrom: 'test/fixtures/tokenizer' });
  }
  const messages = [
    { role: 'user', content: 'What is 1 + 1?' },
    { role: 'assistant', content: '2.' },
  ];
  writeFileSync(join(folder, 'chats.jsonl'), `${JSON.stringify({ messages })}\n`.repeat(20));
  return folder;
}

describe('snippets of README and docs', () => {
  let world = '';

  before(async () => {
    world = await makeWorld();
  });

  it('are found', () => {
    assert.ok(snippets.filter(({ place }) => place.startsWith('README.md')).length >= 3);
  });

  it('compile, and would not with an option that is not there', () => {
    const program = compiler();
    assert.deepEqual(problemsOf(program, sources.keys()), []);
    assert.match(problemsOf(program, [WRONG]).join(), /'memoryLimits' does not exist/);
  });

  for (const [i, { place }] of programs.entries()) {
    it(`run: ${place}`, () => {
      const [path, source] = [...sources][i]!;
      const script = join(world, path.split('/').at(-1)!);
      const library = new URL('../lib/index.ts', import.meta.url).href;
      writeFileSync(script, source.replaceAll("'minisequence'", `'${library}'`));
      execFileSync(process.execPath, [`--import=${TSX}`, script], { cwd: world, stdio: 'pipe' });
    });
  }

  for (const { place, code, excerptOf } of snippets) {
    if (excerptOf === null) continue;
    it(`show lines of ${excerptOf}: ${place}`, () => {
      const text = readFileSync(excerptOf, 'utf8').replaceAll(/\s+/g, ' ');
      const shown = code.split('\n').map((line) => line.replace(/ *\/\/.*$/, '').trim());
      for (const line of shown) if (line !== '…') assert.ok(text.includes(line), `${excerptOf} has no line ${line}`);
    });
  }
});

describe('figures of README and docs', () => {
  it('are those of benchmarks/results, and the chart is that of its table', () => {
    assert.deepEqual(differing(), []);
  });

  it('would be told apart from others: each made part depends on what it is made from', () => {
    const text = readFileSync('docs/benchmarks.md', 'utf8');
    const { models, methods } = parseTable(between(text, 'longest', 'docs/benchmarks.md'));
    assert.deepEqual([models.length, methods.length], [5, 6]);
    assert.notEqual(chart({ methods, models: models.slice(1) }), chart({ methods, models }));
    assert.throws(() => between(text, 'nothing', 'docs/benchmarks.md'), /has no <!-- made: nothing -->/);
  });

  it('leave out no file of benchmarks/results', () => {
    const names = readdirSync('benchmarks/results').map((name) => name.replace(/\.json$/, ''));
    assert.deepEqual(names.sort(), [...SHOWN, ...EARLIER].sort());
  });

  it('of the longest sequences are what npm run table makes: a row of it', () => {
    assert.ok(readFileSync('docs/benchmarks.md', 'utf8').includes(`\n${row('Qwen2-7B')}\n`));
  });
});
