// SPDX-License-Identifier: Apache-2.0
// Everything beside the map: cards of nodes, latency, the log, answers to queries. Text goes in as
// text only. Rows are kept and changed in place, so that focus and selection stay.
import { health, number, stateText } from './state.js';

const CARDS_MAX = 60;
const LINES_SHOWN = 60;

export const $ = (id) => document.getElementById(id);

export function make(tag, text, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  return element;
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

// ---- head ----

export function totals(state) {
  const rate = state.rate();
  const alive = [...state.members.values()].filter((m) => m.alive).length;
  const rows = [
    ['nodes', state.members.size ? `${alive} / ${state.members.size}` : '–',
      'alive / known members'],
    ['running', number(state.gateway.running), 'requests whose text is coming'],
    ['waiting', number(state.gateway.waiting), 'requests without a first token'],
    ['answers/s', number(rate.answers), 'ended, over the last 10 s'],
    ['tokens/s', number(rate.tokens), 'of answers that ended, over the last 10 s'],
  ];
  const list = $('totals');
  if (list.childElementCount !== rows.length) {
    list.replaceChildren(...rows.map(([name, , title]) => {
      const box = make('div');
      box.title = title;
      box.append(make('dt', name), make('dd'));
      return box;
    }));
  }
  rows.forEach(([, value], i) => set(list.children[i].lastChild, value));
}

// ---- cards ----

// Of each card: label, title, and value() to [text, the number as /metrics has it].
const percent = (share) => (share === null ? '–' : `${number(share * 100, 0)} %`);
const ms = (us, digits) => `${number(us / 1000, digits)} ms`;
const FIGURES = [
  ['ans/s', 'answers per second through this gateway, over the last 10 s',
    (m, s) => [number(s.rate(m.name).answers)]],
  ['tok/s', 'tokens per second of answers that ended, over the last 10 s',
    (m, s) => [number(s.rate(m.name).tokens)]],
  ['cached', 'share of prompt tokens the node knew already, through this gateway',
    (m, s) => [percent(s.cached(m.name)), s.cached(m.name)]],
  ['queue', 'predicted wait of a new request',
    (m) => (serves(m) && !m.draining ? [ms(m.queue_us), m.queue_us * 1e-6] : ['–'])],
  ['room', 'requests it would still accept',
    (m) => (serves(m) ? [number(m.room), m.room] : ['–'])],
  ['VRAM', 'accelerator memory free, GiB',
    (m) => (serves(m) ? [`${number(m.free_vram_mib / 1024)} G`, m.free_vram_mib * 1048576]
      : ['–'])],
  ['rtt', 'round trip from this node in ms; ~ not measured',
    (m, s) => (m.name === s.mesh.node || m.rtt_us === null ? ['–']
      : [(m.rtt_estimated ? '~' : '') + number(m.rtt_us / 1000, 2), m.rtt_us * 1e-6])],
];
// Of each worker at the gateway's own node: others tell theirs to their own gateways.
const WORKER_FIGURES = [
  ['running', 'requests being answered, of slots',
    (w) => [`${w.running} / ${w.slots}`, w.running]],
  ['waiting', 'requests for a slot, or for the model', (w) => [number(w.waiting), w.waiting]],
  ['KV', 'of its KV cache, held by requests', (w) => [percent(w.kv_usage), w.kv_usage]],
  ['known', 'tokens of prompts that its prefix cache knew',
    (w) => [percent(w.prefix_queries > 0 ? w.prefix_hits / w.prefix_queries : null),
      w.prefix_hits]],
  ['read/s', 'tokens of prompts per second, measured',
    (w) => [number(w.prefill_tps, 0), w.prefill_tps]],
  ['write/s', 'tokens per second of one answer alone, measured',
    (w) => [number(w.decode_tps, 0), w.decode_tps]],
  ['memory', 'weights, KV cache and buffers, GiB',
    (w) => [w.loaded ? `${number(w.memory_mib / 1024)} G` : 'none', w.memory_mib * 1048576]],
];
const cards = new Map();

function serves(member) {
  return (member.models ?? []).length > 0;
}

function figures(table) {
  const list = make('span', undefined, 'figures');
  for (const [label, title] of table) {
    const cell = make('span');
    cell.append(make('i', label), make('em', '–'));
    cell.title = title;
    list.append(cell);
  }
  return list;
}

function figuresFill(list, table, of, state) {
  table.forEach(([, , value], i) => {
    const [text, exact] = value(of, state);
    const cell = list.children[i].lastChild;
    set(cell, text);
    if (exact === undefined || exact === null) delete cell.dataset.value;
    else cell.dataset.value = exact;
  });
}

function card(name, onpick) {
  const item = make('li');
  const button = make('button', undefined, 'card');
  button.type = 'button';
  const head = make('span', undefined, 'head');
  head.append(make('span', undefined, 'dot'), make('b', name), make('span', '', 'tier'),
    make('span', '', 'state'));
  button.append(head, make('span', '', 'what'), figures(FIGURES),
    make('span', undefined, 'workers'));
  button.addEventListener('click', () => onpick(name));
  item.dataset.node = name;
  item.append(button);
  return item;
}

function workersFill(box, workers) {
  while (box.childElementCount > workers.length) box.lastChild.remove();
  workers.forEach((worker, i) => {
    if (!box.children[i]) {
      const row = make('span', undefined, 'worker');
      row.append(make('span', '', 'what'), figures(WORKER_FIGURES));
      box.append(row);
    }
    const row = box.children[i];
    row.dataset.pid = worker.pid;
    set(row.firstChild, `worker · ${worker.model}${worker.draining ? ' · draining' : ''}`);
    figuresFill(row.lastChild, WORKER_FIGURES, worker);
  });
}

// With the tokens a second of prompts and of one answer, where they have been told.
function modelText(member, name) {
  const speeds = (member.speeds ?? []).find((s) => s.model === name);
  return speeds
    ? `${name} (${number(speeds.prefill_tps, 0)}/${number(speeds.decode_tps, 0)} tokens/s)` : name;
}

function cardFill(item, member, state, here) {
  const [head, what, list, workers] = item.firstChild.children;
  item.firstChild.dataset.health = health(member);
  head.children[0].className = `dot tier-${Math.min(member.tier ?? 0, 7)}`;
  set(head.children[2], `tier ${member.tier}`);
  const life = stateText(member);
  set(head.children[3], member.name === here ? `${life} · here` : life);
  const models = (member.models ?? []).map((name) => modelText(member, name)).join(', ');
  set(what, [member.backend || 'no worker', models, member.jurisdiction,
    (member.tags ?? []).join(' '), member.place_doubted ? 'place doubted' : '']
    .filter(Boolean).join(' · '));
  what.title = what.textContent;
  figuresFill(list, FIGURES, member, state);
  workersFill(workers, member.name === here ? state.workers : []);
}

// Oneself, then who serves most, then who has a worker, then by name.
function order(state) {
  const here = state.mesh.node;
  const rank = (m) => (m.name === here ? 0 : serves(m) ? 1 : 2);
  const served = (m) => state.served.get(m.name)?.answers ?? 0;
  return (a, b) => rank(a) - rank(b) || served(b) - served(a) || (a.name < b.name ? -1 : 1);
}

export function nodes(state, filter, marked, onpick) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (m) => [m.name, m.backend, stateText(m), m.jurisdiction, `tier ${m.tier}`,
    ...(m.models ?? []), ...(m.tags ?? [])].join(' ').toLowerCase();
  const fitting = [...state.members.values()]
    .filter((m) => words.every((word) => text(m).includes(word)));
  const chosen = fitting.sort(order(state)).slice(0, CARDS_MAX);
  const list = $('cards');
  const wanted = new Set(chosen.map((m) => m.name));
  for (const [name, item] of cards) {
    if (!wanted.has(name)) {
      item.remove();
      cards.delete(name);
    }
  }
  chosen.forEach((member, i) => {
    if (!cards.has(member.name)) cards.set(member.name, card(member.name, onpick));
    const item = cards.get(member.name);
    if (list.children[i] !== item) list.insertBefore(item, list.children[i] ?? null);
    cardFill(item, member, state, state.mesh.node);
    item.firstChild.setAttribute('aria-pressed', String(member.name === marked));
  });
  const hidden = fitting.length - chosen.length;
  set($('cards-more'), hidden > 0 ? `and ${hidden} more; the field above narrows the list`
    : state.members.size > 0 && fitting.length === 0 ? 'none fits' : '');
}

