// Draws every plot of the page from its data.

for (const plot of JSON.parse(document.getElementById('data').textContent).plots) {
  if (plot.kind === 'stack') drawStack(plot);
  else drawLines(plot);
}
