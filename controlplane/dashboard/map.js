// SPDX-License-Identifier: Apache-2.0
// The map: the torus of positions unrolled. Longitude goes around (the map repeats sideways),
// latitude does not. Coasts and grid are drawn once for each view and kept (ground), nodes over them
// when one has changed (layer); what moves costs one copy of that and the flows.
import { health, stateText } from './state.js';

const FLOW_MS = 1600;
const FLOWS_MAX = 200;
const LABELS_MAX = 60;
const ZOOM_MAX = 64;
const TIERS = 8;
const LABEL_FONT = '11px system-ui, sans-serif';

export const REGIONS = {
  World: [0, 12, 1], Europe: [12, 52, 5.5], 'N America': [-98, 42, 3.2],
  'S America': [-60, -22, 3.2], Africa: [18, 2, 3.4], Asia: [100, 32, 3],
  Oceania: [140, -26, 4.4],
};

export class MeshMap {
  constructor(canvas, tip, coast) {
    this.canvas = canvas;
    this.tip = tip;
    this.coast = coast.map(points);
    this.context = canvas.getContext('2d');
    this.ground = document.createElement('canvas');
    this.layer = document.createElement('canvas');
    this.calm = matchMedia('(prefers-reduced-motion: reduce)');
    this.members = new Map();
    this.here = '';
    this.flows = [];
    this.marked = null;
    this.dim = false;
    [this.lon, this.lat, this.zoom] = REGIONS.World;
    this.fingers = new Map(); // pointers that are down, by id
    this.onpick = () => {};
    this.onmove = () => {};
    new ResizeObserver(() => this.resize()).observe(canvas.parentElement);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.repaint());
    this.listen();
    this.resize();
  }

  // ---- what is shown ----

  show(members, here, dim) {
    this.members = members;
    this.here = here;
    this.dim = dim;
    this.changed();
  }

  flow(name, failed) {
    if (this.flows.length >= FLOWS_MAX) this.flows.shift();
    this.flows.push({ name, failed, from: performance.now() });
    this.redraw();
  }

  mark(name) {
    this.marked = name;
    this.changed();
  }

  go(lon, lat, zoom) {
    this.zoom = Math.min(Math.max(zoom, 1), ZOOM_MAX);
    this.lon = ((lon + 540) % 360) - 180;
    const reach = this.height / 2 / this.scale();
    const room = Math.max(90 - reach, 0);
    this.lat = Math.min(Math.max(lat, -room), room);
    this.canvas.dataset.view = [this.lon, this.lat, this.zoom].map((n) => n.toFixed(3)).join(' ');
    this.repaint();
    this.onmove();
  }

  // ---- projection: equirectangular ----

  scale() {
    // Pixels of a degree; at zoom 1 the whole ring of longitudes fits.
    return (this.width / 360) * this.zoom;
  }

  x(lon) {
    const off = ((lon - this.lon + 540) % 360) - 180;
    return this.width / 2 + off * this.scale();
  }

  y(lat) {
    return this.height / 2 - (lat - this.lat) * this.scale();
  }

  // ---- size and paint ----

  resize() {
    const box = this.canvas.parentElement.getBoundingClientRect();
    const ratio = Math.min(devicePixelRatio || 1, 2);
    this.width = Math.max(box.width, 50);
    this.height = Math.max(box.height, 50);
    for (const canvas of [this.canvas, this.ground, this.layer]) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(this.height * ratio);
      canvas.getContext('2d').setTransform(ratio, 0, 0, ratio, 0, 0);
    }
    this.go(this.lon, this.lat, this.zoom);
  }

  colours() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    const tiers = [];
    for (let i = 0; i < TIERS; i++) tiers.push(of(`--tier-${i}`));
    return { sea: of('--sea'), land: of('--land'), grid: of('--grid'), text: of('--text'),
      card: of('--card'), flow: of('--flow'), bad: of('--bad'), warn: of('--warn'), tiers };
  }

  repaint() {
    this.paint = this.colours();
    const c = this.ground.getContext('2d');
    c.fillStyle = this.paint.sea;
    c.fillRect(0, 0, this.width, this.height);
    this.drawLand(c);
    this.drawGrid(c);
    this.changed();
  }

  drawLand(c) {
    const scale = this.scale();
    const middle = this.width / 2;
    c.fillStyle = c.strokeStyle = this.paint.land;
    c.lineWidth = 1.2; // closes the seams between countries
    for (const turn of [-360, 0, 360]) {
      c.beginPath();
      for (const ring of this.coast) {
        for (let i = 0; i < ring.length; i += 2) {
          const x = middle + (ring[i] - this.lon + turn) * scale;
          const y = this.y(ring[i + 1]);
          if (i === 0) c.moveTo(x, y);
          else c.lineTo(x, y);
        }
        c.closePath();
      }
      c.fill('nonzero');
      c.stroke();
    }
  }

  drawGrid(c) {
    const step = this.zoom < 2.5 ? 30 : this.zoom < 8 ? 10 : this.zoom < 24 ? 5 : 1;
    c.strokeStyle = this.paint.grid;
    c.lineWidth = 1;
    c.beginPath();
    for (let lat = -90; lat <= 90; lat += step) {
      const y = Math.round(this.y(lat)) + 0.5;
      c.moveTo(0, y);
      c.lineTo(this.width, y);
    }
    const span = this.width / this.scale();
    const first = Math.ceil((this.lon - span / 2) / step) * step;
    for (let lon = first; lon <= this.lon + span / 2; lon += step) {
      const x = Math.round(this.width / 2 + (lon - this.lon) * this.scale()) + 0.5;
      c.moveTo(x, Math.max(this.y(90), 0));
      c.lineTo(x, Math.min(this.y(-90), this.height));
    }
    c.stroke();
  }

  changed() {
    this.old = true;
    this.redraw();
  }

  redraw() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame((now) => {
      this.due = false;
      this.draw(now);
    });
  }

  draw(now) {
    if (this.old) {
      const layer = this.layer.getContext('2d');
      layer.globalAlpha = 1;
      layer.drawImage(this.ground, 0, 0, this.width, this.height);
      layer.globalAlpha = this.dim ? 0.4 : 1;
      this.drawNodes(layer);
      this.old = false;
    }
    const c = this.context;
    c.drawImage(this.layer, 0, 0, this.width, this.height);
    this.flows = this.flows.filter((flow) => now - flow.from < FLOW_MS);
    this.drawFlows(c, now);
    c.globalAlpha = 1;
    if (this.flows.length > 0) this.redraw();
  }

  // ---- nodes ----

  place(member) {
    return [this.x(member.longitude_deg ?? 0), this.y(member.latitude_deg ?? 0)];
  }

  inside(x, y) {
    return x > -20 && x < this.width + 20 && y > -20 && y < this.height + 20;
  }

  drawNodes(c) {
    const many = this.members.size > 150;
    const radius = many ? 3.5 : 5.5;
    const paths = new Map(); // by colour: as few fills as possible
    const rings = new Path2D();
    const holes = new Path2D(); // who takes nothing new
    const seen = [];
    for (const member of this.members.values()) {
      const [x, y] = this.place(member);
      if (!this.inside(x, y)) continue;
      const state = health(member);
      const colour = state === 'down' ? this.paint.bad
        : this.paint.tiers[Math.min(member.tier ?? 0, TIERS - 1)];
      if (!paths.has(colour)) paths.set(colour, new Path2D());
      const path = paths.get(colour);
      path.moveTo(x + radius, y);
      path.arc(x, y, radius, 0, 7);
      if (state === 'draining') {
        holes.moveTo(x + radius - 2, y);
        holes.arc(x, y, radius - 2, 0, 7);
      }
      if (state === 'suspect') {
        rings.moveTo(x + radius + 3, y);
        rings.arc(x, y, radius + 3, 0, 7);
      }
      seen.push([x, y, member]);
    }
    c.lineWidth = 1.5;
    c.strokeStyle = this.paint.card;
    for (const [colour, path] of paths) {
      c.fillStyle = colour;
      c.fill(path);
      if (!many) c.stroke(path);
    }
    c.fillStyle = this.paint.card;
    c.fill(holes);
    c.strokeStyle = this.paint.warn;
    c.stroke(rings);
    this.drawMarks(c, radius);
    this.drawLabels(c, seen, radius);
  }

  drawMarks(c, radius) {
    for (const [name, colour] of [[this.here, this.paint.text], [this.marked, this.paint.flow]]) {
      const member = this.members.get(name);
      if (!member) continue;
      const [x, y] = this.place(member);
      c.strokeStyle = colour;
      c.lineWidth = 2;
      c.beginPath();
      c.arc(x, y, radius + (name === this.marked ? 7 : 4), 0, 7);
      c.stroke();
    }
  }

  // Names that fit without covering each other; this gateway's node first.
  drawLabels(c, seen, radius) {
    const taken = [];
    c.font = LABEL_FONT;
    c.textBaseline = 'middle';
    c.lineWidth = 3;
    c.strokeStyle = this.paint.sea;
    c.fillStyle = this.paint.text;
    const first = (row) => (row[2].name === this.marked ? 0 : row[2].name === this.here ? 1 : 2);
    if (seen.length > 400) seen = seen.filter((row) => first(row) < 2);
    seen.sort((a, b) => first(a) - first(b));
    let count = 0;
    for (const [x, y, member] of seen) {
      if (count >= LABELS_MAX) break;
      const width = c.measureText(member.name).width;
      const right = x + radius + 7 + width < this.width;
      const left = right ? x + radius + 7 : x - radius - 7 - width;
      const box = [left - 3, y - 8, left + width + 3, y + 8];
      if (taken.some((t) => t[0] < box[2] && box[0] < t[2] && t[1] < box[3] && box[1] < t[3])) {
        continue;
      }
      taken.push(box);
      c.strokeText(member.name, left, y);
      c.fillText(member.name, left, y);
      count++;
    }
  }

  // ---- flows: from this gateway's node to the one that served ----

  drawFlows(c, now) {
    const here = this.members.get(this.here);
    if (!here) return;
    const [x0, y0] = this.place(here);
    for (const flow of this.flows) {
      const member = this.members.get(flow.name);
      if (!member) continue;
      const part = Math.min((now - flow.from) / FLOW_MS, 1);
      const [ax, y1] = this.place(member);
      const turn = 360 * this.scale();
      const x1 = ax - x0 > turn / 2 ? ax - turn : x0 - ax > turn / 2 ? ax + turn : ax;
      c.strokeStyle = c.fillStyle = flow.failed ? this.paint.bad : this.paint.flow;
      c.globalAlpha = (this.dim ? 0.4 : 1) * (this.calm.matches ? 0.8 : 1 - part * part);
      this.drawFlow(c, x0, y0, x1, y1, part);
    }
  }

  drawFlow(c, x0, y0, x1, y1, part) {
    const length = Math.hypot(x1 - x0, y1 - y0);
    c.lineWidth = 1.8;
    c.beginPath();
    if (length < 2) {
      c.arc(x0, y0, this.calm.matches ? 12 : 6 + 14 * part, 0, 7);
      c.stroke();
      return;
    }
    const mx = (x0 + x1) / 2;
    const my = (y0 + y1) / 2 - Math.min(length * 0.22, 70);
    c.moveTo(x0, y0);
    c.quadraticCurveTo(mx, my, x1, y1);
    c.stroke();
    if (!this.calm.matches) {
      const t = Math.min(part * 1.6, 1);
      const u = 1 - t;
      c.beginPath();
      c.arc(u * u * x0 + 2 * u * t * mx + t * t * x1, u * u * y0 + 2 * u * t * my + t * t * y1,
        3.2, 0, 7);
      c.fill();
    }
  }

  // ---- pointer and keys ----

  nearest(event) {
    const box = this.canvas.getBoundingClientRect();
    const px = event.clientX - box.left;
    const py = event.clientY - box.top;
    let best = null;
    let least = event.pointerType === 'touch' ? 24 : 14;
    for (const member of this.members.values()) {
      const [x, y] = this.place(member);
      const away = Math.hypot(x - px, y - py);
      if (away < least) {
        least = away;
        best = member;
      }
    }
    return best;
  }

  hover(event) {
    const member = this.nearest(event);
    this.tip.hidden = member === null;
    if (member === null) return;
    const [x, y] = this.place(member);
    this.tip.textContent = `${member.name} · tier ${member.tier} · ${member.backend || 'no worker'}`
      + ` · ${stateText(member)}`;
    this.tip.style.left = `${Math.min(x + 12, this.width - 190)}px`;
    this.tip.style.top = `${Math.max(y - 34, 4)}px`;
  }

  zoomAt(event, factor) {
    const box = this.canvas.getBoundingClientRect();
    const dx = event.clientX - box.left - this.width / 2;
    const dy = event.clientY - box.top - this.height / 2;
    const zoom = Math.min(Math.max(this.zoom * factor, 1), ZOOM_MAX);
    const move = 1 / this.scale() - this.zoom / zoom / this.scale();
    this.go(this.lon + dx * move, this.lat - dy * move, zoom);
  }

  // What is held: the place under one finger (or the mouse), or between two, which also zoom.
  hold(moved) {
    const at = [...this.fingers.values()].slice(0, 2);
    if (at.length === 0) return null;
    const of = (key) => at.reduce((sum, e) => sum + e[key], 0) / at.length;
    const wide = at.length < 2 ? 0
      : Math.hypot(at[0].clientX - at[1].clientX, at[0].clientY - at[1].clientY);
    return { clientX: of('clientX'), clientY: of('clientY'), wide, moved,
      lon: this.lon, lat: this.lat };
  }

  drag(event) {
    if (!this.fingers.has(event.pointerId)) {
      this.hover(event);
      return;
    }
    this.fingers.set(event.pointerId, event);
    const held = this.held;
    const now = this.hold(true);
    const dx = now.clientX - held.clientX;
    const dy = now.clientY - held.clientY;
    if (!held.moved && Math.hypot(dx, dy) <= 4) return;
    held.moved = true;
    this.go(held.lon - dx / this.scale(), held.lat + dy / this.scale(), this.zoom);
    if (now.wide > 0) {
      this.zoomAt(now, now.wide / Math.max(held.wide, 1));
      this.held = this.hold(true);
    }
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener('pointermove', (e) => this.drag(e));
    canvas.addEventListener('pointerleave', () => { this.tip.hidden = true; });
    canvas.addEventListener('pointerdown', (e) => {
      canvas.setPointerCapture(e.pointerId);
      this.fingers.set(e.pointerId, e);
      this.held = this.hold(this.fingers.size > 1);
    });
    canvas.addEventListener('pointerup', (e) => {
      const member = this.held && !this.held.moved ? this.nearest(e) : null;
      this.fingers.delete(e.pointerId);
      this.held = this.hold(true);
      if (member) this.onpick(member.name);
    });
    canvas.addEventListener('pointercancel', (e) => {
      this.fingers.delete(e.pointerId);
      this.held = this.hold(true);
    });
    canvas.addEventListener('wheel', (e) => {
      e.preventDefault();
      this.zoomAt(e, Math.exp(-e.deltaY / 400));
    }, { passive: false });
    canvas.addEventListener('keydown', (e) => this.key(e));
  }

  key(event) {
    const step = 60 / this.scale();
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, step],
      ArrowDown: [0, -step] };
    const zooms = { '+': 1.5, '=': 1.5, '-': 1 / 1.5 };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) {
      const [lon, lat] = moves[event.key];
      this.go(this.lon + lon, this.lat + lat, this.zoom);
    } else if (zooms[event.key]) {
      this.go(this.lon, this.lat, this.zoom * zooms[event.key]);
    } else if (event.key === '0') {
      this.go(...REGIONS.World);
    } else {
      return;
    }
    event.preventDefault();
  }
}

// Differences in tenths of a degree to degrees.
function points(ring) {
  const out = new Float32Array(ring.length);
  let lon = 0;
  let lat = 0;
  for (let i = 0; i < ring.length; i += 2) {
    lon += ring[i];
    lat += ring[i + 1];
    out[i] = lon / 10;
    out[i + 1] = lat / 10;
  }
  return out;
}
