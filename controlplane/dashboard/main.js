// SPDX-License-Identifier: Apache-2.0
// The dashboard's beginning: the stream's events go into the state, the state into map and panels.
// Start reading here; state.js says what an event is.
import { MeshMap, REGIONS } from './map.js';
import { $, found, latency, log, make, nodes, question, totals } from './panels.js';
import { State, number } from './state.js';
import { ask, connect } from './stream.js';

const PANELS_MS = 250;

const state = new State();
let link = 'waiting';
let linkText = 'connecting';
let heard = 0; // when the last event came, by this machine's clock
let marked = null;

async function coastlines() {
  try {
    return await (await fetch('/dashboard/coast.json')).json();
  } catch {
    return [];
  }
}

const map = new MeshMap($('canvas'), $('tip'), await coastlines());

// ---- panels, at most four times a second ----

let dirty = false;
let lastPanels = 0;

function pick(name) {
  marked = marked === name ? null : name;
  map.mark(marked);
  const member = state.members.get(marked);
  if (member) map.go(member.longitude_deg, member.latitude_deg, Math.max(map.zoom, 4));
  panels();
}

function panels() {
  dirty = false;
  lastPanels = performance.now();
  totals(state);
  nodes(state, $('filter').value, marked, pick);
  latency(state);
  models();
}

function models() {
  const names = state.modelNames();
  const list = $('models');
  if ([...list.children].map((o) => o.value).join() !== names.join()) {
    list.replaceChildren(...names.map((name) => {
      const option = make('option');
      option.value = name;
      return option;
    }));
  }
  const field = $('ask').elements.model;
  if (field.value === '' && document.activeElement !== field && names.length > 0
    && !field.dataset.used) {
    field.value = names[0];
    field.dataset.used = '1';
  }
}

// ---- what the figures are worth ----

function notice() {
  if (link === 'lost' && heard > 0) {
    const seconds = Math.round((Date.now() - heard) / 1000);
    return `Connection lost: ${linkText}. All figures are ${seconds} s old. Trying again.`;
  }
  if (link === 'lost') return `Not connected: ${linkText}. Trying again.`;
  if (link !== 'live' || heard === 0) return '';
  const mesh = state.mesh;
  if (!mesh.known && mesh.error) {
    return `The node next to this gateway does not answer (${mesh.error}). Members are as they were`
      + ' last heard of.';
  }
  if (!mesh.known) {
    return 'This gateway has no node to ask (start it with --admin): only its own answers are known.';
  }
  if (state.modelNames().length === 0) {
    return state.members.size <= 1
      ? 'One node and no model: attach a worker (weft-worker --model FILE), or let the node join a '
        + 'mesh.'
      : 'No node has a model: attach a worker (weft-worker --model FILE).';
  }
  return '';
}

function stale() {
  return link !== 'live' || (heard > 0 && !state.mesh.known);
}

function status() {
  const text = notice();
  const box = $('notice');
  box.hidden = text === '';
  if (box.textContent !== text) box.textContent = text;
  box.dataset.state = link === 'lost' || state.mesh.error ? 'bad' : 'hint';
  $('link').dataset.state = link === 'live' && stale() ? 'waiting' : link;
  const word = link === 'live' ? (stale() ? 'node unknown' : 'live')
    : link === 'lost' ? 'disconnected' : 'connecting';
  if ($('link').textContent !== word) $('link').textContent = word;
  document.body.classList.toggle('stale', link === 'lost');
  if (map.dim !== stale()) map.show(state.members, state.mesh.node, stale());
}

// ---- the stream ----

function onEvent(event) {
  const fresh = state.apply(event);
  heard = Date.now();
  const mesh = state.mesh;
  const where = mesh.node ? `${mesh.node} · weft ${mesh.version} · members by ${
    mesh.membership === 'gossip' ? 'gossip' : 'configuration'}` : 'no node known';
  if ($('where').textContent !== where) $('where').textContent = where;
  if (event.full || event.members || event.gone || event.mesh) {
    map.show(state.members, mesh.node, stale());
  }
  if (event.full) log(state, null);
  else if (fresh.length > 0) log(state, fresh);
  for (const line of fresh) if (line.node) map.flow(line.node, line.status !== '');
  const wait = PANELS_MS - (performance.now() - lastPanels);
  if (!dirty) {
    dirty = true;
    setTimeout(panels, Math.max(wait, 0));
  }
  status();
}

const stream = connect({
  event: onEvent,
  state(name, text) {
    link = name;
    linkText = text;
    status();
  },
  key() {
    $('key').hidden = false;
    link = 'waiting';
    linkText = 'a key is needed';
    status();
  },
});
setInterval(status, 1000);

// ---- what people do ----

$('key').addEventListener('submit', (event) => {
  event.preventDefault();
  $('key').hidden = true;
  stream.useKey($('key-text').value);
});

$('filter').addEventListener('input', panels);

$('ask').addEventListener('submit', async (event) => {
  event.preventDefault();
  try {
    found(await ask('/v1/route', question(event.target, map)));
  } catch (error) {
    $('found').replaceChildren(make('p', error.message, 'verdict bad'));
  }
});

for (const [name, view] of Object.entries(REGIONS)) {
  const button = make('button', name);
  button.type = 'button';
  button.addEventListener('click', () => map.go(...view));
  $('regions').append(button);
}
map.onmove = () => {
  for (const button of $('regions').children) {
    const [lon, lat, zoom] = REGIONS[button.textContent];
    const here = Math.abs(map.lon - lon) < 0.01 && Math.abs(map.zoom - zoom) < 0.01
      && (zoom === 1 || Math.abs(map.lat - lat) < 0.01);
    button.setAttribute('aria-pressed', String(here));
  }
};
map.onpick = pick;
map.onmove();
$('legend').append(...Array.from({ length: 8 }, (_, tier) => {
  const mark = make('span', number(tier), '');
  mark.prepend(make('span', undefined, `dot tier-${tier}`));
  return mark;
}));
$('legend').prepend(make('span', 'tier'));
const states = make('span', undefined, 'states');
states.append(...['draining', 'suspect', 'down'].map((name) => {
  const mark = make('span', name);
  mark.prepend(make('span', undefined, `dot is-${name}`));
  return mark;
}));
$('legend').append(states);
totals(state);
latency(state);
