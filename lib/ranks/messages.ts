// What ranks and rank 0's store say to each other: one JSON object a line.
import type { Socket } from 'node:net';

/** From a rank. */
export type ToStore =
  | { type: 'hello'; rank: number; size: number; version: string }
  /** Its value under a key; every rank gets all of them, by rank, when the last has come. */
  | { type: 'gather'; key: string; value: unknown }
  /** It is alive; the last step that it has begun. */
  | { type: 'beat'; step: number }
  /** It ends well. */
  | { type: 'leave' }
  /** It ends with an error. */
  | { type: 'fail'; message: string };

/** To a rank. */
export type FromStore =
  | { type: 'gathered'; key: string; values: unknown[] }
  | { type: 'beat' }
  /** A rank is lost: all end. */
  | { type: 'failed'; rank: number; message: string }
  /** All have left. */
  | { type: 'left' };

/** Nothing that ranks say is longer. */
const MAX_LINE = 2 ** 24;

export function send(socket: Socket, message: ToStore | FromStore): void {
  if (socket.writable) socket.write(`${JSON.stringify(message)}\n`);
}

/**
 * Calls `onMessage` for each line.
 * @param onNoise called once, with the reason, for what is no message; the socket is then destroyed
 */
export function listen<Message>(
  socket: Socket,
  onMessage: (message: Message) => void,
  onNoise: (why: string) => void,
): void {
  let rest = '';
  socket.setEncoding('utf8');
  socket.on('data', (text: string) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    try {
      if (rest.length > MAX_LINE) throw new RangeError(`a line of more than ${MAX_LINE} characters`);
      for (const line of lines) {
        const message: unknown = JSON.parse(line);
        if (typeof message !== 'object' || message === null || !('type' in message)) throw new TypeError('no message');
        onMessage(message as Message);
      }
    } catch (error) {
      socket.destroy();
      onNoise((error as Error).message);
    }
  });
}