// ---- latency ----

const KINDS = { first_token: 'first token', per_token: 'between tokens', duration: 'whole answer' };
const QUANTILES = ['0.5', '0.9', '0.95', '0.99'];

export function latency(state) {
  const rows = Object.entries(KINDS).map(([kind, title]) => {
    const row = make('tr');
    const head = make('th', title);
    head.scope = 'row';
    row.append(head, ...QUANTILES.map((q) => {
      const seconds = state.recent[kind]?.[q];
      return make('td', number(seconds === undefined ? null : seconds * 1000, 2));
    }));
    return row;
  });
  $('quantiles').replaceChildren(...rows);
  const count = state.recent.duration?.count ?? 0;
  set($('latency-of'), count === 0 ? 'No whole answer yet.'
    : `Of the last ${count} whole answers through this gateway.`);
}

// ---- the log ----

export function line(entry) {
  const row = make('tr');
  const time = new Date(entry.at_ms).toLocaleTimeString('en-GB');
  row.append(make('td', time), make('td', entry.node || 'nobody'), make('td', entry.model),
    make('td', `${entry.prompt} → ${entry.tokens}`),
    make('td', entry.ttft_ms ? number(entry.ttft_ms, 2) : '–'), make('td', number(entry.ms, 2)));
  const notes = [entry.status || 'whole'];
  if (entry.failovers) notes.push(`${entry.failovers} taken over`);
  if (entry.hedged) notes.push('hedged');
  if (entry.cached) notes.push(`${entry.cached} cached`);
  row.append(make('td', notes.join(', ')));
  if (entry.status) row.className = 'bad';
  return row;
}

