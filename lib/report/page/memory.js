// Areas upon one another: the bytes of a step by category, and what stands beside each point.

/** Sums of the series up to each one, the whole first, so that lower areas are drawn over higher ones. */
function stacked(series) {
  const sums = [];
  for (const { values } of series) sums.push(values.map((value, i) => (value ?? 0) + (sums.at(-1)?.[i] ?? 0)));
  return sums.reverse();
}

/** Lines where parts of the x axis begin, with their names. */
function drawParts(drawn, parts) {
  const { ctx, bbox } = drawn;
  ctx.save();
  ctx.strokeStyle = colour('--quiet');
  ctx.fillStyle = colour('--text');
  ctx.font = `${12 * devicePixelRatio}px system-ui, sans-serif`;
  ctx.textAlign = 'left';
  ctx.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
  for (const { label, begin } of parts) {
    const left = drawn.valToPos(begin, 'x', true);
    if (left < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(left, bbox.top);
    ctx.lineTo(left, bbox.top + bbox.height);
    ctx.stroke();
    if (parts.length <= 4) ctx.fillText(label, left + 4 * devicePixelRatio, bbox.top + 12 * devicePixelRatio);
  }
  ctx.restore();
}

/** @param {Plot} plot */
function drawStack(plot) {
  const { series, parts, notes, start, unit } = plot;
  const describe = (_, place) => {
    const areas = series
      .map(({ label }, i) => ({
        label,
        stroke: colour(`--c${i}`),
        fill: colour(`--c${i}`),
        width: 1,
        paths: uPlot.paths.stepped({ align: 1 }),
        points: { show: false },
      }))
      .reverse();
    const common = commonOptions(plot, place);
    const scales = { ...common.scales, y: { range: (_, __, high) => [0, (high ?? 1) * 1.12] } };
    const hooks = { draw: [(drawn) => drawParts(drawn, parts)] };
    return { options: { ...common, scales, hooks, series: [{}, ...areas] }, data: [plot.x, ...stacked(series)] };
  };
  keepDrawn(plot, describe, (index, readout) => {
    const at = index ?? start;
    const total = series.reduce((sum, { values }) => sum + values[at], 0);
    const list = document.createElement('ol');
    for (const note of notes[at]) {
      const item = document.createElement('li');
      item.textContent = note;
      list.append(item);
    }
    const values = series.map(({ label, values }, i) => entry(label, written(values[at], unit), `--c${i}`));
    const place = entry(index === null ? 'peak, at' : plot.xLabel, whole(plot.x[at]));
    readout.replaceChildren(place, entry('total', written(total, unit)), ...values, list);
  });
}
