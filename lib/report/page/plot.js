// A plot in its place: drawn anew for another width or scheme of colours, read with a pointer or with keys.

const HEIGHT = 260;
/** Distances of ticks: 1, 2, 5, 10, ..., and for bytes powers of 2. */
const WHOLE = Array.from({ length: 36 }, (_, i) => [1, 2, 5][i % 3] * 10 ** Math.floor(i / 3));
const BINARY = Array.from({ length: 50 }, (_, i) => 2 ** i);
/** Of the x axis that a key takes away or adds, on each side. */
const ZOOM = 0.25;

/**
 * Options of uPlot that every plot has.
 * @param {Plot} plot
 * @param {HTMLElement} place
 */
function commonOptions(plot, place) {
  const axis = { stroke: colour('--quiet'), grid: { stroke: colour('--line'), width: 1 }, ticks: { show: false } };
  return {
    width: Math.max(place.clientWidth, 200),
    height: HEIGHT,
    legend: { show: false },
    scales: { x: { time: false }, y: { range: rangeOf } },
    cursor: {
      drag: { x: true, y: false },
      ...(plot.sync ? { sync: { key: plot.sync, setSeries: false } } : {}),
    },
    axes: [
      {
        ...axis,
        label: plot.xLabel,
        labelSize: 20,
        incrs: WHOLE,
        values: (_, values) => values.map((value) => tick(value, 'count')),
      },
      {
        ...axis,
        size: 72,
        ...(plot.unit === 'bytes' ? { incrs: BINARY } : {}),
        values: (_, values) => values.map((value) => tick(value, plot.unit)),
      },
    ],
  };
}

/** A range of y that is never empty. */
function rangeOf(_, low, high) {
  if (low === null || high === null) return [0, 1];
  if (low === high) return [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
  const margin = (high - low) * 0.08;
  return [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
}

/**
 * Draws a plot and keeps it drawn.
 * @param {Plot} plot
 * @param {(plot: Plot, place: HTMLElement) => { options: object, data: unknown[][] }} describe
 * @param {(index: number | null, readout: HTMLElement) => void} read shows the values of a point; null: nothing is pointed at
 */
function keepDrawn(plot, describe, read) {
  const place = document.getElementById(plot.id);
  const readout = document.getElementById(`${plot.id}-readout`);
  let drawn = null;
  let shown;
  const show = (index) => {
    if (index === shown) return;
    shown = index;
    read(index, readout);
  };
  const draw = () => {
    drawn?.destroy();
    const { options, data } = describe(plot, place);
    const hooks = {
      ...options.hooks,
      setCursor: [({ cursor }) => show(cursor.left >= 0 ? (cursor.idx ?? null) : null)],
    };
    drawn = new uPlot({ ...options, hooks }, data, place);
  };
  draw();
  show(null);
  new ResizeObserver(() => drawn.setSize({ width: Math.max(place.clientWidth, 200), height: HEIGHT })).observe(place);
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', draw);
  place.addEventListener('focus', () => readout.setAttribute('aria-live', 'polite'));
  place.addEventListener('blur', () => readout.removeAttribute('aria-live'));
  place.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !onKey(event, drawn, shown)) return;
    event.preventDefault();
  });
}

/** Moves the cursor or the range of x; false: the key is for something else. */
function onKey({ key, shiftKey }, drawn, shown) {
  const x = drawn.data[0];
  const { min, max } = drawn.scales.x;
  const [first, last] = [x.findIndex((value) => value >= min), x.findLastIndex((value) => value <= max)];
  const stride = shiftKey ? 10 : 1;
  const places = {
    ArrowLeft: shown === null ? last : shown - stride,
    ArrowRight: shown === null ? first : shown + stride,
    Home: first,
    End: last,
  };
  if (key in places) {
    const index = Math.min(Math.max(places[key], first), last);
    drawn.setCursor({ left: drawn.valToPos(x[index], 'x'), top: drawn.over.clientHeight / 2 });
  } else if (key === '+' || key === '=' || key === '-') {
    const step = (max - min) * (key === '-' ? -2 * ZOOM : ZOOM);
    zoom(drawn, { min: Math.max(x[0], min + step), max: Math.min(x[x.length - 1], max - step) });
  } else if (key === '0' || key === 'Escape') zoom(drawn, { min: x[0], max: x[x.length - 1] });
  else return false;
  return true;
}

/** Shows a range of x, in the plots over the same x too, as dragging does. */
function zoom(drawn, range) {
  const { sync } = drawn.cursor;
  for (const each of sync?.key ? uPlot.sync(sync.key).plots : [drawn]) each.setScale('x', range);
}

/** A name with its colour and value. */
function entry(name, value, css) {
  const item = document.createElement('span');
  if (css) {
    const mark = document.createElement('i');
    mark.style.background = `var(${css})`;
    item.append(mark);
  }
  item.append(`${name} ${value}`);
  return item;
}

/** Lines over x. @param {Plot} plot */
function drawLines(plot) {
  const lines = plot.limit
    ? [...plot.series, { label: plot.limit.label, values: plot.x.map(() => plot.limit.value) }]
    : plot.series;
  const describe = (_, place) => {
    const series = lines.map(({ label, values }, i) => {
      const isSparse = values.filter((value) => value !== null).length < values.length / 2;
      const points = isSparse || values.length < 40 ? { show: true, size: 6 } : { show: false };
      return { label, stroke: colour(`--c${i % 7}`), width: 1.5, spanGaps: isSparse, points };
    });
    const options = { ...commonOptions(plot, place), series: [{}, ...series] };
    return { options, data: [plot.x, ...lines.map(({ values }) => values)] };
  };
  keepDrawn(plot, describe, (index, readout) => {
    const at = index ?? plot.x.length - 1;
    const values = lines.map(({ label, values }, i) => entry(label, written(values[at], plot.unit), `--c${i % 7}`));
    readout.replaceChildren(entry(plot.xLabel, whole(plot.x[at])), ...values);
  });
}
