// docs/longest.svg: the longest sequences by method, as bars, from their table.

export interface LongestTable {
  methods: string[];
  models: { name: string; lengths: number[] }[];
}

/** The table that npm run table writes; its last column, the paper's, is left out. In units of 1,024 tokens. */
export function parseTable(text: string): LongestTable {
  const cells = (line: string) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
  const [head, , ...rows] = text.split('\n').map(cells);
  const models = rows.map(([name, ...lengths]) => ({
    name: name!,
    lengths: lengths.slice(0, -1).map((length) => {
      const match = /^(\d+)K$/.exec(length);
      if (!match) throw new Error(`the table of the longest sequences: ${length} is no length in K`);
      return Number(match[1]);
    }),
  }));
  return { methods: head!.slice(1, -1), models };
}

const WIDTH = 860;
const LEFT = 108;
const RIGHT = 56;
const BAR = 13;
const GAP = 14;
const TOP = 62;
/** Colours of the methods, in their order, on light and on dark pages. */
const COLOURS = ['#8b949e', '#6e7781', '#54aeff', '#218bff', '#0550ae', '#8250df'];
const DARK = ['#6e7681', '#9aa5af', '#79c0ff', '#388bfd', '#a5d6ff', '#d2a8ff'];
/** Names in the chart of columns whose own need the table around them. */
const NAMES: Record<string, string> = { "the paper's setting": 'mini-sequences', '8-bit states': 'and 8-bit states' };

export function chart({ methods, models }: LongestTable): string {
  const names = methods.map((method) => NAMES[method] ?? method);
  const longest = Math.max(...models.flatMap(({ lengths }) => lengths));
  const ofModel = methods.length * BAR + GAP;
  const height = TOP + models.length * ofModel;
  const scale = (WIDTH - LEFT - RIGHT) / longest;
  const texts: string[] = [];
  let left = LEFT;
  for (const [i, name] of names.entries()) {
    texts.push(`<rect class="c${i}" x="${left}" y="34" width="12" height="12"/>`);
    texts.push(`<text x="${left + 17}" y="44">${name}</text>`);
    left += 34 + name.length * 7;
  }
  for (const [m, { name, lengths }] of models.entries()) {
    const top = TOP + m * ofModel;
    texts.push(`<text class="name" x="${LEFT - 8}" y="${top + (lengths.length * BAR) / 2 + 4}">${name}</text>`);
    for (const [i, length] of lengths.entries()) {
      const [y, width] = [top + i * BAR, Math.round(length * scale * 10) / 10];
      texts.push(`<rect class="c${i}" x="${LEFT}" y="${y}" width="${width}" height="${BAR - 2}"/>`);
      texts.push(`<text class="value" x="${LEFT + width + 4}" y="${y + 10}">${length}K</text>`);
    }
  }
  const colours = (list: readonly string[]) => list.map((colour, i) => `.c${i}{fill:${colour}}`).join('');
  const told = models.map(
    ({ name, lengths }) => `${name}: ${lengths.map((length, i) => `${names[i]} ${length}K`).join(', ')}`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="title about">
<title id="title">The longest sequence on one GPU of 80 GB, by method</title>
<desc id="about">${told.join('. ')}.</desc>
<style>
text{font:12px system-ui,sans-serif;fill:#1f2328}.head{font-size:15px;font-weight:600}.name{text-anchor:end}.value{font-size:11px}
${colours(COLOURS)}
@media (prefers-color-scheme:dark){text{fill:#e6edf3}${colours(DARK)}}
</style>
<text class="head" x="${LEFT}" y="20">Longest sequence of all parameters on one GPU of 80 GB, in 1,024 tokens</text>
${texts.join('\n')}
</svg>
`;
}
