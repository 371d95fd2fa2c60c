// Modules that run on their own thread. Their names end in _thread, so that the bundle finds them.
import { createRequire } from 'node:module';
import { extname } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

/**
 * URL of the module `name` beside the one that starts it, which may be source, built, or part of a bundle.
 * @param starter its import.meta.url
 */
export function threadUrl(name: string, starter: string): URL {
  const extension = extname(fileURLToPath(starter));
  const url = new URL(`./${name}${extension}`, starter);
  if (extension !== '.ts') return url;
  // Source runs under tsx, which must be registered again in each thread.
  const tsx = pathToFileURL(
    createRequire(import.meta.url)
      .resolve('tsx/esm/api')
      .replace(/cjs$/, 'mjs'),
  );
  const code = `import { register } from '${tsx}'; register(); await import('${url}');`;
  return new URL(`data:text/javascript,${encodeURIComponent(code)}`);
}
