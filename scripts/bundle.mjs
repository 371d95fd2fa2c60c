// npm run bundle: one archive that checks and times the package on a Linux machine with an NVIDIA driver and nothing else: no Node, no
// compiler, no network. `./gpu test`, `./gpu bench`, `./gpu peers` and `./gpu doctor` in it; see docs/gpu_machine.md.
import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const name = 'minisequence-gpu';
const folder = join(root, 'build', 'bundle', name);
const archive = join(root, 'build', `${name}.tar.xz`);
const node = (...args) => execFileSync(process.execPath, args, { cwd: root, stdio: 'inherit' });

node('scripts/build.mjs', '--if-stale', '--gpu-tests', '--gpu-bench');
node('scripts/build.mjs', '--if-stale', '--native', '--release');
node('scripts/prebuild.mjs');
rmSync(folder, { recursive: true, force: true });
for (const each of ['app', 'lib']) mkdirSync(join(folder, each), { recursive: true });
cpSync(join(root, 'prebuilds'), join(folder, 'prebuilds'), { recursive: true }); // where code in app/*/ looks
for (const each of ['test/fixtures', 'examples']) cpSync(join(root, each), join(folder, each), { recursive: true });

copyFileSync(join(root, 'build/cmake/minisequence_gpu_tests'), join(folder, 'app', 'native_tests'));
copyFileSync(join(root, 'build/cmake/minisequence_gpu_bench'), join(folder, 'app', 'native_bench'));

// Node itself, without what only debuggers read, and the C++ library that it and the addon were built with.
const executable = join(folder, 'node');
copyFileSync(realpathSync(process.execPath), executable);
chmodSync(executable, 0o755);
spawnSync('strip', [executable]);
for (const [, soname, path] of execFileSync('ldd', [executable], { encoding: 'utf8' }).matchAll(
  /(lib(?:stdc\+\+|gcc_s)\.so\.\d+) => (\S+)/g,
)) {
  copyFileSync(realpathSync(path), join(folder, 'lib', soname));
}

// What runs: the code and its dependencies in a file each.
const code = (file) => `import './${file}';`;
for (const [name, contents] of Object.entries({
  minisequence: code('lib/cli/main.ts'),
  encode_thread: code('lib/text/tokenizer/encode_thread.ts'), // the tokenizer's, found by its name
  bench: code('benchmarks/gpu.ts'),
  case: code('benchmarks/case.ts'),
  peers: code('benchmarks/peers.ts'),
  tests: tests(),
  ...Object.fromEntries(threads().map((path) => [basename(path, '.ts'), code(path)])),
})) {
  buildSync({
    absWorkingDir: root,
    stdin: { contents, resolveDir: root },
    outfile: join(folder, 'app', 'bin', `${name}.mjs`),
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20',
    logLevel: 'error',
    banner: {
      js: "import { createRequire as makeRequire } from 'node:module';\nconst require = makeRequire(import.meta.url);",
    },
  });
}
copyFileSync(join(root, 'package.json'), join(folder, 'package.json'));
cpSync(join(root, 'lib', 'report', 'page'), join(folder, 'app', 'bin', 'page'), { recursive: true });
cpSync(join(root, 'node_modules', 'uplot'), join(folder, 'node_modules', 'uplot'), { recursive: true });
cpSync(join(root, 'benchmarks', 'peers'), join(folder, 'app', 'bin', 'peers'), {
  recursive: true,
  filter: (path) => !path.endsWith('__pycache__'),
});

/** Modules that run on a thread of their own: they are found beside the module that starts them. */
function threads() {
  return readdirSync(join(root, 'lib'), { recursive: true })
    .filter((file) => file.endsWith('_thread.ts'))
    .map((file) => join('lib', file));
}

/** A program of all tests that take their device from test/support/devices.ts: mocha, and what its command does. */
function tests() {
  const onDevices = readdirSync(join(root, 'test'), { recursive: true })
    .filter((file) => file.endsWith('.test.ts') && !file.startsWith('slow'))
    .filter((file) => readFileSync(join(root, 'test', file), 'utf8').includes('support/devices.ts'))
    .sort();
  return `
    import Mocha from 'mocha';
    const mocha = new Mocha({ timeout: 120_000 });
    mocha.suite.emit('pre-require', globalThis, null, mocha);
    ${onDevices.map((file) => `await import('./test/${file}');`).join('\n')}
    mocha.run((numFailed) => process.exit(numFailed > 0 ? 1 : 0));`;
}

copyFileSync(join(root, 'scripts', 'gpu.sh'), join(folder, 'gpu'));
chmodSync(join(folder, 'gpu'), 0o755);

rmSync(archive, { force: true });
execFileSync('tar', ['-cJf', archive, '-C', dirname(folder), name], { env: { ...process.env, XZ_OPT: '-6 -T0' } });
console.error(`bundle: wrote ${archive}, ${(statSync(archive).size / 1e6).toFixed(1)} MB`);
