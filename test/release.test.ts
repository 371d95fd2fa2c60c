// What publishing refuses, and what the workflow calls.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { parse } from 'yaml';
import { newFolder } from './support/runs.ts';

const PACKAGE = readFileSync('package.json', 'utf8');
const { scripts } = JSON.parse(PACKAGE) as { scripts: Record<string, string> };

function check(packageJson: string, changes: string): { status: number | null; stderr: string } {
  const folder = newFolder();
  writeFileSync(join(folder, 'package.json'), packageJson);
  writeFileSync(join(folder, 'CHANGELOG.md'), changes);
  return spawnSync(execPath, ['scripts/check_release.mjs', folder], { encoding: 'utf8' });
}

describe('a release', () => {
  it('is refused while the placeholder stands or its version has no heading', () => {
    const named = PACKAGE.replace(/github\.com\/[^/]+\//g, 'github.com/someone/');
    const { version, repository, bugs, homepage } = JSON.parse(named);
    assert.deepEqual(
      [repository.url, bugs.url, homepage].map((url) => url.includes('github.com/someone/minisequence')),
      [true, true, true],
    );
    const good = `# Changelog\n\n## ${version}\n`;
    assert.equal(check(named, good).status, 0);
    assert.match(check(named.replaceAll('/someone/', '/REPOSITORY-OWNER/'), good).stderr, /REPOSITORY-OWNER/);
    const { status, stderr } = check(named, `## ${version} (unreleased)\n`);
    assert.equal(status, 1);
    assert.match(stderr, /no heading '## \d/);
    assert.match(scripts.prepublishOnly!, /check_release/);
  });

  it('is checked by a workflow that calls the script of the repository, with each supported version of Node', () => {
    const { jobs } = parse(readFileSync('.github/workflows/ci.yml', 'utf8'));
    const { steps, strategy, container } = jobs.whole;
    assert.ok(steps.some(({ run }: { run?: string }) => run === '.ci/run') && existsSync('.ci/run'));
    assert.match(container, /^node:\$\{\{ matrix\.node \}\}-bookworm$/);
    const { engines } = JSON.parse(PACKAGE);
    for (const node of strategy.matrix.node)
      assert.match(engines.node, new RegExp(`>=${Math.min(node, 22)}\\.|\\^${node}\\.`));
  });
});
