// Where a process finds its place among ranks.
import assert from 'node:assert/strict';
import { rankPlace } from '../../lib/index.ts';

const master = { MASTER_ADDR: 'node0', MASTER_PORT: '29500' };

describe('rankPlace', () => {
  it('is null where no variable speaks of ranks, or there is one', () => {
    assert.equal(rankPlace({ ...master, WORLD_SIZE: '4' }), null);
    assert.equal(rankPlace({ RANK: '0', WORLD_SIZE: '1' }), null);
    assert.equal(rankPlace({ SLURM_PROCID: '0', SLURM_NTASKS: '1' }), null);
  });

  it("reads torchrun's variables", () => {
    const variables = { ...master, RANK: '5', WORLD_SIZE: '8', LOCAL_RANK: '1', LOCAL_WORLD_SIZE: '4' };
    const place = { rank: 5, size: 8, localRank: 1, localSize: 4, address: 'node0', port: 29500 };
    assert.deepEqual(rankPlace(variables), place);
    assert.deepEqual(rankPlace({ ...variables, TORCHELASTIC_USE_AGENT_STORE: 'True' }), { ...place, port: 29501 });
    assert.deepEqual(rankPlace({ ...variables, TORCHELASTIC_USE_AGENT_STORE: 'False' }), place);
  });

  it("reads SLURM's and Open MPI's, and RANK before both", () => {
    const slurm = { SLURM_PROCID: '3', SLURM_NTASKS: '4', SLURM_LOCALID: '1', SLURM_NTASKS_PER_NODE: '2' };
    const mpi = {
      OMPI_COMM_WORLD_RANK: '1',
      OMPI_COMM_WORLD_SIZE: '2',
      OMPI_COMM_WORLD_LOCAL_RANK: '1',
      OMPI_COMM_WORLD_LOCAL_SIZE: '2',
    };
    const at = { address: 'node0', port: 29500 };
    assert.deepEqual(rankPlace({ ...master, ...slurm }), { rank: 3, size: 4, localRank: 1, localSize: 2, ...at });
    assert.deepEqual(rankPlace({ ...master, ...mpi }), { rank: 1, size: 2, localRank: 1, localSize: 2, ...at });
    const both = { ...master, ...slurm, ...mpi, RANK: '0', WORLD_SIZE: '3' };
    assert.deepEqual(rankPlace(both), { rank: 0, size: 3, localRank: 0, localSize: 1, ...at });
  });

  it('names the variable that is missing or wrong', () => {
    const variables = { ...master, RANK: '1', WORLD_SIZE: '2' };
    assert.throws(() => rankPlace({ ...variables, MASTER_ADDR: undefined }), /^RangeError: MASTER_ADDR: is not set/);
    assert.throws(() => rankPlace({ ...variables, MASTER_PORT: undefined }), /^RangeError: MASTER_PORT: is not set/);
    assert.throws(() => rankPlace({ ...variables, WORLD_SIZE: undefined }), /^RangeError: WORLD_SIZE: is not set/);
    assert.throws(
      () => rankPlace({ ...variables, RANK: '2' }),
      /^RangeError: RANK: must be an integer from 0 to 1, got '2'/,
    );
    assert.throws(() => rankPlace({ ...variables, MASTER_PORT: '99999' }), /MASTER_PORT: must be .* got '99999'/);
    assert.throws(() => rankPlace({ ...variables, LOCAL_RANK: '-1' }), /LOCAL_RANK: must be .* got '-1'/);
  });
});
