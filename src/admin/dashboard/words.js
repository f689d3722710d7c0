// Elements, and numbers as people read them. Text goes into the page as text: names, reasons and SQL are written by others.

const SVG = "http://www.w3.org/2000/svg";

/** An element. What begins with "on" is a listener, `text` its text, anything else an attribute; null leaves it out. */
export function make(tag, attributes = {}, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), attributes, children);
}

function furnish(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Changes a text only if it is another one: a screen reader would read it again, and a selection would be gone. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function show(element, isShown) {
  if (element.hidden === isShown) element.hidden = !isShown;
}

/** Has one child for each item, in their order. Those that stay keep their element, and with it focus and selection. */
export function keyed(parent, items, key, create, update) {
  const known = new Map([...parent.children].filter((child) => child.dataset.key !== undefined).map((child) => [child.dataset.key, child]));
  let before = null;
  for (const item of [...items].reverse()) {
    const name = String(key(item));
    let child = known.get(name);
    known.delete(name);
    if (!child) {
      child = create(item);
      child.dataset.key = name;
    }
    if (child.nextElementSibling !== before || child.parentNode !== parent) parent.insertBefore(child, before);
    update(child, item);
    before = child;
  }
  for (const gone of known.values()) gone.remove();
}

/** Term and description, in a <dl>. `items`: [term, description, note, tone]. */
export function facts(list, items) {
  const create = ([term]) => make("div", {}, make("dt", { text: term }), make("dd"), make("small"));
  keyed(list, items, ([term]) => term, create, (element, [, value, note = "", tone = ""]) => {
    say(element.children[1], value);
    say(element.children[2], note);
    if (element.className !== tone) element.className = tone;
  });
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1, minimumFractionDigits: 1 });

export function count(number) {
  return whole.format(number);
}

export function rate(number) {
  if (number === null || number === undefined) return "–";
  return number < 0.05 || number >= 10 ? whole.format(number) : tenth.format(number);
}

export function bytes(number) {
  if (number === null || number === undefined) return "unknown";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (number >= 1024 && at < units.length - 1) {
    number /= 1024;
    at += 1;
  }
  return `${at === 0 || number >= 100 ? whole.format(number) : tenth.format(number)} ${units[at]}`;
}

export function time(ms) {
  if (ms === null || ms === undefined) return "unknown";
  if (ms < 1) return ms === 0 ? "0 ms" : `${ms.toFixed(2)} ms`;
  if (ms < 1000) return `${whole.format(ms)} ms`;
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(2)} s`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const [minutes, hours, days] = [seconds / 60, seconds / 3600, seconds / 86400].map(Math.floor);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}

/** For reading along: no more than one unit, "a moment" below a second. */
export function roughly(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 1) return "a moment";
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

export function moment(ms) {
  return clock.format(new Date(ms));
}

export function date(ms) {
  const then = new Date(ms);
  return then.toDateString() === new Date().toDateString() ? clock.format(then) : `${day.format(then)}, ${clock.format(then)}`;
}
