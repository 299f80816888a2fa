// SPDX-License-Identifier: Apache-2.0
// What the events have told so far, and rates over the last seconds. No DOM.
const WINDOW_MS = 10000;
const LINES_MAX = 200;

export class State {
  constructor() {
    this.forget();
  }

  forget() {
    this.members = new Map();
    this.served = new Map();
    this.mesh = { known: false, error: '', node: '' };
    this.gateway = {};
    this.models = [];
    this.workers = []; // at the gateway's own node
    this.recent = {};
    this.lines = []; // newest first
    this.history = new Map(); // node -> [[at_ms, answers, tokens]]
    this.at = 0;
  }

  // Returns the lines that are new, oldest first; none of an event that tells everything.
  apply(event) {
    if (event.full) {
      this.forget();
      this.since = event.at_ms;
    }
    this.at = event.at_ms;
    this.age = event.age_ms;
    for (const name of ['mesh', 'gateway', 'models', 'recent', 'workers', 'counters',
      'drops']) {
      if (event[name] !== undefined) this[name] = event[name];
    }
    for (const member of event.members ?? []) this.members.set(member.name, member);
    for (const name of event.gone ?? []) this.members.delete(name);
    for (const row of event.served ?? []) {
      const known = this.served.has(row.node);
      this.served.set(row.node, row);
      if (!this.history.has(row.node)) {
        // A node that has served for the first time began at nothing.
        this.history.set(row.node, known || event.full ? [] : [[this.at, 0, 0]]);
      }
      this.history.get(row.node).push([this.at, row.answers, row.new_tokens]);
    }
    const last = this.lines[0]?.n ?? 0;
    const fresh = (event.log ?? []).filter((line) => line.n > last);
    this.lines = [...fresh].reverse().concat(this.lines).slice(0, LINES_MAX);
    return event.full ? [] : fresh;
  }

  // Answers and tokens per second of one node (or of all) in the last WINDOW_MS.
  rate(name) {
    if (name === undefined) {
      const sum = { answers: 0, tokens: 0 };
      for (const node of this.history.keys()) {
        const rate = this.rate(node);
        sum.answers += rate.answers;
        sum.tokens += rate.tokens;
      }
      return sum;
    }
    const points = this.history.get(name);
    if (!points || points.length === 0) return { answers: 0, tokens: 0 };
    // The last point before the window is where it begins.
    while (points.length > 1 && points[1][0] <= this.at - WINDOW_MS) points.shift();
    const first = points[0];
    // Whoever has only begun to look has not seen the whole window.
    const seconds = Math.min(Math.max(this.at - this.since, 1000), WINDOW_MS) / 1000;
    const last = points[points.length - 1];
    return {
      answers: (last[1] - first[1]) / seconds,
      tokens: (last[2] - first[2]) / seconds,
    };
  }

  // Share of prompts' tokens that the node knew already; null = it has had no prompt.
  cached(name) {
    const row = this.served.get(name);
    return row && row.prompt_tokens > 0 ? row.cached_tokens / row.prompt_tokens : null;
  }

  modelNames() {
    const names = new Set();
    for (const member of this.members.values()) {
      for (const model of member.models ?? []) names.add(model);
    }
    return [...names].sort();
  }
}

// As people say it.
export function number(value, digits = 1) {
  if (value === null || value === undefined || Number.isNaN(value)) return '–';
  if (value !== 0 && Math.abs(value) < 10) return value.toFixed(digits).replace(/\.0+$/, '');
  return Math.round(value).toLocaleString('en');
}

// Alive, draining (takes nothing new), suspect, down: the colour of a node.
export function health(member) {
  if (!member.alive) return 'down';
  if (member.state === 'suspect') return 'suspect';
  return member.draining ? 'draining' : 'alive';
}

// The same in words.
export function stateText(member) {
  const life = member.state ?? (member.alive ? 'up' : 'down');
  return health(member) === 'draining' ? 'draining' : life === 'self' ? 'up' : life;
}