export function log(state, fresh) {
  const body = $('lines');
  $('log-none').hidden = state.lines.length > 0;
  if (fresh === null) {
    body.replaceChildren(...state.lines.slice(0, LINES_SHOWN).map(line));
    return;
  }
  body.prepend(...fresh.slice(-LINES_SHOWN).reverse().map(line));
  while (body.childElementCount > LINES_SHOWN) body.lastChild.remove();
}

// ---- a query ----

export function question(form, map) {
  const asked = { model: form.elements.model.value.trim(), k: 8 };
  if (form.elements.tier.value) asked.tier = form.elements.tier.value;
  for (const name of ['radius_km', 'vram_gib', 'budget_ms']) {
    if (form.elements[name].value) asked[name] = Number(form.elements[name].value);
  }
  if (form.elements.near.checked) asked.near = [map.lat, map.lon];
  return asked;
}

function table(titles, rows) {
  const made = make('table');
  const head = make('tr');
  for (const title of titles) {
    const cell = make('th', title);
    cell.scope = 'col';
    head.append(cell);
  }
  made.append(make('thead'), make('tbody'));
  made.firstChild.append(head);
  made.lastChild.append(...rows);
  return made;
}

export function found(answer) {
  const place = new Map([...answer.candidates].sort((a, b) => a.predicted_ms - b.predicted_ms)
    .map((c, i) => [c.name, i + 1]));
  const rows = answer.candidates.map((c, i) => {
    const row = make('tr', undefined, c.name === answer.would_choose ? 'chosen' : '');
    row.append(...[i + 1, place.get(c.name), c.name === answer.would_choose ? `${c.name} ✓` : c.name,
      number(c.distance_km), number(c.predicted_ms, 2), c.room].map((v) => make('td', String(v))));
    return row;
  });
  const parts = [];
  parts.push(make('p', answer.would_choose ? `It would go to ${answer.would_choose}.`
    : 'Nobody can take it.', answer.would_choose ? 'verdict' : 'verdict bad'));
  if (rows.length > 0) {
    parts.push(table(['by distance', 'by time', 'node', 'km', 'ms', 'room'], rows));
  }
  const barred = answer.excluded.slice(0, 12).map((e) => {
    const row = make('tr');
    row.append(make('td', e.name), make('td', e.verdict), make('td', e.text));
    return row;
  });
  if (barred.length > 0) {
    const more = answer.excluded.length - barred.length;
    parts.push(make('h3', `Not these${more > 0 ? ` (and ${more} more)` : ''}`),
      table(['node', 'verdict', 'why'], barred));
  }
  if (!answer.complete) {
    parts.push(make('p', `Not heard: ${answer.not_heard.join(', ')}`, 'quiet'));
  }
  $('found').replaceChildren(...parts);
}
