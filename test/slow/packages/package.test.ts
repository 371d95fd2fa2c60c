// The tarball that `npm pack` makes, as someone who installs it has it: contents, binaries, both ways to load it, types.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { deviceCode } from '../../support/device_code.ts';
import { newFolder, textFile, tinyRun } from '../../support/runs.ts';

const MAX_BYTES = 50e6;
const bin = (name: string) => resolve('node_modules', '.bin', name);

/** What a command prints; throws with all of it where it fails. */
function run(command: string, args: string[], cwd = '.'): string {
  try {
    return execFileSync(command, args, { cwd, encoding: 'utf8', stdio: 'pipe', maxBuffer: 2 ** 26 });
  } catch (error) {
    const { stdout, stderr } = error as { stdout: string; stderr: string };
    throw new Error(`${command} ${args.join(' ')}:\n${stdout}${stderr}`);
  }
}

/** The highest version of this name that a binary asks for: [2, 34] of GLIBC_2.34. */
function ceiling(path: string, name: string): number[] {
  const versions = [...run('objdump', ['-T', path]).matchAll(new RegExp(`\\b${name}_([\\d.]+)`, 'g'))];
  return (
    versions
      .map(([, version]) => version!.split('.').map(Number))
      .sort(compareVersions)
      .at(-1) ?? [0]
  );
}

function compareVersions(a: number[], b: number[]): number {
  const i = a.findIndex((part, i) => part !== b[i]);
  return i === -1 ? a.length - b.length : a[i]! - (b[i] ?? 0);
}

function assertAtMost(path: string, name: string, most: number[]): void {
  const version = ceiling(path, name);
  assert.ok(compareVersions(version, most) <= 0, `${path} asks for ${name}_${version.join('.')}`);
}

