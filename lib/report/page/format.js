// Values as people read them, as lib/report/plots.ts writes them into tables.

/** @param {number} count */
function whole(count) {
  return Math.round(count).toLocaleString('en');
}

/**
 * @param {number} value
 * @param {(scaled: number) => string} write of at least one KiB
 */
function bytes(value, write) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let scaled = value;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${scaled} B` : `${write(scaled)} ${units[unit]}`;
}

/**
 * @param {number | null | undefined} value
 * @param {string} unit
 */
function written(value, unit) {
  if (value === null || value === undefined || !Number.isFinite(value)) return 'none';
  if (unit === 'bytes') return bytes(value, (scaled) => scaled.toFixed(2));
  if (unit === 'rate' || unit === 'count') return whole(value);
  if (unit === 'small') return value === 0 ? '0' : value.toExponential(3);
  return value.toPrecision(5);
}

/**
 * At the ticks of an axis, which are round numbers.
 * @param {number} value
 * @param {string} unit
 */
function tick(value, unit) {
  if (unit === 'bytes') return bytes(value, (scaled) => String(Number(scaled.toPrecision(3))));
  if (unit === 'small') return value === 0 ? '0' : value.toExponential(1);
  if (Math.abs(value) >= 1e6) return `${value / 1e6}M`;
  if (Math.abs(value) >= 1e4) return `${value / 1e3}K`;
  return String(Number(value.toPrecision(6)));
}

/** A colour of the style sheet, for a canvas. @param {string} name */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
