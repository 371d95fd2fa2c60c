// minisequence plan: what it says is what simulateStep and planStep say.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { bytesFrom } from '../../lib/cli/plan.ts';
import { decoderConfig, longestSteps, planStep, Shards, simulateStep, stepOperations } from '../../lib/index.ts';
import { presets } from '../../lib/models/presets.ts';
import { secondsByGpu } from '../../lib/step/rates.ts';
import { commandLine, runCommand } from '../support/command.ts';
import { newFolder, tinyLlama } from '../support/runs.ts';

const like = { kind: 'cuda', attention: 'cudnn' } as const;

/** Runs `minisequence plan` to a bad end and returns what it said. */
function refused(...args: string[]): string {
  const { status, stderr } = spawnSync(execPath, commandLine('plan', ...args), { encoding: 'utf8' });
  assert.equal(status, 1);
  return stderr;
}

describe('minisequence plan', () => {
  it('plans a preset at one length, with every option', () => {
    const options = ['--lora', '8', '--packed', '--batch-size', '2', '--state-bits', '16', '--dtype', 'float32'];
    const args = ['--model', 'smollm2-135m', '--memory', '12GB', '--sequence-length', '8192', ...options];
    const report = JSON.parse(runCommand(['plan', ...args, '--json']));
    const config = decoderConfig(presets['SmolLM2-135M']!);
    const lora = { rank: 8 };
    const step = { B: 2, T: 8192, isPacked: true, lora, stateBits: 16, dtype: 'float32', like } as const;
    const { policy, memory } = planStep(config, { ...step, memoryLimit: 12e9 });
    assert.deepEqual(report.policy, policy);
    assert.equal(report.memory.reservedBytes, memory.reservedBytes);
    assert.deepEqual(report.memory.peak, memory.peak);
    assert.equal(report.parameters, 134_515_008);
    assert.deepEqual(report.operations, stepOperations(config, { B: 2, T: 8192, policy, lora }));
    assert.deepEqual(report.seconds, {}, 'of packed documents in f32');
    const { policy: before, reservedBytes } = report.before;
    assert.ok(reservedBytes > 12e9);
    assert.equal(simulateStep({ config, ...step, policy: before }).reservedBytes, reservedBytes);
  });

  it('finds the longest T of a config.json, for people and for programs', () => {
    const file = join(newFolder(), 'config.json');
    writeFileSync(file, JSON.stringify({ ...tinyLlama, torch_dtype: 'bfloat16' }));
    const args = ['plan', '--model', file, '--memory', '200MiB', '--max', '--no-master-weights'];
    const report = JSON.parse(runCommand([...args, '--gradient-dtype', 'bfloat16', '--json']));
    const step = { B: 1, dtype: 'bfloat16', gradientDtype: 'bfloat16', masterWeights: false, like } as const;
    const longest = longestSteps(decoderConfig(tinyLlama), { ...step, memoryLimit: 200 * 2 ** 20 });
    assert.deepEqual(report.longest, longest);
    assert.equal(report.longestT, Math.max(...longest.map(({ T }) => T)));
    assert.equal(report.sequenceLength, report.longestT);
    const text = runCommand([...args, '--gradient-dtype', 'bfloat16']);
    assert.match(
      text,
      /: 39,584 parameters; one sequence of [\d,]+ tokens\npolicy +recompute .*\n +the fastest that fits: /,
    );
    assert.match(text, /\nreserved +\S+ MiB {2}of 200\.00 MiB\n/);
    assert.match(text, new RegExp(`\\n +${report.longestT.toLocaleString('en')} {2}recompute `));
  });

  it('offloads inputs of layers to the host, within --host-memory', () => {
    const given = ['plan', '--model', 'SmolLM2-135M', '--memory', '1GiB', '--sequence-length', '16384'];
    const args = [...given, '--lora', '8', '--host-memory', '2GiB'];
    const report = JSON.parse(runCommand([...args, '--json']));
    const config = decoderConfig(presets['SmolLM2-135M']!);
    const step = { B: 1, T: 16384, dtype: 'bfloat16', lora: { rank: 8 }, like } as const;
    const limits = { memoryLimit: 2 ** 30, hostMemoryLimit: 2 * 2 ** 30 };
    const { policy, memory, before } = planStep(config, { ...step, ...limits });
    assert.ok(policy.offloadedInputs! > 1);
    assert.deepEqual(report.policy, policy);
    assert.deepEqual(report.before.policy, before);
    assert.equal(report.memory.hostBytes, memory.hostBytes);
    assert.equal(report.hostMemoryLimit, limits.hostMemoryLimit);
    assert.match(runCommand(args), /offloadedInputs \d+, .*\n(.*\n)*host +[\d.]+ [MG]iB {2}of 2\.00 GiB\n/);
    assert.equal(JSON.parse(runCommand([...given, '--lora', '8', '--json'])).memory.hostBytes, 0);
  });

  it("plans the paper's own setting, and a step in the backward", () => {
    const given = ['plan', '--model', 'SmolLM2-135M', '--memory', '20GiB', '--sequence-length', '4096', '--json'];
    const config = decoderConfig(presets['SmolLM2-135M']!);
    const step = { config, B: 1, T: 4096, dtype: 'bfloat16', masterWeights: false, inBackward: true, like } as const;
    const paper = JSON.parse(runCommand([...given, '--paper']));
    assert.equal(paper.policy.recompute, 'layer');
    const { reservedBytes } = simulateStep({ ...step, stateBits: 16, policy: paper.policy });
    assert.equal(paper.memory.reservedBytes, reservedBytes);
    const ours = JSON.parse(runCommand([...given, '--state-bits', '8', '--no-master-weights', '--in-backward']));
    assert.equal(ours.memory.reservedBytes, simulateStep({ ...step, stateBits: 8, policy: ours.policy }).reservedBytes);
    assert.deepEqual(ours.seconds, secondsByGpu(config, { ...step, stateBits: 8, policy: ours.policy }));
    assert.match(runCommand(given.slice(0, -1)), /\ntime +about [\d.]+ s on one H100, [\d.]+ s on one H200$/m);
    assert.match(
      refused(...given.slice(1), '--paper', '--state-bits', '8'),
      /--paper.*cannot be used with.*--state-bits/,
    );
  });

  it('plans frozen projections in 4 bits', () => {
    const given = [
      'plan',
      '--model',
      'SmolLM2-135M',
      '--memory',
      '20GiB',
      '--sequence-length',
      '4096',
      '--4bit',
      '--json',
    ];
    const report = JSON.parse(runCommand([...given, '--lora', '8']));
    const config = decoderConfig(presets['SmolLM2-135M']!, { quantization: 'nf4' });
    const step = { config, B: 1, T: 4096, dtype: 'bfloat16', lora: { rank: 8 }, like, policy: report.policy } as const;
    assert.equal(report.memory.reservedBytes, simulateStep(step).reservedBytes);
    assert.equal(report.parameters, 134_515_008);
    assert.match(refused(...given.slice(1)), /projections in 4 bits are frozen.*--lora RANK/);
  });

  it('plans one of several GPUs that share the optimizer', () => {
    const args = ['--model', 'Qwen3-0.6B', '--memory', '78GiB', '--sequence-length', '4096', '--gpus', '4', '--json'];
    const report = JSON.parse(runCommand(['plan', ...args]));
    const config = decoderConfig(presets['Qwen3-0.6B']!);
    const options = { B: 1, T: 4096, dtype: 'bfloat16', like, memoryLimit: 78 * 2 ** 30 } as const;
    const { policy, memory } = planStep(config, { ...options, shards: new Shards(0, 4) });
    assert.deepEqual([report.policy, report.memory.reservedBytes], [policy, memory.reservedBytes]);
    // f32 gradients and bf16 weights of the other three ranks' parts
    assert.deepEqual([report.gpus, report.sentBytes], [4, (report.parameters * 6 * 3) / 4]);
    const { peak } = simulateStep({ config, ...options, policy });
    const states = report.parameters * 12; // two moments and a master copy
    assert.ok(Math.abs(peak.optimizer - report.memory.peak.optimizer - (states * 3) / 4) < states / 1000);
    assert.deepEqual(report.seconds, {});
  });

  it('reports each wrong option', () => {
    const given = (...more: string[]) => ['--model', 'Llama-3-8B', '--memory', '8GiB', ...more];
    assert.match(refused(...given()), /either --sequence-length, or --max/);
    assert.match(refused(...given('--max')), /weights, gradients and optimizer state alone take .* LoRA/);
    assert.match(
      refused('--model', 'Llama-9', '--memory', '8GiB', '--max'),
      /none of the presets Llama-3-8B, .*Mistral-Nemo/,
    );
  });

  it('reads bytes with decimal and binary units', () => {
    const texts = {
      '80GiB': 80 * 2 ** 30,
      '80GB': 80e9,
      '1.5 MiB': 1.5 * 2 ** 20,
      '12kb': 12000,
      '4096': 4096,
      '7B': 7,
    };
    for (const [text, bytes] of Object.entries(texts)) assert.equal(bytesFrom(text), bytes, text);
    for (const text of ['', '80Gi', '-1GiB', '0', '1e3', 'GiB', '9999999TiB']) {
      assert.throws(() => bytesFrom(text), /It must be bytes/, text);
    }
  });
});
