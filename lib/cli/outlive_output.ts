// Standard output and error of a command whose work must not end with them.

/**
 * From now on a pipe that is closed, a full disk or a terminal that is gone takes what is printed, and nothing else.
 * @param onLost told once, of standard output
 */
export function outliveOutput(onLost: (error: Error) => void): void {
  let isLost = false;
  process.stdout.on('error', (error) => {
    if (!isLost) onLost(error);
    isLost = true;
  });
  process.stderr.on('error', () => {}); // there is nobody left to tell
}
