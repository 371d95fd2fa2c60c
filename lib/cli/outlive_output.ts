// Keeps a command running when its standard output or error fails.

/**
 * From now on a closed pipe, a full disk or a lost terminal only loses what is printed.
 * @param onLost called once, when standard output fails
 */
export function outliveOutput(onLost: (error: Error) => void): void {
  let isLost = false;
  process.stdout.on('error', (error) => {
    if (!isLost) onLost(error);
    isLost = true;
  });
  process.stderr.on('error', () => {}); // nowhere left to report it
}
