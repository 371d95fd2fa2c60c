// The signals that ask a long command to save and end.

/** Ctrl-C, what schedulers and service managers send, and what a terminal sends when it is closed. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
/** npm forwards Ctrl-C to a child that got it from the terminal too: a second one within this time is the same key press. */
const SAME_SIGNAL_MS = 1000;

export interface StopSignals extends Disposable {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal;
}

/**
 * Listens until it is disposed. A second Ctrl-C ends the process at once; other repeated signals do nothing, since their
 * sender has SIGKILL for that.
 * @param onStop called with the first signal
 */
export function listenForStop(onStop: (signal: NodeJS.Signals) => void): StopSignals {
  const stop = new AbortController();
  let stoppedAt = 0;
  const onSignal = (name: NodeJS.Signals) => {
    if (!stop.signal.aborted) {
      stoppedAt = performance.now();
      stop.abort();
      onStop(name);
    } else if (name === 'SIGINT' && performance.now() - stoppedAt > SAME_SIGNAL_MS) {
      ignoreSignals();
      process.kill(process.pid, name);
    }
  };
  const ignoreSignals = () => {
    for (const name of SIGNALS) process.off(name, onSignal);
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  // The process that started this one as a rank was killed: nobody else would end it.
  const onOrphaned = () => onSignal('SIGTERM');
  process.on('disconnect', onOrphaned);
  process.channel?.unref();
  const dispose = () => {
    ignoreSignals();
    process.off('disconnect', onOrphaned);
  };
  return { signal: stop.signal, [Symbol.dispose]: dispose };
}
