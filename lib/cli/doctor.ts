// minisequence doctor: what is installed, what is missing, how to get it.
import { existsSync, realpathSync } from 'node:fs';
import { availableParallelism, cpus, freemem, release, totalmem } from 'node:os';
import { basename } from 'node:path';
import { packageInfo } from '../io/package_info.ts';
import { openDevice } from '../runtime/device.ts';
import { formatBytes } from '../runtime/memory/statistics.ts';
import { addon, addonPaths, type CudaReport } from '../runtime/native.ts';

interface Report {
  minisequence: string;
  node: string;
  platform: string;
  cpu: { model: string; threads: number; totalBytes: number; freeBytes: number };
  /** Null where it cannot be loaded. */
  addon: { path: string } | null;
  /** What the addon brought into the process. */
  libraries: { name: string; path: string }[];
  /** Default memory limit of the CPU device; null where there is none. */
  cpuMemoryLimit: number | null;
  cuda: CudaReport | null;
  missing: Missing[];
}

interface Missing {
  what: string;
  remedy: string;
}

/** Prints the report. The exit code is 1 where not even the CPU can be used. */
export function doctor({ json }: { json: boolean }): void {
  const report = examine();
  console.log(json ? JSON.stringify(report, null, 2) : format(report));
  process.exitCode = report.cpuMemoryLimit === null ? 1 : 0;
}

function examine(): Report {
  const report: Report = {
    minisequence: packageInfo().version,
    node: process.version,
    platform: `${process.platform}-${process.arch} ${release()}`,
    cpu: {
      model: cpus()[0]?.model ?? 'unknown',
      threads: availableParallelism(),
      totalBytes: totalmem(),
      freeBytes: freemem(),
    },
    addon: null,
    libraries: [],
    cpuMemoryLimit: null,
    cuda: null,
    missing: [],
  };
  try {
    report.cuda = addon().describe_cuda();
    report.addon = { path: addonPaths().find(existsSync)! };
    report.libraries = loadedLibraries();
  } catch (error) {
    report.missing.push(missingAddon(error as Error));
    return report;
  }
  try {
    using device = openDevice('cpu');
    report.cpuMemoryLimit = device.memoryLimit;
  } catch (error) {
    const { message } = error as Error;
    report.missing.push({
      what: `the CPU cannot be used: ${message}`,
      remedy: 'see the limits of this process: ulimit -a',
    });
  }
  report.missing.push(...missingForCuda(report.cuda));
  return report;
}

/** Shared libraries of this process that matter here, with the version from the file's real name. */
function loadedLibraries(): Report['libraries'] {
  const { sharedObjects } = process.report.getReport() as unknown as { sharedObjects: string[] };
  const names: [RegExp, string][] = [
    [/^libdnnl\./, 'oneDNN'],
    [/^libgomp\./, 'OpenMP'],
    [/^libcuda\./, 'CUDA driver'],
    [/^libcublasLt\./, 'cuBLASLt'],
  ];
  return sharedObjects.flatMap((path) => {
    const name = names.find(([pattern]) => pattern.test(basename(path)))?.[1];
    return name ? [{ name, path: realpathSync(path) }] : [];
  });
}

function missingAddon({ message }: Error): Missing {
  const remedy = /libdnnl|libgomp/.test(message)
    ? 'sudo apt-get install libdnnl-dev libgomp1'
    : 'in a checkout: npm run build; elsewhere: a package for linux-x64, glibc 2.34 or newer';
  return { what: message, remedy };
}

function missingForCuda({
  built,
  problem,
  devices,
  cublasLtPath,
  cublasLtProblem,
  cublasLtTried,
}: CudaReport): Missing[] {
  if (!built) {
    return [
      {
        what: 'CUDA is not in this build',
        remedy:
          'only with a GPU: install the CUDA 13 toolkit (nvcc) and run npm run build, or use the released package',
      },
    ];
  }
  const missing: Missing[] = [];
  const unusable = devices.flatMap(({ index, problem }) => (problem ? [`cuda:${index}: ${problem}`] : []));
  for (const what of unusable.length > 0 || !problem ? unusable : [problem]) {
    missing.push({ what, remedy: 'only with an NVIDIA GPU, https://www.nvidia.com/drivers; the CPU works without' });
  }
  if (!cublasLtPath) {
    missing.push({
      what: `${cublasLtProblem.split('. Install')[0]}; searched ${cublasLtTried.length} places, which --json lists`,
      remedy: 'for CUDA at full speed: pip install nvidia-cublas, or install the CUDA toolkit',
    });
  }
  return missing;
}

function format({
  minisequence,
  node,
  platform,
  cpu,
  addon,
  libraries,
  cpuMemoryLimit,
  cuda,
  missing,
}: Report): string {
  const line = (name: string, text: string) => `${name.padEnd(13)} ${text}`;
  const memory = `${formatBytes(cpu.freeBytes)} of ${formatBytes(cpu.totalBytes)} free`;
  const lines = [
    line('minisequence', `${minisequence}, Node ${node}, ${platform}`),
    line('CPU', `${cpu.model}, ${cpu.threads} threads, ${memory}`),
  ];
  if (addon) lines.push(line('addon', addon.path));
  for (const { name, path } of libraries) lines.push(line(name, path));
  if (cuda?.built) {
    const { architectures, runtimeVersion, driverVersion, cublasLtPath, cublasLtVersion } = cuda;
    const { cudnnPath, cudnnVersion, cudnnProblem } = cuda;
    const driver = driverVersion ? `driver for ${cudaVersion(driverVersion)}` : 'no driver';
    lines.push(line('CUDA', `${cudaVersion(runtimeVersion)}, built for ${architectures}; ${driver}`));
    const products = cublasLtPath
      ? line('cuBLASLt', `${cublasLtPath}, version ${cublasLtVersion}`)
      : line('products', 'by the built-in kernels, at about half the speed of cuBLASLt');
    lines.push(products);
    if (cudnnPath) lines.push(line('cuDNN', `${cudnnPath}, version ${cudnnVersion}`));
    if (cudnnProblem) lines.push(line('attention', `by the built-in kernels: ${cudnnProblem}`));
  }
  if (cpuMemoryLimit !== null) {
    lines.push(line('device', `cpu, memoryLimit ${formatBytes(cpuMemoryLimit)} by default`));
  }
  for (const { index, name, computeCapability, freeBytes, totalBytes, problem } of cuda?.devices ?? []) {
    const state = problem ? 'cannot be used' : `${formatBytes(freeBytes)} of ${formatBytes(totalBytes)} free`;
    lines.push(line('device', `cuda:${index}, ${name}, compute ${computeCapability}, ${state}`));
  }
  for (const { what, remedy } of missing) lines.push(line('missing', what), line('', remedy));
  return lines.join('\n');
}

/** 13020 is 13.2. */
function cudaVersion(number: number): string {
  return `${Math.floor(number / 1000)}.${Math.floor((number % 1000) / 10)}`;
}
