// What is measured on a GPU, by name: cases of cases.ts with their sizes, those of Llama-3-8B by default. The small plans are for the CPU
// and only show that everything runs.
import type { cases, Sizes } from './cases.ts';

export interface Plan {
  case: keyof typeof cases;
  sizes: Partial<Sizes>;
  rounds: number;
}

const mlp = { C: 4096, F: 14336 };
const head = { C: 4096, V: 128256 };
const gemma = { C: 2304, V: 256000 }; // Gemma-2-2B's
const perToken = { C: 4096, V: 131072, perToken: true };

const mlpPlan = (N: number, chunkSize: number, rounds: number): Plan => ({
  case: 'mlp',
  sizes: { ...mlp, N, chunkSize },
  rounds,
});
const headPlan = (sizes: Partial<Sizes>, rounds: number): Plan => ({ case: 'head', sizes, rounds });
const llama3Plan = (N: number, rounds: number, sizes: Partial<Sizes> = {}): Plan => ({
  case: 'llama3',
  sizes: { N, chunkSize: 8192, ...sizes },
  rounds,
});

export const plans = {
  mlp: [mlpPlan(16384, 8192, 10), mlpPlan(16384, 4096, 10)],
  mlp_1k: [mlpPlan(1024, 1024, 30)],
  head: [headPlan({ ...head, N: 8192, chunkSize: 4096 }, 15)],
  head_16k: [headPlan({ ...head, N: 16384, chunkSize: 8192 }, 9)],
  head_1k: [headPlan({ ...head, N: 1024, chunkSize: 512 }, 30)],
  // Losses and entropies of tokens. In chunks of 896 the memory above the gradient of the weight is that of waves of 1024 tokens without
  // cuBLASLt's workspace; in chunks of 4096 it is that and a gradient in bf16.
  head_per_token: [896, 4096].map((chunkSize) => headPlan({ ...perToken, N: 4096, chunkSize }, 15)),
  head_per_token_32k: [896, 4096].map((chunkSize) => headPlan({ ...perToken, N: 32000, chunkSize }, 5)),
  head_gemma: [headPlan({ ...gemma, N: 8192, chunkSize: 1024 }, 15)],
  head_gemma_softcap: [headPlan({ ...gemma, N: 8192, chunkSize: 1024, softcap: 30 }, 15)],
  step: [{ case: 'step', sizes: { N: 8192, C: 2048, F: 8192, V: 128256, chunkSize: 4096 }, rounds: 3 }],
  attention: [{ case: 'attention', sizes: { N: 16384, C: 4096 }, rounds: 10 }],
  graph: [{ case: 'graph', sizes: { N: 8192, chunkSize: 8192, layers: 8 }, rounds: 10 }],
  llama3: [llama3Plan(8192, 3)],
  llama3_32k: [llama3Plan(32768, 2)],
  // All parameters within 80 GB: 8-bit optimizer states. 61,440 tokens are the paper's 60K.
  llama3_8bit: [8192, 61440, 131072].map((N) => llama3Plan(N, 1, { stateBits: 8, gradientDtype: 'bfloat16' })),
  // The step in the backward beside the ordinary step.
  llama3_in_backward: [false, true].map((inBackward) => llama3Plan(8192, 3, { stateBits: 8, inBackward })),
  // Each layer's input on the host beside the same step without: the ratio of both is the cost of the copies.
  llama3_offload: [16384, 32768].flatMap((N) =>
    [0, 32].map((offloadedInputs) =>
      llama3Plan(N, 3, {
        stateBits: 8,
        inBackward: true,
        hostMemoryLimit: 9 * 2 ** 30,
        policy: { mlpChunkSize: 8192, lossChunkSize: 8192, mlpSave: 'input', recompute: 'layer', offloadedInputs },
      }),
    ),
  ),
  // The paper's setting: its 60K, and the longest that fits 78 GiB.
  llama3_paper: [
    llama3Plan(61440, 1, { stateBits: 16, inBackward: true }),
    llama3Plan(108544, 1, { stateBits: 16, inBackward: true, warmUp: false }),
  ],
  // The longest that fits 78 GiB with each layer's input kept, and one that takes segments.
  llama3_longest: [llama3Plan(157696, 1, { stateBits: 8, inBackward: true, warmUp: false })],
  // Segments whose inner layers keep attention's output.
  llama3_kept: [
    llama3Plan(262144, 1, {
      stateBits: 8,
      inBackward: true,
      warmUp: false,
      policy: { mlpSave: 'input', recompute: 'segments', slots: 16, keepAttention: true },
    }),
  ],
  // 448K tokens on one H200, with what the host's memory is good for; pinning it comes before.
  llama3_448k: [
    llama3Plan(458752, 1, {
      stateBits: 8,
      inBackward: true,
      warmUp: false,
      hostMemoryLimit: 108 * 2 ** 30,
      policy: { mlpSave: 'input' },
    }),
  ],
  llama3_segments: [llama3Plan(262144, 1, { stateBits: 8, inBackward: true, warmUp: false })],
} satisfies Record<string, Plan[]>;

export const cpuPlans = {
  head: [0, 30].map((softcap) => headPlan({ N: 256, C: 128, V: 2000, chunkSize: 64, softcap }, 3)),
  head_per_token: [headPlan({ N: 256, C: 128, V: 2000, chunkSize: 64, perToken: true }, 3)],
  mlp: [{ case: 'mlp', sizes: { N: 256, C: 128, F: 352, chunkSize: 64 }, rounds: 3 }],
  attention: [{ case: 'attention', sizes: { N: 256, C: 256 }, rounds: 3 }],
} satisfies Record<string, Plan[]>;

/** Arguments of case.ts for a plan. */
export function caseArguments({ case: name, sizes, rounds }: Plan, device: string): string[] {
  return [name, 'bfloat16', JSON.stringify({ V: 1, F: 1, chunkSize: 1, ...sizes }), String(rounds), device];
}
