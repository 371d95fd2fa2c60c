// Puts the addon that `build.mjs --release` made, and the libraries that Debian's oneDNN needs, into prebuilds/, with their licences and
// checksums. Called by `npm pack`.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const target = join(root, 'prebuilds', `${process.platform}-${process.arch}`);
const addon = join(root, 'build', 'package', 'minisequence.node');

/** Library file and the Debian package whose licence goes with it. */
const shipped = { 'libdnnl.so.2': 'libdnnl2', 'libgomp.so.1': 'libgomp1', 'libOpenCL.so.1': 'ocl-icd-libopencl1' };
/** Libraries that every supported system has: glibc 2.34 and the libstdc++ of GCC 12. */
const system = /^(linux-vdso|libstdc\+\+|libm|libgcc_s|libc|libpthread|libdl|librt|.*ld-linux-x86-64)\.so/;

/** The source package and version of a Debian file must be those that THIRD_PARTY_NOTICES names. */
function checkSource(package_) {
  const field = (name) =>
    execFileSync('dpkg-query', ['-W', '-f', `\${source:${name}}`, package_], { encoding: 'utf8' });
  const source = `${field('Package')} ${field('Version')}`;
  if (!notices.includes(source)) throw new Error(`prebuild: THIRD_PARTY_NOTICES does not name the source "${source}"`);
}

const notices = readFileSync(join(root, 'THIRD_PARTY_NOTICES'), 'utf8');
rmSync(target, { recursive: true, force: true });
mkdirSync(join(target, 'licences'), { recursive: true });
copyFileSync(addon, join(target, 'minisequence.node'));

for (const line of execFileSync('ldd', [addon], { encoding: 'utf8' }).trim().split('\n')) {
  const [, soname, path] = /^\s*(\S+)(?: => (\S+))?/.exec(line);
  const package_ = shipped[soname];
  if (package_) {
    checkSource(package_);
    copyFileSync(realpathSync(path), join(target, soname));
    copyFileSync(`/usr/share/doc/${package_}/copyright`, join(target, 'licences', `${soname}.txt`));
  } else if (!system.test(soname)) {
    throw new Error(`prebuild: the addon needs ${soname}, which is neither shipped nor on every system`);
  }
}
// Compiled into the addon; its licence goes with every copy.
copyFileSync(join(root, 'node_modules/node-addon-api/LICENSE.md'), join(target, 'licences', 'node-addon-api.txt'));

const sha256 = (name) =>
  createHash('sha256')
    .update(readFileSync(join(target, name)))
    .digest('hex');
const files = readdirSync(target).filter((name) => name !== 'licences');
writeFileSync(join(target, 'SHA256SUMS'), files.map((name) => `${sha256(name)}  ${name}\n`).join(''));
console.error(`prebuild: wrote ${target}`);
