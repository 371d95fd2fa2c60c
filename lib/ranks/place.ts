// Which of several processes this one is, as torchrun, srun, mpirun and Kubernetes tell it by environment variables.

/** One process, a rank, of those that train a model together. */
export interface RankPlace {
  /** From 0. */
  rank: number;
  /** Number of ranks. */
  size: number;
  /** Its number among the ranks on its machine, which is that of its GPU. */
  localRank: number;
  /** Ranks on its machine. */
  localSize: number;
  /** Where rank 0 listens. */
  address: string;
  port: number;
}

type Environment = Readonly<Record<string, string | undefined>>;

interface Names {
  rank: string;
  size: string;
  localRank: string;
  localSize: string;
}

const TORCHRUN = { rank: 'RANK', size: 'WORLD_SIZE', localRank: 'LOCAL_RANK', localSize: 'LOCAL_WORLD_SIZE' };
const OTHERS: readonly Names[] = [
  {
    rank: 'SLURM_PROCID',
    size: 'SLURM_NTASKS',
    localRank: 'SLURM_LOCALID',
    localSize: 'SLURM_NTASKS_PER_NODE',
  },
  {
    rank: 'OMPI_COMM_WORLD_RANK',
    size: 'OMPI_COMM_WORLD_SIZE',
    localRank: 'OMPI_COMM_WORLD_LOCAL_RANK',
    localSize: 'OMPI_COMM_WORLD_LOCAL_SIZE',
  },
];

/**
 * The place of this process; null where it is alone. RANK goes before SLURM's and Open MPI's variables; all need MASTER_ADDR and MASTER_PORT.
 * Where torchrun's agent listens on MASTER_PORT itself (TORCHELASTIC_USE_AGENT_STORE), ranks meet on the next port.
 * @throws RangeError which names a variable that is missing or wrong
 */
export function rankPlace(environment: Environment): RankPlace | null {
  const names = [TORCHRUN, ...OTHERS].find(({ rank }) => environment[rank] !== undefined);
  if (!names) return null;
  const size = numberOf(environment, names.size, { min: 1 });
  const rank = numberOf(environment, names.rank, { min: 0, max: size - 1 });
  if (size === 1) return null;
  const localSize = numberOf(environment, names.localSize, { min: 1, max: size, otherwise: 1 });
  const localRank = numberOf(environment, names.localRank, { min: 0, max: size - 1, otherwise: 0 });
  const address = environment.MASTER_ADDR;
  if (!address)
    throw new RangeError(`MASTER_ADDR: is not set, and ${names.rank} says that this is rank ${rank} of ${size}`);
  const port = numberOf(environment, 'MASTER_PORT', { min: 1, max: 65_534 });
  const isTaken = environment.TORCHELASTIC_USE_AGENT_STORE === 'True';
  return { rank, size, localRank, localSize, address, port: isTaken ? port + 1 : port };
}

function numberOf(
  environment: Environment,
  name: string,
  { min, max = 2 ** 20, otherwise }: { min: number; max?: number; otherwise?: number },
): number {
  const text = environment[name];
  if (text === undefined && otherwise !== undefined) return otherwise;
  if (text === undefined)
    throw new RangeError(`${name}: is not set, and other variables say that there are several ranks`);
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= min && value <= max))
    throw new RangeError(`${name}: must be an integer from ${min} to ${max}, got '${text}'`);
  return value;
}
