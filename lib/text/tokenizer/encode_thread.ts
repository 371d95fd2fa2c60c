// The thread on which texts are encoded: it can be ended where an untrusted regular expression hangs.
import { parentPort, workerData } from 'node:worker_threads';
import { Encoder } from './encoder.ts';

/** @param beats counts what is done, for whoever watches */
const { json, beats } = workerData as { json: string; beats: Int32Array };
const beat = () => {
  beats[0] = (beats[0]! + 1) | 0;
};
const encoder = new Encoder(JSON.parse(json), beat);

parentPort!.on('message', ({ key, text }: { key: number; text: string }) => {
  try {
    const { ids, ends } = encoder.encode(text);
    parentPort!.postMessage({ key, ids, ends }, [ids.buffer as ArrayBuffer, ends.buffer as ArrayBuffer]);
  } catch (error) {
    parentPort!.postMessage({ key, error });
  }
  beat();
});
beat();
parentPort!.postMessage('ready');
