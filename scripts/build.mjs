// Builds the addon (CMake, driven by cmake-js) and the TypeScript.
//   --if-stale   builds only what is older than its sources
//   --native     the addon alone
//   --release    the addon for all GPUs that a package serves, into build/package
//   --tests      the native tests too, plain and with AddressSanitizer and UBSan
//   --gpu-tests  the native tests that run on a GPU too
//   --bench      the native benchmark runner too
//   --gpu-bench  the one of CUDA ops too
//   --cpu        without the CUDA half, even where nvcc is found
import { spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, readdirSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const flags = new Set(process.argv.slice(2));
const jobs = String(availableParallelism());

function run(command, args) {
  console.error(`$ ${command} ${args.join(' ')}`);
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (error) throw error;
  if (status !== 0) process.exit(status ?? 1);
}

const bin = (name) => join(root, 'node_modules', '.bin', name);

/** The newest time of change below these files and folders, in ms. */
function newest(paths) {
  let latest = 0;
  for (const path of paths.map((path) => join(root, path))) {
    if (!existsSync(path)) continue;
    const files = statSync(path).isDirectory()
      ? readdirSync(path, { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => join(entry.parentPath ?? entry.path, entry.name))
      : [path];
    for (const file of files) latest = Math.max(latest, statSync(file).mtimeMs);
  }
  return latest;
}

/** Whether `output` is to be made again from `sources`. */
function stale(output, sources) {
  if (!flags.has('--if-stale')) return true;
  const path = join(root, output);
  return !existsSync(path) || statSync(path).mtimeMs < newest(sources);
}

/** Removes a build folder that was made for a checkout in another folder, which CMake would refuse. */
function forgetMoved(folder) {
  const cache = join(root, folder, 'CMakeCache.txt');
  if (!existsSync(cache)) return;
  const home = /^CMAKE_HOME_DIRECTORY:INTERNAL=(.*)$/m.exec(readFileSync(cache, 'utf8'))?.[1];
  if (home !== undefined && realpathSync(root) !== home && root !== home) {
    console.error(`${folder} was made for ${home}: building from scratch`);
    rmSync(join(root, folder), { recursive: true, force: true });
  }
}
for (const folder of ['cmake', 'cmake-release', 'tests', 'sanitized', 'bench']) forgetMoved(join('build', folder));

const native = ['native', 'CMakeLists.txt', 'package-lock.json'];

const isRelease = flags.has('--release');

if (stale(isRelease ? 'build/package/minisequence.node' : 'build/Release/minisequence.node', native)) {
  const options = isRelease
    ? ['--out', 'build/cmake-release', '--CDMST_CUDA=ON', '--CDMST_CUDA_ARCHITECTURES=release']
    : ['--out', 'build/cmake', `--CDMST_CUDA=${flags.has('--cpu') ? 'OFF' : 'AUTO'}`];
  const where = ['--parallel', jobs, ...options];
  run(bin('cmake-js'), ['configure', ...where]);
  run(bin('cmake-js'), ['build', ...where]);
}

if (!flags.has('--native') && stale('dist/index.js', ['lib', 'tsconfig.json', 'package-lock.json'])) {
  rmSync(join(root, 'dist'), { recursive: true, force: true });
  run(bin('tsc'), ['-p', '.']);
  cpSync(join(root, 'lib/report/page'), join(root, 'dist/report/page'), { recursive: true });
  chmodSync(join(root, 'dist/cli/main.js'), 0o755); // executable, also where npx calls it through a link
}

function cmake(folder, target, options) {
  run('cmake', ['-S', '.', '-B', folder, '-DMST_ADDON=OFF', '-DMST_CUDA=OFF', ...options]);
  run('cmake', ['--build', folder, '--target', target, '--parallel', jobs]);
}

if (flags.has('--tests')) {
  const sources = [...native, 'test/native'];
  if (stale('build/tests/minisequence_tests', sources)) {
    cmake('build/tests', 'minisequence_tests', ['-DMST_TESTS=ON']);
  }
  if (stale('build/sanitized/minisequence_tests', sources)) {
    const options = ['-DMST_TESTS=ON', '-DMST_SANITIZE=address,undefined', '-DCMAKE_BUILD_TYPE=RelWithDebInfo'];
    cmake('build/sanitized', 'minisequence_tests', options);
  }
}

function cmakeWithCuda(target, option) {
  run('cmake', ['-S', '.', '-B', 'build/cmake', option]);
  run('cmake', ['--build', 'build/cmake', '--target', target, '--parallel', jobs]);
}

/** Whether build/cmake has the CUDA half. */
function hasCuda() {
  return readFileSync(join(root, 'build/cmake/CMakeCache.txt'), 'utf8').includes('\nCMAKE_CUDA_FLAGS:');
}

if (
  flags.has('--tests') &&
  stale('build/faults/minisequence.node', [...native, 'test/native/fakes/cuda_runtime.cpp']) &&
  hasCuda()
) {
  run('cmake', ['-S', '.', '-B', 'build/cmake', '-DMST_FAULT_TESTS=ON']);
  run('cmake', ['--build', 'build/cmake', '--target', 'minisequence_faults', '--parallel', jobs]);
}

if (flags.has('--gpu-tests') && stale('build/cmake/minisequence_gpu_tests', [...native, 'test/native'])) {
  cmakeWithCuda('minisequence_gpu_tests', '-DMST_GPU_TESTS=ON');
}

if (flags.has('--gpu-bench') && stale('build/cmake/minisequence_gpu_bench', [...native, 'benchmarks/native/gpu'])) {
  cmakeWithCuda('minisequence_gpu_bench', '-DMST_GPU_BENCHMARKS=ON');
}

if (flags.has('--bench') && stale('build/bench/minisequence_bench', [...native, 'benchmarks/native'])) {
  cmake('build/bench', 'minisequence_bench', ['-DMST_BENCHMARKS=ON']);
}
