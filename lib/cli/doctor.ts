// minisequence doctor: what is here, what is missing, what helps.
import { existsSync } from 'node:fs';
import { availableParallelism, cpus, freemem, release, totalmem } from 'node:os';
import { openDevice } from '../device.ts';
import { formatBytes } from '../memory/statistics.ts';
import { addon, addonPaths, type CudaReport } from '../native.ts';

interface Report {
  node: string;
  platform: string;
  cpu: { model: string; threads: number; totalBytes: number; freeBytes: number };
  addon: { path: string | null; problem: string | null };
  /** Default memory limit of the CPU device. */
  cpuMemoryLimit: number | null;
  cuda: CudaReport | null;
}

export function doctor({ json }: { json: boolean }): void {
  const report = examine();
  if (json) console.log(JSON.stringify(report, null, 2));
  else console.log(format(report));
  process.exitCode = report.addon.problem ? 1 : 0;
}

function examine(): Report {
  const report: Report = {
    node: process.version,
    platform: `${process.platform}-${process.arch} ${release()}`,
    cpu: {
      model: cpus()[0]?.model ?? 'unknown',
      threads: availableParallelism(),
      totalBytes: totalmem(),
      freeBytes: freemem(),
    },
    addon: { path: null, problem: null },
    cpuMemoryLimit: null,
    cuda: null,
  };
  try {
    report.cuda = addon().describe_cuda();
    report.addon.path = addonPaths().find(existsSync) ?? null;
    using device = openDevice('cpu');
    report.cpuMemoryLimit = device.memoryLimit;
  } catch (error) {
    report.addon.problem = (error as Error).message;
  }
  return report;
}

function format({ node, platform, cpu, addon, cpuMemoryLimit, cuda }: Report): string {
  const lines = [
    `Node      ${node} on ${platform}`,
    `CPU       ${cpu.model}, ${cpu.threads} threads, ${formatBytes(cpu.totalBytes)} of memory, ${formatBytes(cpu.freeBytes)} free`,
    addon.problem ? `addon     ${addon.problem}` : `addon     ${addon.path}`,
  ];
  if (cpuMemoryLimit !== null)
    lines.push(`device    cpu, memoryLimit ${formatBytes(cpuMemoryLimit)} unless told otherwise`);
  if (!cuda) return lines.join('\n');
  const version = (number: number) =>
    number ? `${Math.floor(number / 1000)}.${Math.floor((number % 1000) / 10)}` : 'not found';
  lines.push(
    cuda.built
      ? `CUDA      built for ${cuda.architectures}; runtime ${version(cuda.runtimeVersion)}, driver supports ${version(cuda.driverVersion)}`
      : 'CUDA      not in this build',
  );
  for (const device of cuda.devices) {
    lines.push(
      `device    cuda:${device.index}, ${device.name}, compute ${device.computeCapability}, ${formatBytes(device.freeBytes)} of ${formatBytes(device.totalBytes)} free`,
    );
  }
  if (cuda.built)
    lines.push(
      `cuBLASLt  ${cuda.cublasLtPath ? `${cuda.cublasLtPath}, version ${cuda.cublasLtVersion}` : 'not found'}`,
    );
  if (cuda.problem) lines.push(`          ${cuda.problem}`);
  return lines.join('\n');
}
