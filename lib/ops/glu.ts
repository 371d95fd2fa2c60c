// Gated linear units: swiglu and geglu.

import { operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireFloat, requireOneDevice, requireShape, rowsAndCols } from './check.ts';

/** Activation of the gate: silu, or gelu in its tanh form. */
export type Activation = 'silu' | 'geluTanh';

/** Values of the native enum. */
export const activationCodes: Record<Activation, number> = { silu: 0, geluTanh: 1 };

/** y (N,F) = silu(gate) * up. gate, up (…,F). */
export function swiglu(gate: Tensor, up: Tensor): Tensor {
  return glu('swiglu', gate, up, 'silu');
}

/** y (N,F) = gelu(gate) * up, gelu in its tanh form. gate, up (…,F). */
export function geglu(gate: Tensor, up: Tensor): Tensor {
  return glu('geglu', gate, up, 'geluTanh');
}

function glu(name: string, gate: Tensor, up: Tensor, activation: Activation): Tensor {
  requireOneDevice(name, { gate, up });
  requireFloat(name, 'gate', gate);
  requireDtype(name, 'up', up, gate.dtype);
  requireShape(name, 'up', up, gate.shape);
  const [N, F] = rowsAndCols(gate);
  const code = activationCodes[activation];
  const like = { dtype: gate.dtype, device: gate.device, category: 'activation' } as const;
  return operation({
    name,
    inputs: { gate, up },
    saved: { gate, up },
    forward() {
      const y = empty([N, F], like);
      kernels.glu_forward(gate, up, y, code);
      return { output: y };
    },
    // y = act(gate) * up;  dup = dy * act(gate);  dgate = dy * up * act'(gate)
    backward(dy, { gate, up }) {
      const dgate = empty([N, F], like);
      const dup = empty([N, F], like);
      kernels.glu_backward(dy, gate, up, dgate, dup, null, code);
      return { gate: dgate, up: dup };
    },
  });
}
