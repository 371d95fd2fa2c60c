// What goes wrong with CUDA, on machines without a GPU: drivers and libraries that are fakes, and the addon on a CUDA runtime of our
// own (test/native/fakes). Each fault has its own message, and nothing but the device is lost by it.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { env as environment, execPath } from 'node:process';
import { addon, type CudaReport } from '../../lib/runtime/native.ts';
import { newFolder, textFile, tinyRun } from '../support/runs.ts';

type Environment = Record<string, string>;

/** Compiles a fake library and returns its path. */
function library(name: string, source: string, ...macros: string[]): string {
  const path = join(newFolder(), name);
  const flags = ['-std=c++20', '-shared', '-fPIC', ...macros.map((macro) => `-D${macro}`)];
  execFileSync('c++', [...flags, '-o', path, join('test/native/fakes', source)], { stdio: 'pipe' });
  return path;
}

/** Where the loader finds these libraries first. */
const searching = (...paths: string[]): Environment => ({ LD_LIBRARY_PATH: paths.map(dirname).join(':') });

/** What a program prints as JSON: `report` in it does so. It must come to a good end. */
function run(root: string, program: string, env: Environment = {}): { result: never; warnings: string } {
  const code = `
    import { writeSync } from 'node:fs';
    import * as ms from '${join(root, 'dist/index.js')}';
    const report = (value) => writeSync(1, JSON.stringify(value));
    const messageOf = async (fn) => { try { await fn(); return 'no error'; } catch (error) { return error.message; } };
    ${program}`;
  const { status, stdout, stderr } = spawnSync(execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    env: { ...environment, ...env },
    timeout: 30_000,
  });
  assert.equal(status, 0, stderr);
  return { result: JSON.parse(stdout) as never, warnings: stderr };
}

interface Report {
  cuda: CudaReport;
  missing: { what: string; remedy: string }[];
}

/** `minisequence doctor`: its lines and its JSON. */
function doctor(root: string, env: Environment): { text: string; report: Report } {
  const print = (...args: string[]) =>
    execFileSync(execPath, [join(root, 'dist/cli/main.js'), 'doctor', ...args], {
      encoding: 'utf8',
      env: { ...environment, ...env },
    });
  return { text: print(), report: JSON.parse(print('--json')) };
}

