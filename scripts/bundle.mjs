// npm run bundle: one archive that checks and times the package on a Linux machine with an NVIDIA driver and nothing else: no Node, no
// compiler, no network. `./gpu test`, `./gpu bench`, `./gpu peers` and `./gpu doctor` in it; see docs/gpu_machine.md.
import { execFileSync, spawnSync } from 'node:child_process';
import { chmodSync, copyFileSync, cpSync, mkdirSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const name = 'minisequence-gpu';
const folder = join(root, 'build', 'bundle', name);
const archive = join(root, 'build', `${name}.tar.xz`);
const node = (...args) => execFileSync(process.execPath, args, { cwd: root, stdio: 'inherit' });

node('scripts/build.mjs', '--if-stale');
node('scripts/prebuild.mjs');
rmSync(folder, { recursive: true, force: true });
mkdirSync(join(folder, 'lib'), { recursive: true });
cpSync(join(root, 'prebuilds'), join(folder, 'app', 'prebuilds'), { recursive: true }); // where code in app/*/ looks
cpSync(join(root, 'test', 'fixtures', 'parity'), join(folder, 'parity'), { recursive: true });

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
for (const [entry, to] of Object.entries({
  'lib/cli/main.ts': 'minisequence',
  'test/gpu/check.ts': 'check',
  'benchmarks/gpu.ts': 'bench',
  'benchmarks/case.ts': 'case',
  'benchmarks/peers.ts': 'peers',
})) {
  buildSync({
    absWorkingDir: root,
    entryPoints: [entry],
    outfile: join(folder, 'app', 'bin', `${to}.mjs`),
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
cpSync(join(root, 'benchmarks', 'peers'), join(folder, 'app', 'bin', 'peers'), {
  recursive: true,
  filter: (path) => !path.endsWith('__pycache__'),
});

writeFileSync(
  join(folder, 'gpu'),
  `#!/bin/sh
# ./gpu test [DEVICE] · ./gpu bench [DEVICE] · ./gpu peers [OPTIONS] · ./gpu doctor · ./gpu minisequence COMMAND …    DEVICE: cuda (default), cuda:N or cpu
here=$(cd "$(dirname "$0")" && pwd)
export LD_LIBRARY_PATH="$here/lib\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
command=$1
[ $# -gt 0 ] && shift
case "$command" in
  test) exec "$here/node" "$here/app/bin/check.mjs" "$here/parity" "\${1:-cuda}" ;;
  bench) exec "$here/node" "$here/app/bin/bench.mjs" "\${1:-cuda}" ;;
  peers) exec "$here/node" "$here/app/bin/peers.mjs" "$@" ;;
  doctor) exec "$here/node" "$here/app/bin/minisequence.mjs" doctor "$@" ;;
  minisequence) exec "$here/node" "$here/app/bin/minisequence.mjs" "$@" ;;
  *) sed -n 2p "$0" >&2; exit 2 ;;
esac
`,
  { mode: 0o755 },
);

rmSync(archive, { force: true });
execFileSync('tar', ['-cJf', archive, '-C', dirname(folder), name], { env: { ...process.env, XZ_OPT: '-6 -T0' } });
console.error(`bundle: wrote ${archive}, ${(statSync(archive).size / 1e6).toFixed(1)} MB`);
