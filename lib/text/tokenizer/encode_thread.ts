// The thread on which texts are encoded: it can be ended if an untrusted regular expression hangs.
import { parentPort, workerData } from 'node:worker_threads';
import { Encoder } from './encoder.ts';

const encoder = new Encoder(JSON.parse((workerData as { json: string }).json));

parentPort!.on('message', ({ key, text }: { key: number; text: string }) => {
  try {
    const { ids, ends } = encoder.encode(text);
    parentPort!.postMessage({ key, ids, ends }, [ids.buffer as ArrayBuffer, ends.buffer as ArrayBuffer]);
  } catch (error) {
    parentPort!.postMessage({ key, error });
  }
});
parentPort!.postMessage('ready');