describe('faults of CUDA', () => {
  const real = resolve('.');
  /** The package with the addon on the fake runtime. */
  const fake = newFolder();

  before(function () {
    if (!addon().describe_cuda().built) this.skip();
    cpSync('dist', join(fake, 'dist'), { recursive: true });
    copyFileSync('package.json', join(fake, 'package.json'));
    symlinkSync(resolve('node_modules'), join(fake, 'node_modules'));
    const prebuilds = join(fake, 'prebuilds', `${process.platform}-${process.arch}`);
    mkdirSync(prebuilds, { recursive: true });
    copyFileSync('build/faults/minisequence.node', join(prebuilds, 'minisequence.node'));
  });

  describe('the driver', () => {
    let driver = '';
    before(() => {
      driver = library('libcuda.so.1', 'driver.cpp');
    });
    const faults: [string, Environment, string][] = [
      [
        'that is too old',
        { FAKE_DRIVER_VERSION: '12080' },
        'the NVIDIA driver supports CUDA 12.8, this build needs 13.0: install driver 580 or newer',
      ],
      [
        'without a device',
        { FAKE_DRIVER_INIT: '100' },
        'the NVIDIA driver shows no device; nvidia-smi -L lists them, and CUDA_VISIBLE_DEVICES hides some',
      ],
      [
        'that does not fit its kernel module',
        { FAKE_DRIVER_INIT: '803' },
        'no CUDA device can be used: system has unsupported display driver / cuda driver combination (cudaErrorSystemDriverMismatch)',
      ],
    ];
    for (const [what, env, message] of faults) {
      it(`${what} is refused with a reason; 'auto' is the CPU, with one warning`, () =>
        refuses(message, searching(driver), env));
    }
    it('that is not there is refused with a reason', () => {
      const nothing = join(newFolder(), 'libcuda.so.1');
      writeFileSync(nothing, '');
      refuses('no NVIDIA driver was found; CUDA 13.0 needs driver 580 or newer', searching(nothing));
    });

    function refuses(message: string, ...env: Environment[]): void {
      const all = Object.assign({}, ...env);
      const { result, warnings } = run(
        real,
        `const opening = await messageOf(() => ms.openDevice('cuda'));
         report([opening, ms.getDevice('auto').name, ms.openDevice('auto').name]);`,
        all,
      );
      assert.deepEqual(result, [`cuda:0: ${message}`, 'cpu', 'cpu']);
      assert.equal(warnings.split('MINISEQUENCE_NO_CUDA').length, 2, warnings);
      assert.ok(warnings.includes(`device 'auto' is the CPU: ${message}`), warnings);
      const { text, report } = doctor(real, all);
      assert.equal(report.cuda.problem, message);
      assert.match(text, new RegExp(`^missing +${message.replace(/[.()]/g, '\\$&')}$`, 'm'));
    }
  });

  describe('a device', () => {
    it('that is older than the kernels is refused', () => {
      const env = { FAKE_CUDA_COMPUTE: '75' };
      const { result } = run(fake, "report(await messageOf(() => ms.openDevice('cuda')));", env);
      assert.equal(result, 'cuda:0: Fake GPU (compute 7.5) is too old: compute 8.0 or newer is needed');
    });

    it('that the build has no code for is refused, and the build named that has', () => {
      const env = { FAKE_CUDA_COMPUTE: '121' };
      const { result } = run(fake, "report(await messageOf(() => ms.openDevice('cuda')));", env);
      const { architectures } = addon().describe_cuda();
      const problem = `the build has no code for Fake GPU (compute 12.1), only for ${architectures}; build with -DMST_CUDA_ARCHITECTURES=121`;
      assert.equal(result, `cuda:0: ${problem}`);
      const { text, report } = doctor(fake, env);
      assert.equal(report.cuda.problem, problem);
      assert.match(text, /^device +cuda:0, Fake GPU, compute 12\.1, cannot be used$/m);
      assert.match(text, /^missing +cuda:0: the build has no code for Fake GPU/m);
    });

    it('that does not exist is refused', () => {
      const { result } = run(fake, "report(await messageOf(() => ms.openDevice('cuda:3')));");
      assert.equal(result, 'cuda:3: this machine has 1 device');
    });

    it('that was lost before it was opened is refused with the error', () => {
      const { result } = run(fake, "report(await messageOf(() => ms.openDevice('cuda')));", { FAKE_CUDA_LOSS: '214' });
      assert.equal(
        result,
        'cuda:0: Fake GPU (compute 8.0) cannot be used: uncorrectable ECC error encountered (cudaErrorECCUncorrectable)',
      );
    });

    const lost =
      /^cuda:0: the device was lost: (unspecified launch failure \(cudaErrorLaunchFailure\)|uncorrectable ECC error encountered \(cudaErrorECCUncorrectable\))\. First error: cuda: cuda\w+\(.*\): .*\. The contents of its memory are lost, and this process cannot use the device again; other devices are not affected\. Restart the process from the last checkpoint$/;
    for (const error of ['214', '719']) {
      it(`that is lost (${error}) rejects everything from then on, and the CPU goes on`, () => {
        const { result } = run(
          fake,
          `const device = ms.openDevice('cuda');
           const x = ms.tensor([1, 2, 3], { device });
           const before = [...await x.data()];
           process.env.FAKE_CUDA_LOSS = '${error}';
           const errors = [];
           const note = (error) => void errors.push(error);
           for (let i = 0; i < 3; i++) await ms.scale(x, 2).data().catch(note);
           await device.synchronize().catch(note);
           try { ms.zeros([2 ** 24], { device }); } catch (error) { note(error); }
           const cpu = [...await ms.scale(ms.tensor([1, 2, 3]), 2).data()];
           device.close();
           const again = await messageOf(() => ms.openDevice('cuda'));
           report({ before, errors: errors.map(({ code, message }) => ({ code, message })), cpu, again });`,
        ) as {
          result: { before: number[]; errors: { code: string; message: string }[]; cpu: number[]; again: string };
        };
        assert.deepEqual(result.before, [1, 2, 3]);
        assert.equal(result.errors.length, 5);
        for (const { code, message } of result.errors) {
          assert.equal(code, 'DEVICE_LOST');
          assert.match(message, lost);
          assert.equal(message, result.errors[0]!.message);
        }
        assert.deepEqual(result.cpu, [2, 4, 6]);
        assert.match(result.again, /^cuda:0: Fake GPU \(compute 8\.0\) cannot be used/);
      });
    }

    it('that is lost shows where memory is asked for, if that is what comes first', () => {
      const { result } = run(
        fake,
        `const device = ms.openDevice('cuda');
         process.env.FAKE_CUDA_LOSS = '719';
         report([await messageOf(() => ms.zeros([2 ** 24], { device })), await messageOf(() => device.synchronize())]);`,
      ) as { result: string[] };
      assert.match(
        result[0]!,
        /^cuda:0: the device was lost: .* First error: cuda: cuMemCreate: unspecified launch failure/,
      );
      assert.equal(result[1], result[0]);
    });

    it('that is lost in the middle of training ends the run, not the process', () => {
      const config = tinyRun({
        data: { files: [textFile('A quick brown fox.\n'.repeat(50))] },
        maxSteps: 9,
        device: 'cuda',
      });
      const { result } = run(
        fake,
        `let numSteps = 0;
         const onStep = () => { if (++numSteps === 3) process.env.FAKE_CUDA_LOSS = '214'; };
         const code = await ms.train(ms.parseConfig(${JSON.stringify(config)}), { onStep }).then(() => 'none', (error) => error.code);
         report({ numSteps, code });`,
      ) as { result: { numSteps: number; code: string } };
      assert.equal(result.code, 'DEVICE_LOST');
      assert.ok(result.numSteps >= 3 && result.numSteps < 6, `${result.numSteps} steps`);
    });

    it('goes on after an op that failed alone', () => {
      const { result } = run(
        fake,
        `const device = ms.openDevice('cuda');
         const x = ms.tensor([1, 2, 3], { device });
         process.env.FAKE_CUDA_FAILURE = '9';
         const failed = ms.scale(x, 2);
         const failure = await messageOf(() => failed.data());
         delete process.env.FAKE_CUDA_FAILURE;
         const dependent = await messageOf(() => ms.add(x, failed).data());
         const again = await messageOf(() => failed.data());
         report({ failure, dependent, again, x: [...await x.data()], y: await messageOf(() => ms.scale(x, 2).data()) });`,
      ) as { result: { failure: string; dependent: string; again: string; x: number[]; y: string } };
      assert.match(
        result.failure,
        /^cuda: .*: invalid configuration argument \(in scale of float32\(3\) float32\(3\)\)$/,
      );
      assert.deepEqual([result.dependent, result.again], [result.failure, result.failure]);
      assert.deepEqual([result.x, result.y], [[1, 2, 3], 'no error']);
    });

    it('opens for a user without a home, who has no folder for timings', () => {
      const { result } = run(
        fake,
        `const { default: os } = await import('node:os');
         const { syncBuiltinESMExports } = await import('node:module');
         os.homedir = () => { throw new Error('uv_os_homedir returned ENOENT'); };
         syncBuiltinESMExports();
         report(ms.openDevice('cuda').name);`,
        { XDG_CACHE_HOME: '' },
      );
      assert.equal(result, 'cuda:0');
    });

    it('that is full throws OutOfMemoryError with the memory in use, and a smaller allocation succeeds', () => {
      const { result } = run(
        fake,
        `const device = ms.openDevice('cuda', { memoryLimit: 2 ** 40 });
         const x = ms.zeros([2 ** 20], { device });
         try { ms.zeros([2 ** 28], { device }); } catch ({ name, code, message, breakdown }) {
           const y = ms.zeros([2 ** 20], { device });
           report({ name, code, message, breakdown, y: (await y.data()).length });
         }`,
      ) as { result: { name: string; code: string; message: string; breakdown: { other: number }; y: number } };
      assert.deepEqual([result.name, result.code], ['OutOfMemoryError', 'OUT_OF_MEMORY']);
      assert.match(result.message, /^cuda:0: out of memory: 1\.00 GiB more do not fit into .*Held: other 4\.00 MiB\./);
      assert.deepEqual([result.breakdown.other, result.y], [2 ** 22, 2 ** 20]);
    });

    it('pins memory of the host while the event loop turns', () => {
      const file = join(newFolder(), 'go on');
      const { result } = run(
        fake,
        `import { writeFileSync } from 'node:fs';
         const device = ms.openDevice('cuda', { hostMemoryLimit: 2 ** 20 });
         let numTurns = 0;
         const turn = () => { if (++numTurns === 5) writeFileSync(${JSON.stringify(file)}, ''); else setImmediate(turn); };
         setImmediate(turn);
         await device.host.prepare(2 ** 20);
         report({ numTurns, bytes: device.memory().hostBytes });`,
        { FAKE_CUDA_PINNING_WAITS: file },
      );
      assert.deepEqual(result, { numTurns: 5, bytes: 2 ** 20 });
    });

    it('gives back all memory that it took when it is closed', () => {
      const { result } = run(
        fake,
        `const free = () => { const device = ms.openDevice('cuda'); device.close(); return device.memoryLimit; };
         const before = free();
         const device = ms.openDevice('cuda');
         ms.zeros([2 ** 24], { device });
         const during = free();
         device.close();
         report({ taken: before - during, left: before - free() });`,
      ) as { result: { taken: number; left: number } };
      assert.ok(result.taken >= 2 ** 26, `${result.taken} bytes`);
      assert.equal(result.left, 0);
    });
  });

  describe('a library', () => {
    it('cuBLASLt that is not there costs one warning; the built-in kernels then compute products', () => {
      const { result, warnings } = run(
        fake,
        `for (let i = 0; i < 2; i++) { const device = ms.openDevice('cuda'); await device.synchronize(); device.close(); }
         report('done');`,
      );
      assert.equal(result, 'done');
      assert.equal(warnings.split('MINISEQUENCE_BUILTIN_MATMUL').length, 2, warnings);
      assert.match(warnings, /matrix products run in the built-in kernels: cuBLASLt 13 or 12 was not found/);
      assert.equal(run(fake, "ms.openDevice('cuda', { matmul: 'builtin' }); report(1);").warnings, '');
    });

    it('cuBLASLt that lacks a function is named with it, by doctor and by the warning', () => {
      const path = library('libcublasLt.so.13', 'libraries.cpp', 'CUBLASLT=130101', 'WITHOUT_MATMUL');
      const { text, report } = doctor(real, searching(path));
      assert.equal(report.cuda.cublasLtPath, '');
      assert.match(
        text,
        new RegExp(`^missing +cuBLASLt 13 or 12 cannot be used; ${path}: it has no cublasLtMatmul;`, 'm'),
      );
      const { warnings } = run(fake, "ms.openDevice('cuda'); report(1);", searching(path));
      assert.ok(warnings.includes(`${path}: it has no cublasLtMatmul`), warnings);
    });

    it('cuBLASLt that cannot be opened is named with the reason', () => {
      const path = join(newFolder(), 'libcublasLt.so.13');
      writeFileSync(path, 'not a library');
      const { report } = doctor(real, searching(path));
      assert.match(
        report.cuda.cublasLtProblem,
        /cannot be used; .*libcublasLt\.so\.13: (file too short|invalid ELF header)/,
      );
    });

    it('cuBLASLt 12 serves where there is no 13', () => {
      const path = library('libcublasLt.so.12', 'libraries.cpp', 'CUBLASLT=120901');
      const { report } = doctor(real, searching(path));
      assert.deepEqual([report.cuda.cublasLtPath, report.cuda.cublasLtVersion], [path, 120901]);
      assert.equal(report.cuda.cublasLtProblem, '');
    });

    describe('cuDNN', () => {
      let cublaslt = '';
      before(() => {
        cublaslt = library('libcublasLt.so.13', 'libraries.cpp', 'CUBLASLT=130101');
      });
      const cases: [string, string[], RegExp][] = [
        ['of a good version is used', ['CUDNN=91900', 'CUDART=13000'], /^$/],
        [
          'of a version that computes wrongly is refused',
          ['CUDNN=91001', 'CUDART=13000'],
          /^cuDNN 9\.10\.1 computes attention wrongly$/,
        ],
        [
          'for another CUDA than cuBLASLt is refused',
          ['CUDNN=91900', 'CUDART=12090'],
          /^cuDNN 9\.19\.0 is built for CUDA 12, but cuBLASLt is from CUDA 13$/,
        ],
        [
          'that lacks its functions is refused',
          [],
          /^cuDNN 9 cannot be used; \S+libcudnn\.so\.9: it has no cudnnGetVersion\. Install it/,
        ],
      ];
      for (const [what, macros, problem] of cases) {
        it(what, () => {
          const path = library('libcudnn.so.9', 'libraries.cpp', ...macros);
          const { text, report } = doctor(real, searching(cublaslt, path));
          assert.match(report.cuda.cudnnProblem, problem);
          assert.equal(report.cuda.cudnnPath, macros.length > 0 ? path : '');
          assert.equal(/^attention +by the built-in kernels: cuDNN/m.test(text), report.cuda.cudnnProblem !== '');
        });
      }

      it('that is not found is reported, and refused where an option asks for it', () => {
        assert.match(doctor(real, searching(cublaslt)).report.cuda.cudnnProblem, /^cuDNN 9 was not found\. Install it/);
        const open = "report(await messageOf(() => ms.openDevice('cuda', { attention: 'cudnn' })));";
        const env = { ...searching(cublaslt), FAKE_CUDA_COMPUTE: '90' };
        assert.match(run(fake, open, env).result, /^cuda:0: attention by cuDNN: cuDNN 9 was not found/);
        assert.match(
          run(fake, open, { FAKE_CUDA_COMPUTE: '90' }).result,
          /^cuda:0: attention by cuDNN: cuDNN needs cuBLASLt/,
        );
        assert.match(run(fake, open).result, /^cuda:0: attention by cuDNN: before sm_90 our kernels are as fast/);
      });
    });
  });
});
