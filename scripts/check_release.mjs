// npm run prepublishOnly, which npm runs before it publishes: refuses a package that does not say where its sources are, or whose changes
// have no heading of its version. `node scripts/check_release.mjs FOLDER` looks at another folder.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { argv } from 'node:process';

/** Stands in package.json for the owner of the repository until there is one. */
const PLACEHOLDER = 'REPOSITORY-OWNER';

const folder = argv[2] ?? join(import.meta.dirname, '..');
const text = readFileSync(join(folder, 'package.json'), 'utf8');
const { version } = JSON.parse(text);
const problems = [];
if (text.includes(PLACEHOLDER)) {
  problems.push(
    `package.json: '${PLACEHOLDER}' in repository, bugs and homepage stands for the owner of the repository: replace it`,
  );
}
const changes = readFileSync(join(folder, 'CHANGELOG.md'), 'utf8');
if (!changes.split('\n').includes(`## ${version}`)) {
  problems.push(`CHANGELOG.md: has no heading '## ${version}', the version in package.json`);
}
for (const problem of problems) console.error(`not published: ${problem}`);
process.exitCode = problems.length > 0 ? 1 : 0;