describe('package', () => {
  const folder = newFolder();
  const root = join(folder, 'node_modules', 'minisequence');
  const prebuilds = join(root, 'prebuilds', 'linux-x64');
  let tarball = '';

  before(() => {
    run('npm', ['pack', '--pack-destination', folder]);
    tarball = join(folder, readdirSync(folder).find((name) => name.endsWith('.tgz'))!);
    writeFileSync(join(folder, 'package.json'), '{ "private": true }');
    run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', tarball], folder);
  });

  it('has what it needs and nothing else', () => {
    assert.ok(statSync(tarball).size < MAX_BYTES, `${statSync(tarball).size} bytes`);
    const paths = run('tar', ['tf', tarball]).trim().split('\n');
    const top = new Set(paths.map((path) => path.split('/')[1]!));
    const files = ['CHANGELOG.md', 'CMakeLists.txt', 'LICENSE', 'README.md', 'THIRD_PARTY_NOTICES', 'binding.gyp'];
    const folders = ['dist', 'examples', 'native', 'prebuilds'];
    assert.deepEqual([...top].sort(), [...files, ...folders, 'package.json'].sort());
    for (const path of paths) assert.doesNotMatch(path, /\.test\.|_test\.|\.tsbuildinfo$|\.o$|\.map$/);
    for (const library of ['libdnnl.so.2', 'libgomp.so.1', 'libOpenCL.so.1']) {
      assert.ok(existsSync(join(prebuilds, library)), library);
      assert.ok(existsSync(join(prebuilds, 'licences', `${library}.txt`)), `licence of ${library}`);
    }
    const notice = readFileSync(join(prebuilds, 'licences', 'node-addon-api.txt'), 'utf8');
    assert.match(notice, /Copyright[\s\S]*Permission is hereby granted/i);
    assert.match(run('sha256sum', ['--check', '--strict', 'SHA256SUMS'], prebuilds), /minisequence\.node: OK/);
  });

  it('asks the system for no more than glibc 2.34 and the libstdc++ of GCC 12', () => {
    for (const name of readdirSync(prebuilds).filter((name) => /\.(node|so\.\d)$/.test(name))) {
      assertAtMost(join(prebuilds, name), 'GLIBC', [2, 34]);
      assertAtMost(join(prebuilds, name), 'GLIBCXX', [3, 4, 30]);
      assertAtMost(join(prebuilds, name), 'CXXABI', [1, 3, 13]);
    }
  });

  it('has device code for every GPU that it serves, and PTX for those to come', () => {
    const sources = deviceCode(join(prebuilds, 'minisequence.node'));
    assert.ok(sources.length > 10, `${sources.length} sources`);
    const architectures = ['compute_80', 'sm_100', 'sm_120', 'sm_80', 'sm_90a'];
    for (const found of sources) assert.deepEqual(found.sort(), architectures);
  });

  describe('trains', () => {
    const text = textFile('The quick brown fox jumps over the lazy dog.\n'.repeat(23));
    const outcomes: { losses: number[]; libraries: string[]; esm: boolean }[] = [];
    const loading = {
      'train.mjs': "import { parseConfig, train } from 'minisequence';",
      'train.cjs': "const { parseConfig, train } = require('minisequence');",
    };

    for (const [name, load] of Object.entries(loading)) {
      it(`loaded by ${name.endsWith('.mjs') ? 'import' : 'require'}, with the libraries that it ships`, () => {
        const config = tinyRun({ data: { files: [text] }, maxSteps: 4, outDir: join(folder, name, 'out') });
        mkdirSync(join(folder, name, 'out'), { recursive: true });
        const file = join(folder, name, name);
        writeFileSync(
          file,
          `${load}
const { readFileSync } = ${name.endsWith('.mjs') ? "await import('node:fs')" : "require('node:fs')"};
train(parseConfig(${JSON.stringify(config)})).then(({ metrics }) => {
  const maps = readFileSync('/proc/self/maps', 'utf8');
  const libraries = [...new Set(maps.match(/\\/\\S*(?:minisequence\\.node|lib(?:dnnl|gomp|OpenCL)\\.so\\S*)/g))];
  console.log(JSON.stringify({ losses: metrics.map(({ loss }) => loss), libraries }));
});
`,
        );
        const outcome = JSON.parse(run(process.execPath, [file]));
        outcomes.push(outcome);
        const [first, , , last] = outcome.losses;
        assert.equal(outcome.losses.length, 4);
        assert.ok(last < first, `losses ${outcome.losses}`);
        assert.deepEqual(
          outcome.libraries.sort(),
          ['libOpenCL.so.1', 'libdnnl.so.2', 'libgomp.so.1', 'minisequence.node']
            .map((library) => join(realpathSync(prebuilds), library))
            .sort(),
        );
      });
    }

    it('alike, bit for bit', () => assert.deepEqual(outcomes[0]!.losses, outcomes[1]!.losses));
  });

  it('runs: npx minisequence doctor --json', () => {
    const report = JSON.parse(run('npx', ['--no-install', 'minisequence', 'doctor', '--json'], folder));
    assert.equal(report.addon.path, join(realpathSync(prebuilds), 'minisequence.node'));
    assert.ok(report.cpuMemoryLimit > 0);
  });

  it('has types for CommonJS and ES modules, checked whole, without those of a browser', () => {
    const use = `
export async function main(): Promise<number> {
  const input: RunConfigInput = { model: { path: 'x' }, data: { files: ['y'] }, sequenceLength: 64, memoryLimit: '8GiB' };
  const config: RunConfig = parseConfig(input);
  using device: Device = openDevice('cpu', { threads: 1 });
  const weight: Tensor = tensor(new Float32Array([1, 2]), { device });
  const values: Float32Array = await weight.toFloat32();
  const { metrics } = await train(config, { onStep: ({ loss }, numSteps) => console.log(loss.toFixed(3), numSteps) });
  // @ts-expect-error: not an option
  parseConfig({} satisfies RunConfigInput);
  return metrics.length + values.length + memory(device).peakBytes;
}
`;
    const names =
      '{ type Device, memory, openDevice, parseConfig, type RunConfig, type RunConfigInput, Tensor, tensor, train }';
    const dynamic = `
type Package = typeof import('minisequence', { with: { 'resolution-mode': 'import' } });
export async function load(): Promise<Package['Tensor']> {
  const { Tensor, parseConfig, train } = await import('minisequence');
  await train(parseConfig({}), { onStep: ({ loss }) => console.log(loss.toFixed(3)) });
  return Tensor;
}
`;
    const consumers = [
      { module: 'node16', file: 'node16.cts', text: dynamic }, // node16 has no require() of ES modules
      { module: 'node16', file: 'node16.mts', text: `import ${names} from 'minisequence';${use}` },
      { module: 'nodenext', file: 'nodenext.cts', text: `import ${names} from 'minisequence';${use}` },
      { module: 'nodenext', file: 'nodenext.mts', text: `import ${names} from 'minisequence';${use}` },
      { module: 'esnext', file: 'bundler.ts', text: `import ${names} from 'minisequence';${use}` },
    ];
    for (const { module, file, text } of consumers) {
      writeFileSync(join(folder, file), text);
      const options = {
        module,
        moduleResolution: module === 'esnext' ? 'bundler' : module,
        target: 'es2022',
        lib: ['es2022', 'esnext.disposable'],
        types: ['node'],
        typeRoots: [resolve('node_modules', '@types')],
        strict: true,
        exactOptionalPropertyTypes: true,
        skipLibCheck: false,
        noEmit: true,
      };
      writeFileSync(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: [file] }));
      run(bin('tsc'), ['-p', folder]);
    }
  });

  it('passes publint', () => {
    run(bin('publint'), ['--strict', tarball]);
  });
});
