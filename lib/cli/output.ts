// Standard output, whose reader may go away: `minisequence generate … | head -c 100`.

export class Output {
  readonly #stream: NodeJS.WriteStream;
  #isClosed = false;

  /** @param onClose called once where the reader has closed the pipe: what is written afterwards is dropped */
  constructor(stream: NodeJS.WriteStream, onClose: () => void) {
    this.#stream = stream;
    stream.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (code !== 'EPIPE') return; // `write` rejects
      if (!this.#isClosed) onClose();
      this.#isClosed = true;
    });
  }

  /** Resolves when the stream has taken the text, so that it does not pile up before a slow reader. Rejects if it cannot be written. */
  async write(text: string): Promise<void> {
    if (this.#isClosed || text === '') return;
    await new Promise<void>((resolve, reject) => {
      this.#stream.write(text, (error) => {
        if (error && (error as NodeJS.ErrnoException).code !== 'EPIPE') reject(error);
        else resolve();
      });
    });
  }
}
