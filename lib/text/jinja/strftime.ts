// datetime.strftime in the C locale, in local time and without a time zone.
import { TemplateError } from './errors.ts';

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];
const DAY_MS = 86_400_000;

export function strftime(format: string, now: Date): string {
  return format.replace(/%([-_0^#]?)(.?)/gsu, (all, flag: string, directive: string) => {
    const text = directiveOf(directive, now);
    if (text === null) throw new TemplateError(`strftime: '${all}' is not supported`);
    if (flag === '-') return text.replace(/^[0 ]+(?=\d)/, '');
    if (flag === '_') return text.replace(/^0+(?=\d)/, (zeros) => ' '.repeat(zeros.length));
    if (flag === '0') return text.replace(/^ +(?=\d)/, (blanks) => '0'.repeat(blanks.length));
    return flag === '' ? text : text.toUpperCase();
  });
}

function directiveOf(directive: string, now: Date): string | null {
  const two = (value: number) => String(value).padStart(2, '0');
  const join = (format: string) => strftime(format, now);
  const [year, month, day, weekday] = [now.getFullYear(), now.getMonth(), now.getDate(), now.getDay()];
  const dayOfYear = (Date.UTC(year, month, day) - Date.UTC(year, 0, 1)) / DAY_MS;
  const iso = isoWeek(year, month, day);
  const hour12 = now.getHours() % 12 || 12;
  const texts: Record<string, () => string> = {
    a: () => DAYS[weekday].slice(0, 3),
    A: () => DAYS[weekday],
    b: () => MONTHS[month].slice(0, 3),
    B: () => MONTHS[month],
    c: () => join('%a %b %e %H:%M:%S %Y'),
    C: () => two(Math.floor(year / 100)),
    d: () => two(day),
    D: () => join('%m/%d/%y'),
    e: () => String(day).padStart(2),
    f: () => `${String(now.getMilliseconds()).padStart(3, '0')}000`,
    F: () => join('%Y-%m-%d'),
    g: () => two(iso.year % 100),
    G: () => String(iso.year),
    h: () => MONTHS[month].slice(0, 3),
    H: () => two(now.getHours()),
    I: () => two(hour12),
    j: () => String(dayOfYear + 1).padStart(3, '0'),
    k: () => String(now.getHours()).padStart(2),
    l: () => String(hour12).padStart(2),
    m: () => two(month + 1),
    M: () => two(now.getMinutes()),
    n: () => '\n',
    p: () => (now.getHours() < 12 ? 'AM' : 'PM'),
    P: () => (now.getHours() < 12 ? 'am' : 'pm'),
    r: () => join('%I:%M:%S %p'),
    R: () => join('%H:%M'),
    s: () => String(Math.floor(now.getTime() / 1000)),
    S: () => two(now.getSeconds()),
    t: () => '\t',
    T: () => join('%H:%M:%S'),
    u: () => String(weekday || 7),
    U: () => two(Math.floor((dayOfYear + 7 - weekday) / 7)),
    V: () => two(iso.week),
    w: () => String(weekday),
    W: () => two(Math.floor((dayOfYear + 7 - ((weekday + 6) % 7)) / 7)),
    x: () => join('%m/%d/%y'),
    X: () => join('%H:%M:%S'),
    y: () => two(year % 100),
    Y: () => String(year),
    z: () => '',
    Z: () => '',
    '%': () => '%',
  };
  return Object.hasOwn(texts, directive) ? texts[directive]() : null;
}

/** The ISO week, which belongs to the year of its Thursday. */
function isoWeek(year: number, month: number, day: number): { year: number; week: number } {
  const date = new Date(Date.UTC(year, month, day));
  const thursday = new Date(date.getTime() + (4 - (date.getUTCDay() || 7)) * DAY_MS);
  const first = Date.UTC(thursday.getUTCFullYear(), 0, 1);
  return { year: thursday.getUTCFullYear(), week: Math.floor((thursday.getTime() - first) / DAY_MS / 7) + 1 };
}
